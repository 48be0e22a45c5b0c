"""Permanent water, which is no flood, taken out of a map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling

from sarflood.mapping.aligned import aligned
from sarflood.mapping.layers import Layer
from sarflood.mapping.scene import SceneMap
from sarflood.raster.areas import PixelAreas
from sarflood.raster.patch import DRY, UNKNOWN, WET


def without_permanent_water(result: SceneMap, water: Path, layer: Path) -> tuple[SceneMap, float]:
    """Let what is always water be dry in a map.

    Args:
        result: The map.
        water: A raster on any grid that is 1 where there is always water; the nearest of its pixels
            counts.
        layer: Where the mask without it goes.

    Returns:
        The map without it, and the area in km² of the permanent water among the pixels with data.

    Raises:
        InputError: The raster cannot be read, or lies elsewhere.
    """
    areas = PixelAreas.of(result.grid)
    mask = Layer(layer, result.mask.shape, np.uint8)
    wet, flooded_km2, permanent_km2 = 0, 0.0, 0.0
    with aligned(water, result.grid, Resampling.nearest) as rows_of:
        for top, rows in result.mask.strips():
            permanent = (rows_of(top, top + len(rows)) == 1) & (rows != UNKNOWN)
            rows[permanent] = DRY
            mask.write(top, rows)
            is_wet = rows == WET
            wet += int(np.count_nonzero(is_wet))
            flooded_km2 += areas.sum(is_wet, top)
            permanent_km2 += areas.sum(permanent, top)
    return replace(result, mask=mask, wet=wet, flooded_km2=flooded_km2), permanent_km2
