from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter
from tiny import UTM

from sarflood.errors import InputError
from sarflood.raster.areas import PixelAreas
from sarflood.raster.grid import Grid
from sarflood.raster.outline import WetArea, wet_areas
from sarflood.raster.polygons import flood_polygons, writing_geojson

CRS_51N = CRS.from_epsg(32651)
SCALE = 0.9996  # of UTM at its central meridian: lengths on the map over lengths on the ellipsoid


def square_with_hole() -> NDArray[np.uint8]:
    """10 km × 10 km, with a hole of 1 km × 1 km."""
    mask = np.zeros((1100, 1100), np.uint8)
    mask[50:1050, 50:1050] = 1
    mask[500:600, 500:600] = 0
    return mask


def outlined(
    mask: NDArray[np.uint8],
    crs: CRS,
    transform: Affine,
    percent: NDArray[np.uint8] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """The features of a mask, the largest first."""
    areas = wet_areas([(0, mask, np.full_like(mask, 100) if percent is None else percent)])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "flood.geojson"
        with writing_geojson(path) as add:
            for polygons in flood_polygons(
                areas, Grid(mask.shape[0], mask.shape[1], crs, transform), **options
            ):
                add(polygons)
        features: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["features"]
    return sorted(features, key=lambda feature: -feature["properties"]["area_km2"])


def area_km2(selected: NDArray[np.bool_], crs: CRS, transform: Affine) -> float:
    return PixelAreas.of(Grid(selected.shape[0], selected.shape[1], crs, transform)).sum(selected)


def test_area_of_a_known_square_is_right_to_a_thousandth() -> None:
    mask, expected = square_with_hole(), 99.0 / SCALE**2
    (feature,) = outlined(mask, CRS_51N, UTM)
    assert feature["properties"]["area_km2"] == pytest.approx(expected, rel=1e-3)
    assert area_km2(mask == 1, CRS_51N, UTM) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("latitude", [0.0, 45.0, 60.0, -80.0])
def test_area_in_degrees_shrinks_with_latitude_as_on_the_ellipsoid(latitude: float) -> None:
    mask = np.ones((130, 70), np.uint8)
    transform = Affine(0.001, 0.0, 10.0, 0.0, -0.001, latitude + 0.065)
    metres = 111_132.954 - 559.822 * np.cos(np.radians(2 * latitude))
    across = 111_412.84 * np.cos(np.radians(latitude)) - 93.5 * np.cos(np.radians(3 * latitude))
    expected = 0.130 * metres * 0.070 * across / 1e6
    assert area_km2(mask == 1, CRS.from_epsg(4326), transform) == pytest.approx(expected, rel=1e-3)
    (feature,) = outlined(mask, CRS.from_epsg(4326), transform)
    assert feature["properties"]["area_km2"] == pytest.approx(expected, rel=1e-3)


def test_areas_of_all_polygons_add_up_to_the_area_of_the_pixels() -> None:
    mask = (np.random.default_rng(3).random((300, 200)) > 0.6).astype(np.uint8)
    polygons = outlined(mask, CRS_51N, UTM)
    total = sum(feature["properties"]["area_km2"] for feature in polygons)
    assert total == pytest.approx(area_km2(mask == 1, CRS_51N, UTM), rel=1e-3)


def test_geojson_has_right_hand_rings_with_the_hole_in_degrees() -> None:
    mask = square_with_hole()
    (feature,) = outlined(mask, CRS_51N, UTM)
    outer, hole = feature["geometry"]["coordinates"]
    assert shapely.is_ccw(shapely.LinearRing(outer))
    assert not shapely.is_ccw(shapely.LinearRing(hole))
    lon, lat = np.array(outer).T
    assert (lon.min(), lat.max()) == pytest.approx((123.0, 13.57), abs=0.02)


def test_each_polygon_has_the_mean_probability_of_its_own_pixels_largest_first() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[1:3, 1:3] = mask[3, 3] = 1  # joined by a corner only: two areas
    mask[10:20, 10:20] = 1
    mask[0, 19] = 255
    percent = np.full(mask.shape, 255, np.uint8)
    percent[1:3, 1:3] = [[60, 70], [80, 90]]
    percent[3, 3] = 55
    percent[10:20, 10:20] = 95
    features = outlined(mask, CRS_51N, UTM, percent)
    means = [feature["properties"]["mean_probability"] for feature in features]
    assert means == pytest.approx([0.95, 0.75, 0.55], abs=1e-4)


def test_a_polygon_across_the_antimeridian_is_cut_in_two() -> None:
    mask = np.ones((100, 2000), np.uint8)
    fiji = Affine(10.0, 0.0, 810_000.0, 0.0, -10.0, 8_000_000.0)
    crs = CRS.from_epsg(32760)
    (feature,) = outlined(mask, crs, fiji)
    geometry = shapely.geometry.shape(feature["geometry"])
    assert geometry.geom_type == "MultiPolygon"
    assert sorted(part.bounds[0] > 0 for part in geometry.geoms) == [False, True]
    assert all(part.bounds[2] - part.bounds[0] < 1 for part in geometry.geoms)
    assert feature["properties"]["area_km2"] == pytest.approx(area_km2(mask == 1, crs, fiji), 1e-3)


@pytest.mark.parametrize("west", [-181.0, -180.5, 179.5])
def test_degrees_beyond_the_antimeridian_are_cut_there_on_either_side(west: float) -> None:
    mask = np.zeros((10, 100), np.uint8)
    mask[2:5, :] = 1
    grid, crs = Affine(0.01, 0.0, west, 0.0, -0.01, -16.0), CRS.from_epsg(4326)
    (feature,) = outlined(mask, crs, grid)
    geometry = shapely.geometry.shape(feature["geometry"])
    assert (geometry.bounds[0], geometry.bounds[2]) == (-180.0, 180.0) or west == -181.0
    assert geometry.bounds[0] >= -180.0
    assert geometry.bounds[2] <= 180.0
    assert geometry.area == pytest.approx(0.03)
    assert feature["properties"]["area_km2"] == pytest.approx(area_km2(mask == 1, crs, grid), 1e-3)


def test_an_area_that_crosses_itself_on_the_globe_is_refused() -> None:
    """Found by fuzzing: pixels a million kilometres tall go round the Earth again and again."""
    mask = np.random.default_rng(0).random((128, 128)) < 0.7
    grid = Affine(10, 0, 500_000, 0, -1e9, 1_500_000)
    with pytest.raises(InputError, match="a wet area crosses itself in longitude and latitude"):
        outlined(mask.astype(np.uint8), CRS_51N, grid)


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("smooth", [0.0, 1.0, 4.0])
def test_strips_give_the_areas_of_the_whole_mask(rows: int, smooth: float) -> None:
    generator = np.random.default_rng(0)
    values = gaussian_filter(generator.random((250, 190)), smooth) if smooth else None
    noise = generator.random((250, 190)) if values is None else values
    mask = (noise > np.quantile(noise, 0.5)).astype(np.uint8)
    percent = generator.integers(50, 101, mask.shape).astype(np.uint8)

    def areas(rows: int) -> list[WetArea]:
        parts = (
            (top, mask[top : top + rows], percent[top : top + rows]) for top in range(0, 250, rows)
        )
        return sorted(wet_areas(parts), key=lambda area: (area.outline.bounds, area.pixels))

    whole, pieced = areas(250), areas(rows)
    assert len(whole) == len(pieced) > 10
    for one, other in zip(whole, pieced, strict=True):
        assert (one.pixels, one.mean_percent) == (other.pixels, other.mean_percent)
        assert one.outline.equals(other.outline)
        corners = shapely.get_num_coordinates([one.outline, other.outline])
        assert corners[0] == corners[1], "a seam is left"


def test_an_area_comes_as_soon_as_its_last_row_has_come() -> None:
    mask = np.zeros((30, 5), np.uint8)
    mask[2:4, 1] = mask[8:12, 3] = 1
    seen = []

    def strips() -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
        for top in (0, 10, 20):
            seen.append(top)
            yield top, mask[top : top + 10], mask[top : top + 10]

    assert [(area.pixels, seen[-1]) for area in wet_areas(strips())] == [(2, 0), (4, 10)]


def test_nothing_wet_is_an_empty_collection() -> None:
    mask = np.full((5, 5), 255, np.uint8)
    assert outlined(mask, CRS_51N, UTM) == []
    assert area_km2(mask == 1, CRS_51N, UTM) == 0.0


def test_threads_may_outline_at_the_same_time() -> None:
    mask = square_with_hole()
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(outlined, mask, CRS_51N, UTM) for _ in range(8)]
        answers = [run.result(60) for run in runs]
    assert all(answer == answers[0] for answer in answers)
