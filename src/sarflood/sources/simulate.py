"""Simulated flood events: scenes that look like Sentinel-1, with the truth known to the pixel."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from sarflood.errors import InputError, SarfloodError
from sarflood.raster.cache import block_cache
from sarflood.raster.patch import PATCH, UNKNOWN
from sarflood.sources.backscatter import simulate_window
from sarflood.sources.landscape import PIXEL_M, Landscape
from sarflood.sources.scene import LABEL_TAG, MASK, PRE, SCENE

MAX_SIZE = 60_000
_CRS = "EPSG:32651"
_WEST_M, _NORTH_M = 300_000.0, 1_800_000.0  # upper left corner, in northern Luzon
_BLOCK = 512  # pixels a side that are simulated and written at once
# The order in which GDAL writes tiles depends on its cache: fixed, the bytes are the same anywhere.
_CACHE_BYTES = 64 * 2**20


def simulate_event(
    out: Path, *, seed: int, size: int, on_progress: Callable[[float], object] | None = None
) -> None:
    """Write a simulated event as a new folder in the `scene` layout, whole or not at all.

    The same seed and size give the same bytes; another seed gives another place and flood. Memory
    does not grow with the size.

    Args:
        out: The folder to make: `scene.tif` (VV and VH after the flood), `pre.tif` (before it) and
            `mask.tif` (1 newly flooded, 0 not, 255 no data).
        seed: From 0.
        size: Pixels of 10 m a side.
        on_progress: Is called with the share done, 0 to 1.

    Raises:
        InputError: `out` exists or cannot be made, or `seed` or `size` is out of range.
        SarfloodError: The files cannot be written, such as on a full disk.
    """
    if not PATCH <= size <= MAX_SIZE:
        raise InputError(f"size {size}: allowed are {PATCH} to {MAX_SIZE} pixels")
    if not 0 <= seed < 2**31:
        raise InputError(f"seed {seed}: allowed are 0 to {2**31 - 1}")
    if os.path.lexists(out):
        raise InputError(f"{out}: exists already; name a new folder or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}") from error
    try:
        _write_scene(temporary, Landscape(seed, size), on_progress)
        temporary.chmod(0o755)
        temporary.rename(out)
    except OSError as error:  # those of rasterio included
        raise SarfloodError(f"{out}: cannot be written ({error}); is the disk full?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_scene(
    folder: Path, place: Landscape, on_progress: Callable[[float], object] | None
) -> None:
    blocks = list(_blocks(place.size))
    written: dict[str, list[int]] = {SCENE: [], PRE: [], MASK: []}  # checksums of the blocks
    with block_cache(_CACHE_BYTES), ExitStack() as stack:
        images = {"dtype": "float32", "count": 2, "nodata": np.nan, "predictor": 2}
        scene = stack.enter_context(_create(folder / SCENE, place.size, images))
        pre = stack.enter_context(_create(folder / PRE, place.size, images))
        truth = {"dtype": "uint8", "count": 1, "nodata": UNKNOWN}
        mask = stack.enter_context(_create(folder / MASK, place.size, truth))
        for image in (scene, pre):
            image.descriptions = ("VV", "VH")
            image.units = ("dB", "dB")
        mask.update_tags(**{LABEL_TAG: "flood"})
        for done, block in enumerate(blocks, start=1):
            simulated = simulate_window(
                place, block.row_off, block.col_off, block.height, block.width
            )
            layers: list[NDArray[Any]] = [
                simulated.after,
                simulated.before,
                simulated.mask[None],
            ]
            files = zip((scene, pre, mask), layers, written.values(), strict=True)
            for file, values, sums in files:
                file.write(values, window=block)
                sums.append(crc32(values.tobytes()))
            if on_progress:
                on_progress(done / len(blocks))
    for name, sums in written.items():
        _check_written(folder / name, blocks, sums)


def _check_written(path: Path, blocks: list[Window], sums: list[int]) -> None:
    """Read a file back: what GDAL fails to write on closing it, rasterio does not report."""
    with rasterio.open(path, driver="GTiff") as file:
        for block, expected in zip(blocks, sums, strict=True):
            if crc32(file.read(window=block).tobytes()) != expected:
                raise OSError(f"{path.name} reads back otherwise than written")


def _create(path: Path, size: int, profile: dict[str, Any]) -> DatasetWriter:
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=size,
        height=size,
        crs=_CRS,
        transform=Affine(PIXEL_M, 0.0, _WEST_M, 0.0, -PIXEL_M, _NORTH_M),
        tiled=True,
        blockxsize=PATCH,
        blockysize=PATCH,
        interleave="band",
        compress="deflate",
        zlevel=1,
        bigtiff="IF_SAFER",
        **profile,
    )


def _blocks(size: int) -> Iterator[Window]:
    for row in range(0, size, _BLOCK):
        for col in range(0, size, _BLOCK):
            yield Window(col, row, min(_BLOCK, size - col), min(_BLOCK, size - row))
