"""Masks as GeoJSON polygons with their areas."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import shapes
from scipy.ndimage import label
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box, mapping, shape

from sarflood.errors import InputError
from sarflood.raster.areas import ELLIPSOID, to_lon_lat
from sarflood.raster.patch import WET

_DEGREE_DIGITS = 7  # about 1 cm
_ROWS = 1024  # are counted at a time, for counting takes many bytes a pixel
# The first concurrent calls of two threads can deadlock in GDAL 3.11 and newer.
_ONE_AT_A_TIME = threading.Lock()


def flood_polygons(
    mask: NDArray[np.uint8],
    probability: NDArray[np.float32],
    crs: CRS,
    transform: Affine,
    *,
    at_most: int | None = None,
) -> dict[str, Any]:
    """Outline the wet areas of a mask.

    A polygon is one 4-connected group of wet pixels; its outline follows the pixels' edges, and
    its holes are kept.

    Args:
        mask: (H, W) uint8; 1 is wet.
        probability: (H, W) float32 in [0, 1].
        crs: The coordinate reference system.
        transform: Pixel (column, row) to CRS coordinates.
        at_most: How many polygons there may be; without it there is no limit.

    Returns:
        A GeoJSON FeatureCollection in longitude and latitude (RFC 7946: right-hand rule, cut at
        the antimeridian), a feature a polygon with `area_km2` on the WGS 84 ellipsoid and
        `mean_probability`; the largest area first.

    Raises:
        InputError: There are more than `at_most`.
    """
    wet = mask == WET
    groups, count = label(wet)
    if at_most is not None and count > at_most:
        raise InputError(
            f"the map: {count} wet areas, at most {at_most} are outlined; ask for image/tiff"
        )
    means = _means(probability, groups, count)
    with _ONE_AT_A_TIME:
        found = [
            (shape(outline), int(group))
            for outline, group in shapes(groups.astype(np.int32, copy=False), wet, 4, transform)
        ]
    outlines = np.array([outline for outline, _ in found], dtype=object)
    transformer = to_lon_lat(crs)
    on_globe = shapely.transform(outlines, transformer.transform, interleaved=False)
    features = [
        _feature(outline, means[group]) for outline, (_, group) in zip(on_globe, found, strict=True)
    ]
    features.sort(key=lambda feature: -feature["properties"]["area_km2"])
    return {"type": "FeatureCollection", "features": features}


def _means(
    probability: NDArray[np.float32], groups: NDArray[np.int32], count: int
) -> NDArray[np.float64]:
    """Return the mean probability of each group, indexed by its number (0 is no group)."""
    pixels, sums = np.zeros((2, count + 1))
    for start in range(0, len(groups), _ROWS):
        rows = slice(start, start + _ROWS)
        inside = groups[rows] > 0
        numbers = groups[rows][inside]
        pixels += np.bincount(numbers, minlength=count + 1)
        sums += np.bincount(numbers, probability[rows][inside], count + 1)
    return np.asarray(sums / np.maximum(pixels, 1))


def _feature(outline: Polygon, mean_probability: float) -> dict[str, Any]:
    outline = shapely.orient_polygons(_unwrapped(outline))
    area_m2, _ = ELLIPSOID.geometry_area_perimeter(outline)
    geometry = shapely.transform(_cut_at_antimeridian(outline), _rounded)
    return {
        "type": "Feature",
        "geometry": mapping(geometry),
        "properties": {
            "area_km2": round(area_m2 / 1e6, 6),
            "mean_probability": round(float(mean_probability), 4),
        },
    }


def _rounded(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    return coordinates.round(_DEGREE_DIGITS)


def _unwrapped(outline: Polygon) -> Polygon:
    """Let longitudes run on beyond 180° where an outline jumps to −180° or runs on below it."""
    west, _, east, _ = outline.bounds
    if east - west <= 180:
        return translate(outline, xoff=360) if west < -180 else outline
    return shapely.transform(outline, lambda lon, lat: (lon % 360, lat), interleaved=False)


def _cut_at_antimeridian(outline: Polygon) -> Polygon | MultiPolygon:
    """Split an outline that runs on beyond 180° into a part on each side (RFC 7946, 3.1.9)."""
    west, south, east, north = outline.bounds
    if east <= 180:
        return outline
    sides = (
        outline.intersection(box(west, south, 180, north)),
        translate(outline.intersection(box(180, south, east, north)), xoff=-360),
    )
    parts = [part for part in shapely.get_parts(sides) if isinstance(part, Polygon)]
    return MultiPolygon([shapely.orient_polygons(part) for part in parts])
