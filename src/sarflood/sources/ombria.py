"""OMBRIA: pairs of images before and after a flood (Drakonakis et al., 2022), Sentinel-1 part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sarflood.raster.patch import DRY, PATCH, WET
from sarflood.raster.safe import read_bands
from sarflood.sources.event import Origin
from sarflood.sources.pairing import Place, admit, list_folders, list_rasters, pair_files
from sarflood.sources.pixels import check_pixels, open_source, read_mask
from sarflood.sources.reader import BadSourceError, Facts, Item, RawPatch

_NAMES = {
    "AFTER": re.compile(r"(?:S1_after|imafter)_(\d{1,9})\.png"),
    "BEFORE": re.compile(r"(?:S1_before|imbefore)_(\d{1,9})\.png"),
    "MASK": re.compile(r"(?:S1_mask|gt)_(\d{1,9})\.png"),
}
_IMAGES = {
    "AFTER": "AFTER/S1_after_N.png (or imafter_N.png)",
    "BEFORE": "BEFORE/S1_before_N.png (or imbefore_N.png)",
}
_ROLES = {**_IMAGES, "MASK": "MASK/S1_mask_N.png (or gt_N.png)"}
_PUBLISHED_PARTS = frozenset({"train", "test"})
_MEANING = {0: DRY, 255: WET}


class OmbriaReader:
    """8-bit PNG tiles in BEFORE, AFTER and MASK, of one part or in a folder for each part.

    The parts `train` and `test` as published share one numbering, in which neighbouring numbers are
    neighbouring places: they are read in the order of the numbers. Any other parts are places with
    a numbering each, read one after the other.
    """

    layout = "ombria"
    by_windows = False
    looks_for = (
        "BEFORE/, AFTER/ and MASK/ with S1_before_N.png, S1_after_N.png, S1_mask_N.png (or "
        "imbefore_N.png, imafter_N.png, gt_N.png), or folders such as train/ and test/ of these"
    )

    def recognises(self, root: Path) -> bool:
        """Say whether a file has a name of this layout, in its folder."""
        return any(_number(path) is not None for path in _files(root))

    def facts(self, root: Path) -> Facts:
        """Say what OMBRIA is; without any mask it is unlabelled."""
        origin = Origin(name="OMBRIA", url="https://github.com/geodrak/OMBRIA")
        return Facts(("vv", "vv_pre"), "uint8", "flood" if _labelled(root) else None, origin)

    def items(self, root: Path) -> Iterator[Item]:
        """List the tiles so that neighbouring numbers follow each other."""
        parts = _parts(root)
        several = len(parts) > 1
        one_numbering = {part.name for part in parts} <= _PUBLISHED_PARTS

        def place_of(path: Path) -> Place | None:
            number = _number(path)
            if number is None:
                return None
            part, role = path.parent.parent.name, path.parent.name
            if not several:
                return Place((number,), f"{number:05d}", role)
            if one_numbering:
                return Place((number, part), f"{number:05d}-{part}", role)
            return Place((part, number), f"{part}-{number:05d}", role)

        return pair_files(root, _files(root), place_of, _ROLES if _labelled(root) else _IMAGES)

    def read(self, item: Item) -> Iterator[RawPatch]:
        """Read a tile; see `Reader.read`."""
        admit(item)
        after, before, *masks = item.files
        bands = []
        for path in (after, before):
            with open_source(path) as dataset:
                _check_tile(path, dataset.shape)
                check_pixels(path, dataset, bands=1, dtypes=("uint8",))
                bands.append(read_bands(dataset))
        mask = None
        for path in masks:
            with open_source(path) as dataset:
                _check_tile(path, dataset.shape)
                check_pixels(path, dataset, bands=1, dtypes=("uint8",))
                mask = read_mask(path, dataset, _MEANING)
        yield RawPatch(item.name, np.concatenate(bands), mask, dtype="uint8")


def _check_tile(path: Path, shape: tuple[int, int]) -> None:
    if shape != (PATCH, PATCH):
        raise BadSourceError(f"{path}: {shape[0]}×{shape[1]} pixels; tiles are {PATCH}×{PATCH}")


def _parts(root: Path) -> list[Path]:
    """Return the folders that hold BEFORE, AFTER or MASK: `root` itself, or folders in it."""
    return [
        folder
        for folder in (root, *list_folders(root))
        if any((folder / role).is_dir() for role in _ROLES)
    ]


def _files(root: Path) -> list[Path]:
    return [path for part in _parts(root) for role in _ROLES for path in list_rasters(part / role)]


def _number(path: Path) -> int | None:
    match = _NAMES[path.parent.name].fullmatch(path.name)
    return int(match[1]) if match else None


def _labelled(root: Path) -> bool:
    return any(path.parent.name == "MASK" for path in _files(root) if _number(path) is not None)
