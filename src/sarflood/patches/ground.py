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

_MIN_OVERLAP = 0.02  # of the smaller patch: less is the rounding of a border

Footprints = NDArray[np.object_]


def footprints(index: pd.DataFrame) -> Footprints:
    """Return the (N,) outlines of patches in longitude and latitude; None without georeference.

    Args:
        index: `crs` and `transform`, a row a patch.
    """
    outlines = np.full(len(index), None, dtype=object)
    for crs, rows in index.reset_index(drop=True).groupby("crs"):
        affines = [Affine(*json.loads(text)) for text in rows["transform"]]
        corners = np.array([_corners(affine) for affine in affines])  # (n, 5, 2)
        to_globe = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
        lon, lat = to_globe.transform(corners[..., 0], corners[..., 1])
        outlines[rows.index] = shapely.polygons(np.stack([lon, lat], axis=-1))
    return outlines


def _corners(affine: Affine) -> list[tuple[float, float]]:
    ring = ((0, 0), (PATCH, 0), (PATCH, PATCH), (0, PATCH), (0, 0))
    return [affine @ corner for corner in ring]


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
