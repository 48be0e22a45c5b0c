from __future__ import annotations

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, box

from sarflood.raster.merge import merged
from sarflood.raster.outline import WetArea, wet_areas


def outlined(mask: NDArray[np.uint8], step: int) -> list[WetArea]:
    percent = np.full(mask.shape, 50, np.uint8)
    strips = (
        (top, mask[top : top + step], percent[top : top + step])
        for top in range(0, len(mask), step)
    )
    return list(wet_areas(strips))


def as_text(areas: list[WetArea]) -> list[tuple[str, int]]:
    return sorted((shapely.normalize(area.outline).wkt, area.pixels) for area in areas)


@pytest.mark.parametrize("seed", range(60))
def test_strips_give_the_outlines_of_the_mask_in_one_piece(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width, step = (int(generator.integers(1, most)) for most in (50, 40, 8))
    mask = (generator.random((height, width)) < generator.random()).astype(np.uint8)
    found = outlined(mask, step)
    assert as_text(found) == as_text(outlined(mask, height))
    assert all(area.outline.is_valid and area.outline.area == area.pixels for area in found)


def test_holes_that_touch_at_a_corner_on_a_seam_stay_two() -> None:
    mask = np.ones((6, 6), np.uint8)
    mask[2, 2] = mask[3, 3] = 0
    (area,) = outlined(mask, 3)
    assert area.outline.is_valid
    assert [Polygon(ring).area for ring in area.outline.interiors] == [1, 1]


def test_it_does_as_an_overlay_of_geos_does() -> None:
    upper, lower = box(0, 0, 8, 4), box(2, 4, 12, 8) - box(3, 5, 5, 6)
    (found,) = merged([[upper, lower]], [4])
    expected = shapely.simplify(shapely.union_all([upper, lower]), 0)
    assert shapely.normalize(found) == shapely.normalize(expected)
    assert len(found.exterior.coords) == 9
    assert merged([], [4]) == []
