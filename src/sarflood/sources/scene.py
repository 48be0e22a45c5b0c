"""A georeferenced scene with its mask, as one makes it of one's own data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from sarflood.raster.cache import block_cache
from sarflood.raster.decibel import without_fill
from sarflood.raster.grid import check_same_grid
from sarflood.raster.patch import DRY, PATCH, UNKNOWN, WET
from sarflood.raster.safe import read_bands
from sarflood.raster.units import tell_units
from sarflood.sources.event import Band, Label, Origin, Units
from sarflood.sources.pairing import admit, list_rasters, stray
from sarflood.sources.pixels import (
    check_pixels,
    cut_row,
    georeference,
    open_source,
    patch_count,
    polarisations,
    read_mask,
)
from sarflood.sources.reader import BadSourceError, Facts, Item, RawPatch

SCENE, PRE, MASK = "scene.tif", "pre.tif", "mask.tif"
LABEL_TAG = "SARFLOOD_LABEL"
_MEANING = {0: DRY, 1: WET, 255: UNKNOWN}
_CACHE_BYTES = 128 * 2**20


class SceneReader:
    """A folder with `scene.tif`, perhaps `pre.tif` and `mask.tif`, or one GeoTIFF without a mask.

    The files are read by windows, with memory for one row of patches.
    """

    layout = "scene"
    looks_for = (
        "scene.tif (VV and VH), with mask.tif (0, 1, 255) where labelled and pre.tif (VV and VH "
        "before the event) where there is one; or a single GeoTIFF with VV and VH"
    )

    def recognises(self, root: Path) -> bool:
        """Say whether `root` is a GeoTIFF, or a folder with `scene.tif`."""
        if root.is_file():
            return root.suffix.lower() in {".tif", ".tiff"}
        return (root / SCENE).is_symlink() or (root / SCENE).exists()

    def facts(self, root: Path) -> Facts:
        """Say which bands there are, and units and label from the files.

        A file that cannot be read counts as dB and water: `read` refuses it.
        """
        item = next(self.items(root))
        files = _by_role(item)
        bands: tuple[Band, ...] = ("vv", "vh")
        if PRE in files:
            bands = ("vv", "vh", "vv_pre", "vh_pre")
        origin = Origin(name=root.resolve().name)
        try:
            admit(item)
            with open_source(files[SCENE], chip=False) as scene:
                units = _units(files[SCENE], scene)
            if MASK not in files:
                return Facts(bands, units, None, origin)
            with open_source(files[MASK], chip=False) as mask:
                return Facts(bands, units, _label(files[MASK], mask), origin)
        except BadSourceError:
            return Facts(bands, "db", "water" if MASK in files else None, origin)

    def items(self, root: Path) -> Iterator[Item]:
        """List the one scene, and other rasters in its folder, which `read` refuses."""
        if root.is_file():
            file = root.resolve()
            yield Item(root.stem, (file,), file.parent)
            return
        roles = (SCENE, PRE, MASK)
        present = [root / name for name in roles if os.path.lexists(root / name)]
        yield Item(root.resolve().name, tuple(present), root)
        for path in list_rasters(root):
            if path.name not in roles:
                problem = f"{path}: not one of {', '.join(roles)}; rename or remove it"
                yield stray(root, path, problem)

    def read(self, item: Item) -> Iterator[RawPatch]:
        """Read a scene as patches, row by row; see `Reader.read`."""
        admit(item)
        files = _by_role(item)
        with ExitStack() as stack:
            stack.enter_context(block_cache(_CACHE_BYTES))
            opened = {
                role: stack.enter_context(open_source(path, chip=False))
                for role, path in files.items()
            }
            units = _check_whole(files, opened)
            scene, mask = opened[SCENE], opened.get(MASK)
            images = [
                (opened[role], polarisations(files[role], opened[role]))
                for role in (SCENE, PRE)
                if role in opened
            ]
            crs, transform = georeference(scene)
            rows = patch_count(scene.height)
            for row in range(rows):
                top = row * PATCH
                window = Window(0, top, scene.width, min(PATCH, scene.height - top))
                image = np.concatenate(
                    [_read_image(data, window, bands, units) for data, bands in images]
                )
                known = read_mask(files[MASK], mask, _MEANING, window) if mask else None
                yield from cut_row(item.name, image, known, row, rows, crs, transform)


def _read_image(
    dataset: DatasetReader, window: Window, bands: list[int], units: Units
) -> NDArray[np.float32]:
    image = read_bands(dataset, window, bands)
    return without_fill(image) if units == "db" else image


def _by_role(item: Item) -> dict[str, Path]:
    """Return the files by `scene.tif`, `pre.tif`, `mask.tif`; a single GeoTIFF is the scene."""
    scene, *others = item.files
    return {SCENE: scene} | {path.name: path for path in others}


def _check_whole(files: dict[str, Path], opened: dict[str, DatasetReader]) -> Units:
    """Return the units of the images.

    Raises:
        InputError: The files do not lie on one grid, the images are in two units, or the mask is
            none.
    """
    for role, dataset in opened.items():
        check_same_grid(files[SCENE], opened[SCENE], files[role], dataset)
    units = _units(files[SCENE], opened[SCENE])
    if PRE in opened and _units(files[PRE], opened[PRE]) != units:
        raise BadSourceError(
            f"{files[PRE]}: not in {units} as {files[SCENE]} is; convert one of them"
        )
    if MASK in opened:
        check_pixels(files[MASK], opened[MASK], bands=1, dtypes=("uint8", "int16", "float32"))
        _label(files[MASK], opened[MASK])
    return units


def _units(path: Path, dataset: DatasetReader) -> Units:
    return tell_units(path, dataset, polarisations(path, dataset))


def _label(path: Path, mask: DatasetReader) -> Label:
    label = mask.tags().get(LABEL_TAG, "water")
    for allowed in get_args(Label):
        if label == allowed:
            return allowed  # type: ignore[no-any-return]
    raise BadSourceError(
        f"{path}: tag {LABEL_TAG} is {label!r}; allowed are {', '.join(get_args(Label))}"
    )
