"""The polygons of a map, written as GeoJSON and as GeoPackage in one go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sarflood.mapping.geopackage import GeoPackage
from sarflood.mapping.qgis import vector_styles
from sarflood.mapping.wanted import Wanted
from sarflood.mapping.zones import ZoneFigures
from sarflood.raster.grid import Grid
from sarflood.raster.outline import WetArea
from sarflood.raster.polygons import Slivers, flood_polygons, writing_geojson
from sarflood.raster.vector import polygons_of


def write_vectors(
    areas: Iterable[WetArea],
    grid: Grid,
    geojson: Path,
    geopackage: Path,
    wanted: Wanted,
    zones: Sequence[ZoneFigures] = (),
) -> dict[str, Any]:
    """Write wet areas as they come; memory is for some thousand of them.

    Args:
        areas: Outlines in pixels.
        grid: That of the scene.
        geojson: Gets them in longitude and latitude.
        geopackage: Gets them in the scene's CRS as layer `flood`, and the zones as layer `zones`.
        wanted: How small they may be, and how much simplified.
        zones: With their figures.

    Returns:
        `polygons`, how many were written, and `slivers`, how many were not and their area.

    Raises:
        SarfloodError: A file cannot be written.
    """
    slivers, count, package = Slivers(), 0, GeoPackage(geopackage, grid.crs)
    none = np.empty(0)
    package.add(
        "flood", "Polygon", none.astype(object), {"area_km2": none, "mean_probability": none}
    )
    with writing_geojson(geojson) as add:
        for polygons in flood_polygons(
            areas,
            grid,
            min_area_m2=wanted.min_area_m2,
            simplify_m=wanted.simplify_m,
            slivers=slivers,
        ):
            add(polygons)
            figures = {
                "area_km2": polygons.area_km2.round(6),
                "mean_probability": polygons.mean_probability.round(4),
            }
            package.add("flood", "Polygon", polygons.outlines, figures)
            count += len(polygons)
    if zones:
        outlines = np.array([polygons_of(zone.outline) for zone in zones], dtype=object)
        rows = [zone.as_json() for zone in zones]
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        package.add("zones", "MultiPolygon", outlines, columns)
    package.close(vector_styles())
    return {"polygons": count, "slivers": {"count": slivers.count, "km2": round(slivers.km2, 6)}}
