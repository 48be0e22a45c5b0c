"""Wet areas as polygons with their areas: on the scene's grid, and in longitude and latitude."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box

from sarflood.errors import InputError
from sarflood.files import replacing
from sarflood.raster.areas import pixel_size_m, to_equal_area
from sarflood.raster.grid import Grid, to_lon_lat
from sarflood.raster.outline import WetArea

_DEGREE_DIGITS = 7  # about 1 cm
_AT_ONCE = 5000
Geometries = NDArray[np.object_]


@dataclass
class FloodPolygons:
    """Some wet areas.

    Attributes:
        outlines: (N,) polygons in the coordinates of the scene, holes kept.
        on_globe: (N,) the same in longitude and latitude, as GeoJSON wants them (RFC 7946:
            right-hand rule, cut at the antimeridian).
        area_km2: (N,) on the WGS 84 ellipsoid, of the pixels: simplified or not.
        mean_probability: (N,) of their pixels.
    """

    outlines: Geometries
    on_globe: Geometries
    area_km2: NDArray[np.float64]
    mean_probability: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.outlines)


@dataclass
class Slivers:
    """Wet areas that are too small for a polygon.

    Attributes:
        count: How many.
        km2: Their area.
    """

    count: int = 0
    km2: float = 0.0


def flood_polygons(
    areas: Iterable[WetArea],
    grid: Grid,
    *,
    min_area_m2: float = 0.0,
    simplify_m: float = 0.0,
    slivers: Slivers | None = None,
) -> Iterator[FloodPolygons]:
    """Turn wet areas into polygons, some at a time.

    Args:
        areas: Outlines in pixels.
        grid: That of the scene.
        min_area_m2: Smaller areas are dropped.
        simplify_m: About how far a simplified outline may lie from the pixels' edges (Douglas and
            Peucker 1973, with rings kept apart); 0 follows the edges. Each polygon is simplified
            for itself: two that meet at a corner may overlap by as much.
        slivers: Counts what is dropped.

    Raises:
        InputError: A corner has no longitude and latitude, or an area goes round a pole.
    """
    transformer = to_lon_lat(grid.crs)
    flat = to_equal_area(grid)
    size_m = np.array(pixel_size_m(grid))
    remaining = iter(areas)
    while some := list(islice(remaining, _AT_ONCE)):
        pixels = np.array([area.outline for area in some], dtype=object)
        percent = np.array([area.mean_percent for area in some])
        outlines = _moved(pixels, grid.crs_coordinates)
        on_globe = _moved(outlines, transformer.transform)
        km2 = shapely.area(_moved(on_globe, flat.transform)) / 1e6
        if not np.isfinite(km2).all():
            raise InputError(
                "the map: its grid has places that do not lie on the Earth; cut them off"
            )
        large = km2 * 1e6 >= min_area_m2
        if slivers:
            slivers.count += int(np.count_nonzero(~large))
            slivers.km2 += float(km2[~large].sum())
        if simplify_m:
            pixels = _simplified(pixels[large], size_m, simplify_m)
            outlines = _moved(pixels, grid.crs_coordinates)
            on_globe = _moved(outlines, transformer.transform)
        else:
            outlines, on_globe = outlines[large], on_globe[large]
        if large.any():
            yield FloodPolygons(outlines, _as_geojson(on_globe), km2[large], percent[large] / 100)


@contextmanager
def writing_geojson(path: Path) -> Iterator[Callable[[FloodPolygons], object]]:
    """Give what adds polygons to a FeatureCollection, which is written whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        before = "\n"

        def add(polygons: FloodPolygons) -> None:
            nonlocal before
            rows = zip(
                shapely.to_geojson(polygons.on_globe),
                polygons.area_km2.round(6).tolist(),
                polygons.mean_probability.round(4).tolist(),
                strict=True,
            )
            for geometry, km2, mean in rows:
                file.write(
                    f'{before}{{"type": "Feature", "geometry": {geometry}, "properties": '
                    f'{{"area_km2": {km2}, "mean_probability": {mean}}}}}'
                )
                before = ",\n"

        yield add
        file.write("\n]}\n")


def _moved(geometries: Geometries, move: Callable[..., Any]) -> Geometries:
    moved: Geometries = shapely.transform(geometries, move, interleaved=False)
    return moved


def _simplified(pixels: Geometries, size_m: NDArray[np.float64], tolerance_m: float) -> Geometries:
    """Simplify outlines in pixels by a tolerance in metres; what stays are corners of pixels."""
    metres = shapely.transform(pixels, lambda corners: corners * size_m)
    fewer = shapely.simplify(metres, tolerance_m, preserve_topology=True)
    back = shapely.transform(fewer, lambda corners: np.rint(corners / size_m))
    # A hole may end up across the outline, seldom.
    return np.where(shapely.is_valid(back), back, pixels)


def _as_geojson(on_globe: Geometries) -> Geometries:
    west, _, east, _ = shapely.bounds(on_globe).T
    beyond = (west < -180) | (east > 180) | (east - west > 180)
    result = shapely.orient_polygons(on_globe)
    for position in np.flatnonzero(beyond):
        try:
            result[position] = _cut_at_antimeridian(_unwrapped(on_globe[position]))
        except shapely.errors.GEOSException as error:
            raise InputError(
                "the map: a wet area crosses itself in longitude and latitude, as one that goes "
                "round a pole does; cut that off, or ask for image/tiff"
            ) from error
    rounded: Geometries = shapely.transform(result, lambda degrees: degrees.round(_DEGREE_DIGITS))
    return rounded


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
        return shapely.orient_polygons(outline)
    sides = (
        outline.intersection(box(west, south, 180, north)),
        translate(outline.intersection(box(180, south, east, north)), xoff=-360),
    )
    parts = [part for part in shapely.get_parts(sides) if isinstance(part, Polygon)]
    return MultiPolygon([shapely.orient_polygons(part) for part in parts])
