"""Georeferenced scenes with their masks, as one makes them of one's own data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from sarflood.raster.cache import block_cache
from sarflood.raster.decibel import without_fill
from sarflood.raster.patch import UNKNOWN
from sarflood.raster.safe import read_bands
from sarflood.raster.units import tell_units
from sarflood.sources.event import Band, Label, Origin, Units
from sarflood.sources.outlines import SUFFIXES, Outlines, read_outlines
from sarflood.sources.pairing import admit, list_folders, list_rasters, stray
from sarflood.sources.pixels import (
    PatchGrid,
    check_pixels,
    georeference,
    on_grid,
    open_source,
    polarisations,
    read_mask,
)
from sarflood.sources.reader import BadSourceError, Facts, Item, RawPatch

SCENE, PRE, MASK = "scene.tif", "pre.tif", "mask.tif"
# One file for both polarisations, or a file each.
_FILES = {
    "scene": ((SCENE,), ("scene_vv.tif", "scene_vh.tif")),
    "pre": ((PRE,), ("pre_vv.tif", "pre_vh.tif")),
    "mask": ((MASK,), *((f"mask{suffix}",) for suffix in SUFFIXES)),
}
_NAMES = frozenset(name for forms in _FILES.values() for form in forms for name in form)
LABEL_TAG = "SARFLOOD_LABEL"
_CACHE_BYTES = 128 * 2**20
_COLS_AT_ONCE = 16  # patches that are read as one

Raster = tuple[Path, DatasetReader]


class SceneReader:
    """A folder with a scene, a folder of such folders, or one GeoTIFF without a mask.

    The files are read by windows, with memory for some patches of a row.
    """

    layout = "scene"
    by_windows = True
    looks_for = (
        "scene.tif (VV and VH) or scene_vv.tif and scene_vh.tif, with mask.tif (0, 1, 255), "
        "mask.geojson or mask.gpkg where labelled, and pre.tif or pre_vv.tif and pre_vh.tif where "
        "there is a scene from before the event; or a folder of such folders; or a single GeoTIFF "
        "with VV and VH"
    )

    def recognises(self, root: Path) -> bool:
        """Say whether `root` is a GeoTIFF, a folder with a scene, or a folder of these."""
        if root.is_file():
            return root.suffix.lower() in {".tif", ".tiff"}
        return bool(_folders(root))

    def facts(self, root: Path) -> Facts:
        """Say which bands there are, and units and label from the first scene's files.

        A file that cannot be read counts as dB and water: `read` refuses it.
        """
        items = [item for item in self.items(root) if item.problem is None]
        files = _by_role(items[0]) if items else {}
        bands: tuple[Band, ...] = ("vv", "vh")
        if "pre" in files:
            bands = ("vv", "vh", "vv_pre", "vh_pre")
        origin = Origin(name=root.resolve().name)
        try:
            units, label = _units_and_label(items[0]) if items else ("db", None)
        except BadSourceError:
            units, label = "db", "water" if "mask" in files else None
        several = any(path.name == MASK for path in files.get("mask", ()))
        return Facts(bands, units, label, origin, several_classes=several)

    def items(self, root: Path) -> Iterator[Item]:
        """List the scenes, and other rasters in their folders, which `read` refuses."""
        if root.is_file():
            file = root.resolve()
            yield Item(root.stem, (file,), file.parent)
            return
        labelled = any(_present(folder, "mask") for folder in _folders(root))
        with_pre = any(_present(folder, "pre") for folder in _folders(root))
        for folder in _folders(root):
            yield _item(root, folder, labelled=labelled, with_pre=with_pre)
            for path in list_rasters(folder):
                if path.name not in _NAMES:
                    problem = f"{path}: not one of {', '.join(sorted(_NAMES))}; rename or remove it"
                    yield stray(root, path, problem)

    def read(self, item: Item) -> Iterator[RawPatch]:
        """Read a scene, or the one row of it that is wanted, as patches; see `Reader.read`."""
        admit(item)
        files = _by_role(item)
        with ExitStack() as stack:
            stack.enter_context(block_cache(_CACHE_BYTES))
            scene = _open_image(stack, item, files["scene"], None)
            images = [scene]
            if "pre" in files:
                images.append(_open_image(stack, item, files["pre"], scene))
            mask = _open_mask(stack, item, files["mask"][0], scene) if "mask" in files else None
            data = scene.grid[1]
            crs, transform = georeference(data)
            grid = PatchGrid(item.name, data.height, data.width, crs, transform, data.dtypes[0])
            for row, col, window in grid.windows(_COLS_AT_ONCE, item.row):
                parts = [part.read(window) for part in images]
                image = parts[0] if len(parts) == 1 else np.concatenate(parts)
                known = None if mask is None else mask.read(window)
                yield from grid.cut(image, known, row, col)


def rows_apart(item: Item) -> Iterator[Item]:
    """Give the rows of a scene as items that can be read apart; one that is damaged stays whole."""
    try:
        admit(item)
        with open_source(_by_role(item)["scene"][0], chip=False) as data:
            rows = PatchGrid(item.name, data.height, data.width).rows
    except BadSourceError:
        yield item
        return
    yield from (replace(item, row=row) for row in rows)


@dataclass(frozen=True)
class _Image:
    """VV and VH of one date, in one file or in two.

    Attributes:
        bands: The rasters with the numbers of their bands: together VV, then VH.
        grid: The file whose grid is that of the patches.
    """

    bands: tuple[tuple[DatasetReader, list[int]], ...]
    units: Units
    grid: Raster

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read (2, h, w) float32; NaN is no data."""
        parts = [read_bands(data, window, numbers) for data, numbers in self.bands]
        image = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return without_fill(image) if self.units == "db" else image


@dataclass(frozen=True)
class _Mask:
    path: Path
    raster: DatasetReader | None
    outlines: Outlines | None
    scene: DatasetReader
    meaning: Mapping[int, int]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read (h, w) uint8: 0 dry, 1 wet, further classes where wanted, 255 unknown."""
        if self.outlines:
            return self.outlines.burn(self.scene, window)
        return read_mask(self.path, self.raster, self.meaning, window)


def _units_and_label(item: Item) -> tuple[Units, Label | None]:
    admit(item)
    files = _by_role(item)
    with ExitStack() as stack:
        units = _open_image(stack, item, files["scene"], None).units
        if "mask" not in files:
            return units, None
        path = files["mask"][0]
        if path.suffix in SUFFIXES:
            return units, "water"
        return units, _label(path, stack.enter_context(open_source(path, chip=False)))


def _folders(root: Path) -> list[Path]:
    """Return the folders with a scene: `root` itself, or folders in it."""
    return [
        folder
        for folder in (root, *list_folders(root))
        if any(os.path.lexists(folder / name) for form in _FILES["scene"] for name in form)
    ]


def _present(folder: Path, role: str) -> list[Path]:
    """Return the files of a role that are there."""
    names = [name for form in _FILES[role] for name in form]
    return [folder / name for name in names if os.path.lexists(folder / name)]


def _item(root: Path, folder: Path, *, labelled: bool, with_pre: bool) -> Item:
    """Return a scene; it has a problem where a role's files are no one of its forms."""
    wanted = ["scene"] + ["pre"] * with_pre + ["mask"] * labelled
    files, problems = [], []
    for role in wanted:
        present = _present(folder, role)
        files += present
        if tuple(path.name for path in present) not in _FILES[role]:
            forms = " or ".join(" with ".join(form) for form in _FILES[role])
            there = ", ".join(path.name for path in present) or "nothing"
            problems.append(f"{folder}: {there} where {forms} belongs")
    return Item(folder.resolve().name, tuple(files), root, "; ".join(problems) or None)


def _by_role(item: Item) -> dict[str, list[Path]]:
    """Return the files by `scene`, `pre`, `mask`; a single GeoTIFF is the scene."""
    files: dict[str, list[Path]] = {}
    for path in item.files:
        role = path.name.split("_")[0].split(".")[0] if path.name in _NAMES else "scene"
        files.setdefault(role, []).append(path)
    return files


def _open_image(stack: ExitStack, item: Item, paths: list[Path], like: _Image | None) -> _Image:
    """Open VV and VH of one date.

    Raises:
        BadSourceError: The files are not on one grid, or not all in one kind of units.
    """
    opened = [(path, stack.enter_context(open_source(path, chip=False))) for path in paths]
    grid = like.grid if like else opened[0]
    bands: list[tuple[DatasetReader, list[int]]] = []
    told: dict[Path, Units] = {}
    for path, dataset in opened:
        numbers = polarisations(path, dataset) if len(paths) == 1 else [_only_band(path, dataset)]
        told[path] = tell_units(path, dataset, numbers)
        raster = on_grid(stack, item, grid, (path, dataset))
        bands.append((raster, numbers))
    units = like.units if like else told[paths[0]]
    for path, own in told.items():
        if own != units:
            raise BadSourceError(f"{path}: not in {units} as {grid[0]} is; convert one of them")
    return _Image(tuple(bands), units, grid)


def _only_band(path: Path, dataset: DatasetReader) -> int:
    if dataset.count != 1:
        raise BadSourceError(f"{path}: {dataset.count} bands; a file for one polarisation has one")
    return 1


def _open_mask(stack: ExitStack, item: Item, path: Path, scene: _Image) -> _Mask:
    grid = scene.grid
    meaning = {code: code for code in (*range(item.classes), UNKNOWN)}
    if path.suffix in SUFFIXES:
        if item.classes > 2:
            raise BadSourceError(
                f"{path}: polygons show water alone; write {MASK} with the codes of all classes"
            )
        return _Mask(path, None, read_outlines(path, grid[1]), grid[1], meaning)
    mask = stack.enter_context(open_source(path, chip=False))
    check_pixels(path, mask, bands=1, dtypes=("uint8", "int16", "float32"))
    _label(path, mask)
    return _Mask(path, on_grid(stack, item, grid, (path, mask), mask=True), None, grid[1], meaning)


def _label(path: Path, mask: DatasetReader) -> Label:
    label = mask.tags().get(LABEL_TAG, "water")
    for allowed in get_args(Label):
        if label == allowed:
            return allowed  # type: ignore[no-any-return]
    raise BadSourceError(
        f"{path}: tag {LABEL_TAG} is {label!r}; allowed are {', '.join(get_args(Label))}"
    )
