"""STAC Overflow: the chips of DrivenData's competition of 2021 with Microsoft AI for Earth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sarflood.raster.decibel import without_fill
from sarflood.raster.grid import check_same_grid
from sarflood.raster.patch import DRY, UNKNOWN, WET
from sarflood.raster.safe import read_bands
from sarflood.sources.event import Origin
from sarflood.sources.pairing import Place, admit, list_rasters, pair_files
from sarflood.sources.pixels import (
    FLOATS,
    check_pixels,
    cut_patches,
    georeference,
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
    looks_for = "<id>_vv.tif, <id>_vh.tif and the mask <id>.tif in one folder"

    def recognises(self, root: Path) -> bool:
        """Say whether a file has the name of a band."""
        return any(path.name.endswith(("_vv.tif", "_vh.tif")) for path in list_rasters(root))

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
        with open_source(vv) as dataset:
            check_pixels(vv, dataset, bands=1, dtypes=FLOATS)
            bands = [read_bands(dataset)]
            crs, transform = georeference(dataset)
            with open_source(vh) as other:
                check_pixels(vh, other, bands=1, dtypes=FLOATS)
                check_same_grid(vv, dataset, vh, other)
                bands.append(read_bands(other))
            for path in masks:
                with open_source(path) as other:
                    check_pixels(path, other, bands=1, dtypes=("uint8",))
                    check_same_grid(vv, dataset, path, other)
                    mask = read_mask(path, other, _MEANING)
        image = without_fill(np.concatenate(bands))
        yield from cut_patches(item.name, image, mask, crs, transform)


def _place(path: Path) -> Place | None:
    match = _NAME.fullmatch(path.name)
    return Place((match["chip"],), match["chip"], match["band"] or "mask") if match else None


def _labelled(root: Path) -> bool:
    return any(place.role == "mask" for place in map(_place, list_rasters(root)) if place)
