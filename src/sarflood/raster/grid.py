"""The grid of a raster, and whether two rasters lie on one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from sarflood.errors import InputError

_TOLERANCE_PIXELS = 0.01
Coordinates = NDArray[np.float64]


def to_lon_lat(crs: CRS) -> Transformer:
    """Return the transformation from `crs` to longitude and latitude in degrees (EPSG:4326)."""
    return Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)


@dataclass(frozen=True)
class Grid:
    """Where a raster's pixels lie.

    Attributes:
        height: Rows.
        width: Columns.
        crs: The coordinate reference system.
        transform: Pixel (column, row) to CRS coordinates.
    """

    height: int
    width: int
    crs: CRS
    transform: Affine

    @classmethod
    def of(cls, dataset: DatasetReader) -> Self:
        """Return the grid of an open raster."""
        return cls(dataset.height, dataset.width, dataset.crs, dataset.transform)

    def crs_coordinates(
        self, cols: Coordinates, rows: Coordinates
    ) -> tuple[Coordinates, Coordinates]:
        """Turn pixels' columns and rows into coordinates of the CRS."""
        a, b, c, d, e, f = tuple(self.transform)[:6]
        return a * cols + b * rows + c, d * cols + e * rows + f

    def lon_lat(self, cols: Coordinates, rows: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Turn pixels' columns and rows into longitude and latitude in degrees (EPSG:4326)."""
        lon, lat = to_lon_lat(self.crs).transform(*self.crs_coordinates(cols, rows))
        return lon, lat


def grid_difference(one: DatasetReader, other: DatasetReader) -> str | None:
    """Say how the grids of two rasters differ; None if their pixels lie on each other.

    A hundredth of a pixel is no difference.
    """
    if one.shape != other.shape:
        return f"{other.height}×{other.width} against {one.height}×{one.width} pixels"
    if one.crs != other.crs:
        return f"CRS {other.crs} against {one.crs}"
    if not _same_corners(one, other):
        return f"transform {tuple(other.transform)[:6]} against {tuple(one.transform)[:6]}"
    return None


def check_same_grid(first: Path, one: DatasetReader, second: Path, other: DatasetReader) -> None:
    """Refuse two rasters whose pixels do not lie on each other, to a hundredth of a pixel.

    Raises:
        InputError: Names both files and the difference.
    """
    what = grid_difference(one, other)
    if what:
        raise InputError(
            f"{second}: not on the grid of {first}: {what}; warp one onto the other with "
            "`rio warp --like`"
        )


def _same_corners(one: DatasetReader, other: DatasetReader) -> bool:
    if one.transform.is_degenerate:
        return bool(one.transform == other.transform)
    to_pixels = ~one.transform @ other.transform
    for corner in ((0, 0), (one.width, 0), (0, one.height)):
        col, row = to_pixels @ corner
        if max(abs(col - corner[0]), abs(row - corner[1])) > _TOLERANCE_PIXELS:
            return False
    return True
