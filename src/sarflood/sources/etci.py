"""ETCI 2021: tiles of the flood detection competition of NASA IMPACT and IEEE GRSS."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sarflood.raster.patch import DRY, PATCH, UNKNOWN, WET
from sarflood.raster.safe import read_bands
from sarflood.sources.event import Label, Origin
from sarflood.sources.pairing import Place, admit, list_folders, list_rasters, pair_files
from sarflood.sources.pixels import as_mask, check_pixels, open_source, refuse_hidden
from sarflood.sources.reader import BadSourceError, Facts, Item, RawPatch

_MASK, _WATER = "flood_label", "water_body_label"
_NAME = re.compile(r"(?P<scene>.+)_x-(?P<row>\d{1,6})_y-(?P<col>\d{1,6})(?:_(?P<band>vv|vh))?\.png")
_BANDS = {"vv": "vv/<scene>_x-R_y-C_vv.png", "vh": "vh/<scene>_x-R_y-C_vh.png"}
_ROLES = {**_BANDS, **{role: f"{role}/<scene>_x-R_y-C.png" for role in (_MASK, _WATER)}}
_NO_DATA = 255
_MEANING = {0: DRY, 255: WET}


class EtciReader:
    """8-bit RGB PNG tiles with three equal channels, in a folder for each band and label.

    In the names x is the row and y the column of a gap-free grid, one grid a scene.
    """

    layout = "etci2021"
    by_windows = False
    looks_for = (
        "tiles/vv, tiles/vh and tiles/flood_label with <scene>_x-R_y-C_vv.png, …_vh.png and "
        "<scene>_x-R_y-C.png: the tiles folder, a scene's folder or a folder of scenes"
    )

    def recognises(self, root: Path) -> bool:
        """Say whether a file in a band's folder has a name of this layout."""
        return any(_place(path) for path in _files(root))

    def facts(self, root: Path) -> Facts:
        """Say what ETCI 2021 is; a label that no tile has is none."""
        origin = Origin(name="ETCI 2021", url="https://nasa-impact.github.io/etci2021/")
        # `flood_label` includes most permanent water, whatever its name says.
        roles = _roles(root)
        label: Label | None = "water" if _MASK in roles else None
        return Facts(("vv", "vh"), "uint8", label, origin, permanent_water=_WATER in roles)

    def items(self, root: Path) -> Iterator[Item]:
        """List the tiles, scene by scene, row by row."""
        return pair_files(root, _files(root), _place, _roles(root))

    def read(self, item: Item) -> Iterator[RawPatch]:
        """Read a tile; see `Reader.read`."""
        admit(item)
        vv, vh, *labels = item.files
        image = np.stack([_read_channel(vv), _read_channel(vh)])
        outside = (image == _NO_DATA).all(axis=0)
        image[:, outside] = np.nan
        found = {
            path.parent.name: as_mask(path, _read_channel(path, _MEANING), _MEANING)
            for path in labels
        }
        mask, water = found.get(_MASK), found.get(_WATER)
        if mask is not None:
            mask[outside] = UNKNOWN
        match = _NAME.fullmatch(vv.name)
        if match is None:
            raise BadSourceError(f"{vv}: no name of this layout ({_BANDS['vv']})")
        row, col = int(match["row"]), int(match["col"])
        yield RawPatch(
            item.name,
            image,
            mask,
            match["scene"],
            row,
            col,
            dtype="uint8",
            permanent_water=water,
        )


def _read_channel(path: Path, meaning: Mapping[int, int] | None = None) -> NDArray[np.float32]:
    """Read a tile's grey values as (256, 256) float32; its three channels must be equal.

    Args:
        path: A PNG.
        meaning: Of the values, where it is a mask.
    """
    with open_source(path) as dataset:
        check_pixels(path, dataset, bands=3, dtypes=("uint8",))
        if dataset.shape != (PATCH, PATCH):
            raise BadSourceError(
                f"{path}: {dataset.height}×{dataset.width} pixels; tiles are {PATCH}×{PATCH}"
            )
        refuse_hidden(path, dataset, meaning or {})
        channels = read_bands(dataset)
    if not (channels[1:] == channels[0]).all():
        raise BadSourceError(f"{path}: coloured; the three channels of a tile are equal")
    grey: NDArray[np.float32] = channels[0]
    return grey


def _tile_folders(root: Path) -> list[Path]:
    """Return the folders that hold bands or labels: `root`, or below it as published."""
    scenes = [root, *list_folders(root)]
    candidates = [folder for scene in scenes for folder in (scene, scene / "tiles")]
    return [
        folder
        for folder in dict.fromkeys(candidates)
        if any((folder / role).is_dir() for role in _ROLES)
    ]


def _files(root: Path) -> list[Path]:
    folders = (tiles / role for tiles in _tile_folders(root) for role in _ROLES)
    return [path for folder in folders for path in list_rasters(folder)]


def _place(path: Path) -> Place | None:
    match = _NAME.fullmatch(path.name)
    role = path.parent.name
    if match is None or role not in ((match["band"],) if match["band"] else (_MASK, _WATER)):
        return None
    scene, row, col = match["scene"], int(match["row"]), int(match["col"])
    return Place((scene, row, col), f"{scene}_x-{row}_y-{col}", role)


def _roles(root: Path) -> dict[str, str]:
    """Return what a tile of this source consists of: the bands, and the labels that some have."""
    there = {place.role for path in _files(root) if (place := _place(path))}
    return {role: name for role, name in _ROLES.items() if role in _BANDS or role in there}
