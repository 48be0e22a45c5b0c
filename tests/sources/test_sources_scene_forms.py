"""The forms in which scenes and their masks come."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject, transform_geom

from sarflood.sources.reader import BadSourceError, RawPatch
from sarflood.sources.readers import recognise

WriteRaster = Callable[..., Path]
ReadAll = Callable[[Path], list[RawPatch]]
UTM = Affine(10, 0, 300_000, 0, -10, 1_800_000)
SHAPE = (300, 520)
# A lake with an island, and one that leaves the scene, in metres.
LAKES = [
    shapely.Polygon(
        [(300_500, 1_799_500), (302_500, 1_799_500), (302_500, 1_798_000), (300_500, 1_798_000)],
        [[(301_002, 1_799_000), (301_503, 1_799_000), (301_503, 1_798_491)]],
    ),
    shapely.Point(305_200, 1_797_000).buffer(900),
]


def image(rng: np.random.Generator) -> np.ndarray:
    values: np.ndarray = rng.normal(-12, 2, (2, *SHAPE)).astype(np.float32)
    return values


def geojson(path: Path, crs: str = "EPSG:4326", outlines: list[shapely.Geometry] = LAKES) -> None:
    features = [
        {
            "type": "Feature",
            "properties": {},
            "geometry": transform_geom("EPSG:32651", crs, shapely.geometry.mapping(outline)),
        }
        for outline in outlines
    ]
    name = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs[5:]}"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": name, "features": features}))


def lakes_mask() -> np.ndarray:
    """What the polygons cover, pixel centre by pixel centre."""
    rows, cols = np.indices(SHAPE)
    x, y = 300_005 + 10.0 * cols, 1_799_995 - 10.0 * rows
    inside: np.ndarray = shapely.contains_xy(shapely.union_all(LAKES), x, y)
    return inside.astype(np.uint8)


def whole(patches: list[RawPatch]) -> np.ndarray:
    mask = np.full((512, 768), 255, np.uint8)
    for patch in patches:
        assert patch.mask is not None
        top, left = 256 * patch.row, 256 * patch.col
        mask[top : top + 256, left : left + 256] = patch.mask
    return mask[: SHAPE[0], : SHAPE[1]]


def test_a_file_for_each_polarisation_reads_as_one_file_does(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    after, before = image(rng), image(rng)
    for role, values in (("scene", after), ("pre", before)):
        write_raster(tmp_path / "one" / f"{role}.tif", values, ("VV", "VH"))
        for number, band in enumerate(("vv", "vh")):
            write_raster(tmp_path / "two" / f"{role}_{band}.tif", values[number])
    one, two = read_all(tmp_path / "one"), read_all(tmp_path / "two")
    assert len(one) == len(two) == 6
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left.image, right.image)
    assert [(patch.height, patch.width) for patch in two][-1] == (44, 8)


def test_half_a_pair_and_both_forms_at_once_are_refused(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    write_raster(tmp_path / "half" / "scene_vv.tif", image(rng)[0])
    write_raster(tmp_path / "both" / "scene.tif", image(rng))
    write_raster(tmp_path / "both" / "scene_vv.tif", image(rng)[0])
    for name in ("half", "both"):
        reader = recognise(tmp_path / name)
        [item] = reader.items(tmp_path / name)
        with pytest.raises(BadSourceError, match=r"scene\.tif or scene_vv\.tif with scene_vh\.tif"):
            list(reader.read(item))


def test_a_folder_of_scenes_is_one_source(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    for frame in ("north", "south"):
        write_raster(tmp_path / frame / "scene.tif", image(rng))
        write_raster(tmp_path / frame / "mask.tif", lakes_mask())
    assert {patch.grid for patch in read_all(tmp_path)} == {"north", "south"}
    (tmp_path / "south" / "mask.tif").unlink()
    reader = recognise(tmp_path)
    north, south = reader.items(tmp_path)
    assert len(list(reader.read(north))) == 6
    with pytest.raises(BadSourceError, match=r"south: nothing where mask\.tif or mask\.geojson"):
        list(reader.read(south))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32651", "EPSG:32650"])
def test_polygons_become_the_mask(
    crs: str,
    tmp_path: Path,
    write_raster: WriteRaster,
    read_all: ReadAll,
    rng: np.random.Generator,
) -> None:
    write_raster(tmp_path / "scene.tif", image(rng))
    geojson(tmp_path / "mask.geojson", crs)
    found = whole(read_all(tmp_path))
    assert recognise(tmp_path).facts(tmp_path).label == "water"
    assert (found != lakes_mask()).mean() < 2e-4, "but for pixels on an outline"
    assert found.sum() > 10_000


def test_a_geopackage_is_read_too(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    write_raster(tmp_path / "scene.tif", image(rng))
    pyogrio.raw.write(
        tmp_path / "mask.gpkg",
        geometry=shapely.to_wkb(np.array(LAKES)),
        field_data=[],
        fields=[],
        geometry_type="Polygon",
        crs="EPSG:32651",
        driver="GPKG",
    )
    np.testing.assert_array_equal(whole(read_all(tmp_path)), lakes_mask())


def test_points_are_no_mask(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    write_raster(tmp_path / "scene.tif", image(rng))
    geojson(tmp_path / "mask.geojson", outlines=[shapely.Point(301_000, 1_799_000)])
    reader = recognise(tmp_path)
    with pytest.raises(BadSourceError, match="polygons or multipolygons are needed"):
        list(reader.read(next(reader.items(tmp_path))))


def test_other_grids_are_warped_onto_the_scene_where_that_is_wanted(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    """A smooth pre-event image and a mask on a coarser, shifted grid in another CRS."""
    rows, cols = np.indices(SHAPE)
    smooth = np.stack([-12 + rows / 100, -18 + cols / 100]).astype(np.float32)
    write_raster(tmp_path / "scene.tif", smooth)
    there = Affine(0.0001, 0, 121.09, 0, -0.0001, 16.29)
    other = np.full((2, 600, 900), np.nan, np.float32)
    mask = np.full((600, 900), 255, np.uint8)
    geography = {"dst_transform": there, "dst_crs": CRS.from_epsg(4326)}
    grid = {"src_transform": UTM, "src_crs": CRS.from_epsg(32651), **geography}
    reproject(smooth, other, resampling=Resampling.bilinear, dst_nodata=np.nan, **grid)
    reproject(lakes_mask(), mask, resampling=Resampling.nearest, init_dest_nodata=False, **grid)
    write_raster(tmp_path / "pre.tif", other, transform=there, crs="EPSG:4326", nodata=np.nan)
    write_raster(tmp_path / "mask.tif", mask, transform=there, crs="EPSG:4326", nodata=255)
    reader = recognise(tmp_path)
    [item] = reader.items(tmp_path)
    with pytest.raises(BadSourceError, match=r"pre\.tif: not on the grid .*--reproject"):
        list(reader.read(item))
    patches = list(reader.read(replace(item, reproject=True)))
    inner = patches[0].image[:, 20:, 20:]
    assert np.nanmax(np.abs(inner[2:] - inner[:2])) < 0.02
    assert np.isfinite(inner).mean() > 0.99
    found, known = whole(patches), whole(patches) != 255
    assert known.mean() > 0.98
    assert (found != lakes_mask())[known].mean() < 0.01


def test_what_lies_beside_a_warped_mask_is_unknown(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    write_raster(tmp_path / "scene.tif", image(rng))
    write_raster(tmp_path / "mask.tif", lakes_mask()[:100], transform=UTM)
    reader = recognise(tmp_path)
    [item] = reader.items(tmp_path)
    found = whole(list(reader.read(replace(item, reproject=True))))
    np.testing.assert_array_equal(found[:100], lakes_mask()[:100])
    assert (found[100:] == 255).all()


def test_a_manifest_is_no_stray(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    write_raster(tmp_path / "scene.tif", image(rng))
    (tmp_path / "event.yaml").write_text("name: Ulysses\n")
    assert len(read_all(tmp_path)) == 6
