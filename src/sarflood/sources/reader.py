"""What a reader of a source layout is, and what it gives: raw patches of 256×256 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from sarflood.errors import InputError
from sarflood.raster.patch import PATCH
from sarflood.sources.event import Band, Label, Origin, Units


class BadSourceError(InputError):
    """One item of a source cannot be read; it goes to quarantine, the others go on."""


@dataclass(frozen=True)
class Facts:
    """What a layout says of itself; the user's words on the command line come on top.

    `permanent_water` says whether its patches have that, `several_classes` whether its masks may
    tell kinds of dry land apart.
    """

    bands: tuple[Band, ...]
    units: Units
    label: Label | None
    origin: Origin
    permanent_water: bool = False
    several_classes: bool = False


@dataclass(frozen=True)
class Item:
    """A unit of a source that is read, and if need be refused, as one: a tile, a chip, a scene.

    Attributes:
        name: Unique in the source.
        files: The files it consists of, as far as they are there, images first.
        root: The source's folder; no file may lie outside of it, not by a symlink either.
        problem: Why it cannot be read, where its names alone tell: a file missing, a stray file.
        reproject: Whether files on another grid than the first image are warped onto it; else they
            are refused.
        classes: How many its mask has, where the reader knows of several.
        row: The one row of patches that is read, where a scene is read in parts.
    """

    name: str
    files: tuple[Path, ...]
    root: Path
    problem: str | None = None
    reproject: bool = False
    classes: int = 2
    row: int | None = None


@dataclass(frozen=True)
class RawPatch:
    """One patch as it came.

    Attributes:
        name: Unique in the source, such as `awc00-0-1`.
        image: (C, 256, 256) float32 in the bands and units of the reader's facts; NaN is no data.
        mask: (256, 256) uint8, 0 dry, 1 wet, 255 unknown, and further kinds of dry land where the
            event has classes; None where the source is unlabelled.
        grid: Names the gap-free grid of patches that this one is a tile of; None where there is no
            grid and no neighbour is known.
        row: Position in the grid, in patches from the top.
        col: Position in the grid, in patches from the left.
        crs: Such as `EPSG:32651`; None without georeference.
        transform: Pixel (column, row) to CRS coordinates of this patch; None without georeference.
        height: Rows that came from the source; the others are padding.
        width: Columns that came from the source; the others are padding.
        dtype: Of the pixels in the source's file, such as `float32` or `uint8`.
        permanent_water: (256, 256) uint8, 1 where water stands at all times, else 0; None where the
            source does not tell.
    """

    name: str
    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    grid: str | None = None
    row: int = 0
    col: int = 0
    crs: str | None = None
    transform: Affine | None = None
    height: int = PATCH
    width: int = PATCH
    dtype: str = "float32"
    permanent_water: NDArray[np.uint8] | None = None


class Reader(Protocol):
    """One source layout. To add one: a module with such a class, and its name in `readers.py`.

    Attributes:
        layout: Its name.
        looks_for: Which files it needs, for messages.
        by_windows: Whether an item may be larger than memory, and `read` goes by windows.
    """

    layout: str
    looks_for: str
    by_windows: bool

    def recognises(self, root: Path) -> bool:
        """Say whether `root` (a folder or a file) has this layout, from names alone."""

    def facts(self, root: Path) -> Facts:
        """Say which bands, units and label the source has."""

    def items(self, root: Path) -> Iterator[Item]:
        """List the items in a fixed order, reading names only.

        An item with a file missing is listed all the same, and `read` refuses it.
        """

    def read(self, item: Item) -> Iterator[RawPatch]:
        """Read the patches of one item.

        Raises:
            BadSourceError: Says which file is wrong, how, and what would be right.
        """
