"""What a flood map is written as: COGs, polygons, figures; service and command line alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarflood.mapping.layers import Layer
from sarflood.mapping.scene import SceneMap
from sarflood.raster.cog import write_cog
from sarflood.raster.outline import WetArea, count_areas, wet_areas
from sarflood.raster.polygons import flood_polygons, writing_geojson


def write_mask(result: SceneMap, path: Path) -> None:
    """Write the mask as a cloud-optimised GeoTIFF: 0 dry, 1 wet, 255 no data."""
    _write_layer(result, result.mask, path, f"{result.manifest.label}: 0 dry, 1 wet, 255 no data")


def write_probability(result: SceneMap, path: Path) -> None:
    """Write the probability as a cloud-optimised GeoTIFF, in percent, 255 no data."""
    said = f"probability of {result.manifest.label} in percent"
    _write_layer(result, result.percent, path, said)


def _write_layer(result: SceneMap, layer: Layer, path: Path, said: str) -> None:
    write_cog(
        path,
        layer.strips(),
        layer.shape,
        crs=result.crs,
        transform=result.transform,
        description=said,
    )


def write_polygons(result: SceneMap, path: Path, *, at_most: int | None = None) -> int:
    """Write the wet areas as GeoJSON; return how many there are.

    Raises:
        InputError: There are more than `at_most`.
    """
    count = 0
    with writing_geojson(path) as add:
        for polygons in flood_polygons(areas_of(result, at_most), result.grid):
            count += len(polygons)
            add(polygons)
    return count


def count_polygons(result: SceneMap) -> int:
    """Return how many wet areas `write_polygons` would write."""
    return count_areas(mask for _, mask in result.mask.strips())


def areas_of(result: SceneMap, at_most: int | None = None) -> Iterator[WetArea]:
    """Outline the wet areas of a map.

    Raises:
        InputError: There are more than `at_most`.
    """
    return wet_areas(_both(result), at_most)


def _both(result: SceneMap) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    for (top, mask), (_, percent) in zip(
        result.mask.strips(), result.percent.strips(), strict=True
    ):
        yield top, mask, percent


def summarise(result: SceneMap, version: str) -> dict[str, Any]:
    """Return the map's figures as plain JSON."""
    height, width = result.mask.shape
    return {
        "version": version,
        "label": result.manifest.label,
        "flooded_km2": round(result.flooded_km2, 6),
        "flooded_share": round(result.flooded_share, 6),
        "valid_km2": round(result.valid_km2, 6),
        "valid_share": round(result.valid_share, 6),
        "threshold": result.manifest.threshold,
        "engine": result.engine,
        "width": width,
        "height": height,
        "crs": result.crs.to_string(),
        "seconds": result.seconds,
    }
