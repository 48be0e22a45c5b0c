"""Sen1Floods11: hand-labelled chips of eleven flood events (Bonafilia et al., 2020)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from sarflood.raster.decibel import without_fill
from sarflood.raster.patch import DRY, UNKNOWN, WET
from sarflood.raster.safe import read_bands
from sarflood.sources.event import Origin
from sarflood.sources.pairing import Place, admit, list_rasters, pair_files
from sarflood.sources.pixels import (
    FLOATS,
    check_pixels,
    cut_patches,
    georeference,
    on_grid,
    open_source,
    polarisations,
    read_mask,
)
from sarflood.sources.reader import Facts, Item, RawPatch

_FOLDERS = ("", "S1", "Labels", "S1Hand", "LabelHand")
_NAME = re.compile(r"(?P<chip>.+)_(?P<role>S1|Label)Hand\.tif")
_ROLES = {"S1": "<Place>_<id>_S1Hand.tif", "Label": "<Place>_<id>_LabelHand.tif"}
_MEANING = {-1: UNKNOWN, 0: DRY, 1: WET}


class Sen1Floods11Reader:
    """Two-band GeoTIFF chips, VV and VH in dB with NaN no data, and masks of −1, 0 and 1."""

    layout = "sen1floods11"
    by_windows = False
    looks_for = (
        "<Place>_<id>_S1Hand.tif and <Place>_<id>_LabelHand.tif, in one folder or in S1/ and "
        "Labels/"
    )

    def recognises(self, root: Path) -> bool:
        """Say whether a file has a name of this layout."""
        return any(_place(path) for path in _files(root))

    def facts(self, root: Path) -> Facts:
        """Say what Sen1Floods11 is; without any mask it is unlabelled."""
        origin = Origin(name="Sen1Floods11", url="https://github.com/cloudtostreet/Sen1Floods11")
        return Facts(("vv", "vh"), "db", "water" if _labelled(root) else None, origin)

    def items(self, root: Path) -> Iterator[Item]:
        """List the chips by name."""
        roles = _ROLES if _labelled(root) else {"S1": _ROLES["S1"]}
        return pair_files(root, _files(root), _place, roles)

    def read(self, item: Item) -> Iterator[RawPatch]:
        """Read a chip as patches; see `Reader.read`."""
        admit(item)
        chip, *masks = item.files
        mask = None
        with ExitStack() as stack:
            dataset = stack.enter_context(open_source(chip))
            check_pixels(chip, dataset, bands=2, dtypes=FLOATS)
            image = read_bands(dataset, bands=polarisations(chip, dataset))
            crs, transform = georeference(dataset)
            for path in masks:
                other = stack.enter_context(open_source(path))
                check_pixels(path, other, bands=1, dtypes=("int16", "int8", "float32"))
                other = on_grid(stack, item, (chip, dataset), (path, other), mask=True)
                mask = read_mask(path, other, _MEANING)
            dtype = dataset.dtypes[0]
        yield from cut_patches(item.name, without_fill(image), mask, crs, transform, dtype)


def _files(root: Path) -> list[Path]:
    return [path for folder in _FOLDERS for path in list_rasters(root / folder)]


def _place(path: Path) -> Place | None:
    match = _NAME.fullmatch(path.name)
    return Place((match["chip"],), match["chip"], match["role"]) if match else None


def _labelled(root: Path) -> bool:
    return any(place.role == "Label" for place in map(_place, _files(root)) if place)
