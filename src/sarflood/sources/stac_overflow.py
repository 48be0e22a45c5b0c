"""STAC Overflow: the chips of DrivenData's competition of 2021 with Microsoft AI for Earth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

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
    read_mask,
)
from sarflood.sources.reader import Facts, Item, RawPatch

_NAME = re.compile(r"(?P<chip>.+?)(?:_(?P<band>vv|vh))?\.tif")
_BANDS = {"vv": "<id>_vv.tif", "vh": "<id>_vh.tif"}
_ROLES = {**_BANDS, "mask": "<id>.tif"}
_MEANING = {0: DRY, 1: WET, 255: UNKNOWN}


class StacOverflowReader:
    """GeoTIFF chips, a file a band, in dB with 0 in both bands as no data; masks of 0, 1, 255."""

    layout = "stac-overflow"
    by_windows = False
    looks_for = "<id>_vv.tif, <id>_vh.tif and the mask <id>.tif in one folder"

    def recognises(self, root: Path) -> bool:
        """Say whether a file has the name of a band, other than those of a scene."""
        return any(
            path.name.endswith(("_vv.tif", "_vh.tif"))
            and not path.name.startswith(("scene_", "pre_"))
            for path in list_rasters(root)
        )

    def facts(self, root: Path) -> Facts:
        """Say what STAC Overflow is; without any mask it is unlabelled."""
        origin = Origin(
            name="STAC Overflow",
            url="https://www.drivendata.org/competitions/81/detect-flood-water/",
        )
        return Facts(("vv", "vh"), "db", "water" if _labelled(root) else None, origin)

    def items(self, root: Path) -> Iterator[Item]:
        """List the chips by name."""
        return pair_files(root, list_rasters(root), _place, _ROLES if _labelled(root) else _BANDS)

    def read(self, item: Item) -> Iterator[RawPatch]:
        """Read a chip as patches; see `Reader.read`."""
        admit(item)
        vv, vh, *masks = item.files
        mask = None
        with ExitStack() as stack:
            dataset = stack.enter_context(open_source(vv))
            check_pixels(vv, dataset, bands=1, dtypes=FLOATS)
            crs, transform = georeference(dataset)
            other = stack.enter_context(open_source(vh))
            check_pixels(vh, other, bands=1, dtypes=FLOATS)
            other = on_grid(stack, item, (vv, dataset), (vh, other))
            image = without_fill(np.concatenate([read_bands(dataset), read_bands(other)]))
            for path in masks:
                other = stack.enter_context(open_source(path))
                check_pixels(path, other, bands=1, dtypes=("uint8",))
                other = on_grid(stack, item, (vv, dataset), (path, other), mask=True)
                mask = read_mask(path, other, _MEANING)
            dtype = dataset.dtypes[0]
        yield from cut_patches(item.name, image, mask, crs, transform, dtype)


def _place(path: Path) -> Place | None:
    match = _NAME.fullmatch(path.name)
    return Place((match["chip"],), match["chip"], match["band"] or "mask") if match else None


def _labelled(root: Path) -> bool:
    return any(place.role == "mask" for place in map(_place, list_rasters(root)) if place)
