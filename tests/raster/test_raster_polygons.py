from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from tiny import UTM

from sarflood.errors import InputError
from sarflood.raster.areas import area_km2
from sarflood.raster.polygons import flood_polygons

CRS_51N = CRS.from_epsg(32651)
SCALE = 0.9996  # of UTM at its central meridian: lengths on the map over lengths on the ellipsoid


def square_with_hole() -> NDArray[np.uint8]:
    """10 km × 10 km, with a hole of 1 km × 1 km."""
    mask = np.zeros((1100, 1100), np.uint8)
    mask[50:1050, 50:1050] = 1
    mask[500:600, 500:600] = 0
    return mask


def ones(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ones(mask.shape, np.float32)


def test_area_of_a_known_square_is_right_to_a_thousandth() -> None:
    mask, expected = square_with_hole(), 99.0 / SCALE**2
    (feature,) = flood_polygons(mask, ones(mask), CRS_51N, UTM)["features"]
    assert feature["properties"]["area_km2"] == pytest.approx(expected, rel=1e-3)
    assert area_km2(mask == 1, CRS_51N, UTM) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("latitude", [0.0, 45.0, 60.0, -80.0])
def test_area_in_degrees_shrinks_with_latitude_as_on_the_ellipsoid(latitude: float) -> None:
    mask = np.ones((130, 70), np.uint8)
    transform = Affine(0.001, 0.0, 10.0, 0.0, -0.001, latitude + 0.065)
    polygons = flood_polygons(mask, ones(mask), CRS.from_epsg(4326), transform)
    metres = 111_132.954 - 559.822 * np.cos(np.radians(2 * latitude))
    across = 111_412.84 * np.cos(np.radians(latitude)) - 93.5 * np.cos(np.radians(3 * latitude))
    expected = 0.130 * metres * 0.070 * across / 1e6
    assert area_km2(mask == 1, CRS.from_epsg(4326), transform) == pytest.approx(expected, rel=1e-3)
    (feature,) = polygons["features"]
    assert feature["properties"]["area_km2"] == pytest.approx(expected, rel=1e-3)


def test_areas_of_all_polygons_add_up_to_the_area_of_the_pixels() -> None:
    mask = (np.random.default_rng(3).random((300, 200)) > 0.6).astype(np.uint8)
    polygons = flood_polygons(mask, ones(mask), CRS_51N, UTM)["features"]
    total = sum(feature["properties"]["area_km2"] for feature in polygons)
    assert total == pytest.approx(area_km2(mask == 1, CRS_51N, UTM), rel=1e-3)


def test_geojson_has_right_hand_rings_with_the_hole_in_degrees() -> None:
    mask = square_with_hole()
    (feature,) = flood_polygons(mask, ones(mask), CRS_51N, UTM)["features"]
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
    probability = np.full(mask.shape, np.nan, np.float32)
    probability[1:3, 1:3] = [[0.6, 0.7], [0.8, 0.9]]
    probability[3, 3] = 0.55
    probability[10:20, 10:20] = 0.95
    features = flood_polygons(mask, probability, CRS_51N, UTM)["features"]
    means = [feature["properties"]["mean_probability"] for feature in features]
    assert means == pytest.approx([0.95, 0.75, 0.55], abs=1e-4)


def test_a_polygon_across_the_antimeridian_is_cut_in_two() -> None:
    mask = np.ones((100, 2000), np.uint8)
    fiji = Affine(10.0, 0.0, 810_000.0, 0.0, -10.0, 8_000_000.0)
    crs = CRS.from_epsg(32760)
    (feature,) = flood_polygons(mask, ones(mask), crs, fiji)["features"]
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
    (feature,) = flood_polygons(mask, ones(mask), crs, grid)["features"]
    geometry = shapely.geometry.shape(feature["geometry"])
    assert (geometry.bounds[0], geometry.bounds[2]) == (-180.0, 180.0) or west == -181.0
    assert geometry.bounds[0] >= -180.0
    assert geometry.bounds[2] <= 180.0
    assert geometry.area == pytest.approx(0.03)
    assert feature["properties"]["area_km2"] == pytest.approx(area_km2(mask == 1, crs, grid), 1e-3)


def test_no_more_areas_are_outlined_than_asked_for() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[::2, ::2] = 1
    assert len(flood_polygons(mask, ones(mask), CRS_51N, UTM, at_most=25)["features"]) == 25
    with pytest.raises(InputError, match="25 wet areas, at most 24"):
        flood_polygons(mask, ones(mask), CRS_51N, UTM, at_most=24)


def test_means_of_areas_over_many_rows_are_of_all_their_pixels() -> None:
    mask = np.zeros((3000, 3), np.uint8)
    mask[:, 0] = mask[2000:, 2] = 1
    probability = np.linspace(0, 1, 3000, dtype=np.float32)[:, None].repeat(3, axis=1)
    features = flood_polygons(mask, probability, CRS_51N, UTM)["features"]
    means = [feature["properties"]["mean_probability"] for feature in features]
    assert means == pytest.approx([0.5, 2499.5 / 2999], abs=1e-4)


def test_nothing_wet_is_an_empty_collection() -> None:
    mask = np.full((5, 5), 255, np.uint8)
    polygons = flood_polygons(mask, ones(mask), CRS_51N, UTM)
    assert polygons == {"type": "FeatureCollection", "features": []}
    assert area_km2(mask == 1, CRS_51N, UTM) == 0.0


def test_threads_may_outline_at_the_same_time() -> None:
    mask = square_with_hole()
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(flood_polygons, mask, ones(mask), CRS_51N, UTM) for _ in range(8)]
        answers = [run.result(60) for run in runs]
    assert all(answer == answers[0] for answer in answers)
