"""The ground that patches cover, and which patches cover the same."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from sarflood.raster.patch import PATCH

_FIRST_LON = -33.0  # longitudes run on from here: no land is cut but Greenland's ice
_METRES_A_DEGREE = 111_320.0
_MIN_OVERLAP = 0.02  # of the smaller patch: less is the rounding of a border

Footprints = NDArray[np.object_]


def footprints(index: pd.DataFrame, guard: float = 0.0) -> Footprints:
    """Return the (N,) outlines of patches in longitude and latitude; None without georeference.

    Longitudes go from −33° to 327°, so that nothing is torn at the antimeridian.

    Args:
        index: `crs` and `transform`, a row a patch.
        guard: Outlines are widened, so that patches nearer to each other than this overlap; in
            patches.
    """
    margin = guard * PATCH / 2
    outlines = np.full(len(index), None, dtype=object)
    for crs, rows in index.reset_index(drop=True).groupby("crs"):
        affines = [Affine(*json.loads(text)) for text in rows["transform"]]
        corners = np.array([_corners(affine, margin) for affine in affines])  # (n, 5, 2)
        to_globe = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
        lon, lat = to_globe.transform(corners[..., 0], corners[..., 1])
        lon = (lon - _FIRST_LON) % 360 + _FIRST_LON
        outlines[rows.index] = shapely.polygons(np.stack([lon, lat], axis=-1))
    return outlines


def _corners(affine: Affine, margin: float) -> list[tuple[float, float]]:
    low, high = -margin, PATCH + margin
    ring = ((low, low), (high, low), (high, high), (low, high), (low, low))
    return [affine @ corner for corner in ring]


def pixel_metres(index: pd.DataFrame) -> NDArray[np.float64]:
    """Return the (N,) edges of pixels on the ground in metres, NaN without georeference.

    Pixels that are not square count as square ones of the same area.

    Args:
        index: `crs` and `transform`, a row a patch.
    """
    outlines = footprints(index)
    placed = shapely.is_geometry(outlines)
    metres = np.full(len(index), np.nan)
    metres[placed] = _sides(outlines[placed]) / PATCH
    return metres


def _sides(outlines: Footprints) -> NDArray[np.float64]:
    """Return the (N,) edges of outlines in metres, as if they were squares."""
    lat = shapely.get_coordinates(shapely.centroid(outlines))[:, 1]
    sides: NDArray[np.float64] = (
        np.sqrt(shapely.area(outlines) * np.cos(np.radians(lat))) * _METRES_A_DEGREE
    )
    return sides


def positions(index: pd.DataFrame) -> NDArray[np.int64]:
    """Return the (N, 2) rows and columns of patches on a grid over the ground, as wide as a patch.

    Args:
        index: `crs` and `transform`, a row a patch; all have both.
    """
    outlines = footprints(index)
    centres = shapely.get_coordinates(shapely.centroid(outlines))
    lon, lat = centres.T
    metres = np.column_stack([-lat, lon * np.cos(np.radians(lat.mean()))]) * _METRES_A_DEGREE
    steps = (metres - metres.min(axis=0)) / np.median(_sides(outlines))
    places: NDArray[np.int64] = np.floor(steps).astype(np.int64)
    return places


def overlaps(left: Footprints, right: Footprints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of patches that cover the same ground, as pairs of `left` and `right`.

    Patches that only touch at a border cover none in common.
    """
    has_left, has_right = (np.flatnonzero(shapely.is_geometry(item)) for item in (left, right))
    tree = shapely.STRtree(right[has_right])
    one, other = tree.query(left[has_left], predicate="intersects")
    one, other = has_left[one], has_right[other]
    common = shapely.area(shapely.intersection(left[one], right[other]))
    smaller = np.minimum(shapely.area(left[one]), shapely.area(right[other]))
    same = common > _MIN_OVERLAP * smaller
    return one[same], other[same]
