"""Clean sources to be spoiled: chips in dB, 8-bit tiles, and a scene, all simulated."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from sarflood.sources.backscatter import Simulated, simulate_window
from sarflood.sources.landscape import Landscape
from sarflood.sources.simulate import simulate_event

PATCHES = 12
SCENE = "s_20200101t000000"
CRS = "EPSG:32651"


# Places of a landscape where the flood's edges show well, as in events with good masks.
_ROWS = (3, 1, 2, 3, 5, 1, 3, 5, 5, 1, 5, 4)
_COLS = (1, 2, 2, 2, 5, 3, 5, 2, 3, 5, 1, 1)


@cache
def simulated(number: int) -> Simulated:
    """The patch of a number, of twelve that stand apart."""
    place = Landscape(seed=4, size=4096)
    return simulate_window(place, 100 + 600 * _ROWS[number], 100 + 600 * _COLS[number], 256, 256)


def area(height: int, width: int) -> Simulated:
    """A piece of another landscape, of any size."""
    return simulate_window(Landscape(seed=8, size=4096), 1300, 700, height, width)


def place(number: int) -> Affine:
    return Affine(10, 0, 300_000 + 9000 * number, 0, -10, 1_800_000)


def write_tif(path: Path, values: np.ndarray, where: Affine | None, **profile: Any) -> None:
    bands = values if values.ndim == 3 else values[None]
    settings: dict[str, Any] = {"crs": CRS, "transform": where, "compress": "deflate", **profile}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=bands.dtype,
        **settings,
    ) as file:
        file.write(bands)


def chip(
    folder: Path,
    number: int,
    image: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    where: Affine | None = None,
    **profile: Any,
) -> None:
    """Write one chip in the layout of STAC Overflow."""
    clean = simulated(number % PATCHES)
    image = clean.after if image is None else image
    mask = clean.mask if mask is None else mask
    where = where or place(number)
    for suffix, values in (("_vv", image[0]), ("_vh", image[1])):
        write_tif(folder / f"c{number:02d}{suffix}.tif", values, where, **profile)
    write_tif(folder / f"c{number:02d}.tif", mask, where)


def chips(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(PATCHES):
        chip(folder, number)
    return folder


def grey(decibel: np.ndarray) -> np.ndarray:
    stretched: np.ndarray = np.clip((decibel + 35) * 7, 0, 254).astype(np.uint8)
    return stretched


def tile_path(folder: Path, role: str, number: int) -> Path:
    suffix = "" if role == "flood_label" else f"_{role}"
    return folder / "tiles" / role / f"{SCENE}_x-1_y-{number}{suffix}.png"


def tiles(folder: Path) -> Path:
    """Write all patches in the layout of ETCI 2021."""
    for number in range(PATCHES):
        clean = simulated(number)
        layers = {"vv": grey(clean.after[0]), "vh": grey(clean.after[1])}
        layers["flood_label"] = 255 * (clean.mask == 1).astype(np.uint8)
        for role, values in layers.items():
            path = tile_path(folder, role, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.stack([values] * 3, axis=-1)).save(path)
    return folder


def scene(folder: Path) -> Path:
    """Write a scene of 3×3 patches with its mask, in the layout `scene`."""
    simulate_event(folder, seed=4, size=768)
    (folder / "pre.tif").unlink()
    return folder


def read_tif(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        values: np.ndarray = file.read()
    return values
