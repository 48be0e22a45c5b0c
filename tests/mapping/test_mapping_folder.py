from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from tiny import UTM, full_disk, speckle, tiny_model, write_scene

from sarflood.errors import InputError, SarfloodError
from sarflood.mapping.folder import FILES, make_folder, write_map
from sarflood.mapping.layers import Layer
from sarflood.mapping.scene import SceneMap, map_scene
from sarflood.mapping.wanted import Terrain, Wanted

ORIGIN = {"scene": "scene.tif"}
HEIGHT, WIDTH = 1300, 200  # more than one strip
LEFT, TOP = UTM.c, UTM.f


@pytest.fixture
def result(tmp_path: Path) -> SceneMap:
    image = speckle(2, 300, 200)
    image[:, :30] = np.nan
    scene = write_scene(tmp_path / "scene.tif", image)
    return map_scene(tiny_model(), scene, folder=tmp_path / "work")


def drawn(
    folder: Path, mask: NDArray[np.uint8], outside: NDArray[np.uint8] | None = None
) -> SceneMap:
    """A map with a given mask, certain of all."""
    rasters = {"mask": mask, "percent": np.where(mask == 255, 255, 90 * (mask == 1) + 5)}
    if outside is not None:
        rasters["outside"] = outside
    folder.mkdir()
    layers: dict[str, Any] = {"outside": None}
    for name, values in rasters.items():
        layers[name] = Layer(folder / name, values.shape, np.uint8)
        layers[name].write(0, values.astype(np.uint8))
    return SceneMap(
        **layers,
        crs=rasterio.CRS.from_epsg(32651),
        transform=UTM,
        backscatter=np.zeros((mask.shape[0] // 2, mask.shape[1] // 2), np.float32),
        backscatter_step=2,
        manifest=tiny_model().manifest,
        valid=int((mask != 255).sum()),
        wet=int((mask == 1).sum()),
        flooded_km2=(mask == 1).sum() * 1e-4 / 0.9996**2,
        valid_km2=(mask != 255).sum() * 1e-4 / 0.9996**2,
        seconds={},
        engine="PyTorch float32",
    )


@pytest.fixture
def flooded(tmp_path: Path) -> SceneMap:
    """Wet are rows 100 to 1199 of columns 50 to 149; the first 20 columns have no data."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[100:1200, 50:150] = 1
    mask[:, :20] = 255
    return drawn(tmp_path / "work", mask)


def written(result: SceneMap, out: Path, **wanted: Any) -> tuple[dict[str, Path], dict[str, Any]]:
    files = write_map(result, out, version="v0.1.0", origin=ORIGIN, wanted=Wanted(**wanted))
    return files, json.loads(files["summary"].read_text("utf-8"))


def pixels(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """A box of pixels as it lies in UTM."""
    return shapely.box(LEFT + 10 * left, TOP - 10 * bottom, LEFT + 10 * right, TOP - 10 * top)


def write_zones(path: Path, zones: dict[str, shapely.Geometry], driver: str, crs: str) -> Path:
    outlines = np.array(list(zones.values()))
    if crs == "EPSG:4326":
        to = rasterio.warp.transform
        outlines = shapely.transform(
            shapely.segmentize(outlines, 100),
            lambda x, y: tuple(to("EPSG:32651", crs, x, y)),
            interleaved=False,
        )
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(outlines),
        field_data=[np.arange(len(zones)), np.array(list(zones), dtype=object)],
        fields=["number", "town"],
        geometry_type="Unknown" if driver != "ESRI Shapefile" else "Polygon",
        crs=crs,
        driver=driver,
    )
    return path


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as raster:
        values: NDArray[Any] = raster.read(1)
    return values


def test_the_files_tell_the_same(tmp_path: Path, result: SceneMap) -> None:
    files, summary = written(result, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES.values())
    with rasterio.open(files["mask"]) as mask, rasterio.open(files["probability"]) as percent:
        assert np.array_equal(mask.read(1), result.mask.whole())
        assert (mask.crs, mask.transform) == (result.crs, result.transform)
        assert np.array_equal(percent.read(1), result.percent.whole())
    polygons = json.loads(files["polygons"].read_text())["features"]
    areas = [feature["properties"]["area_km2"] for feature in polygons]
    slivers = summary["slivers"]
    assert summary["flooded_km2"] == pytest.approx(sum(areas) + slivers["km2"], rel=1e-4)
    assert summary["polygons"] == len(polygons) > 0
    assert slivers["count"] > 0
    assert min(areas) >= 500e-6
    assert (summary["scene"], summary["version"]) == ("scene.tif", "v0.1.0")
    assert summary["valid_share"] == pytest.approx(0.9)


def test_the_geopackage_has_the_polygons_of_the_geojson(tmp_path: Path, result: SceneMap) -> None:
    files, summary = written(result, tmp_path / "out", min_area_m2=0.0)
    meta, _, wkb, (area_km2, mean) = pyogrio.raw.read(files["geopackage"], layer="flood")
    features = json.loads(files["polygons"].read_text())["features"]
    assert meta["crs"] == "EPSG:32651"
    assert summary["slivers"] == {"count": 0, "km2": 0.0}
    assert len(wkb) == len(features) == summary["polygons"]
    for key, values in (("area_km2", area_km2), ("mean_probability", mean)):
        assert values.tolist() == [feature["properties"][key] for feature in features]
    inside = shapely.area(shapely.from_wkb(wkb)) / 0.9996**2 / 1e6
    assert area_km2 == pytest.approx(inside, abs=1e-6)
    holes = shapely.get_num_interior_rings(shapely.from_wkb(wkb))
    assert holes.tolist() == [len(one["geometry"]["coordinates"]) - 1 for one in features]
    assert holes.sum() > 0


def test_a_dry_map_has_all_files(tmp_path: Path) -> None:
    dry = drawn(tmp_path / "work", np.zeros((40, 60), np.uint8))
    files, summary = written(dry, tmp_path / "out")
    assert (summary["flooded_km2"], summary["polygons"]) == (0.0, 0)
    assert json.loads(files["polygons"].read_text())["features"] == []
    assert pyogrio.read_info(files["geopackage"], layer="flood")["features"] == 0


def test_simplified_outlines_are_valid_near_and_keep_their_area(
    tmp_path: Path, result: SceneMap
) -> None:
    whole, _ = written(result, tmp_path / "whole")
    fewer, summary = written(result, tmp_path / "fewer", simplify_m=20.0)
    outlines, simple = (
        shapely.from_wkb(pyogrio.raw.read(files["geopackage"], layer="flood")[2])
        for files in (whole, fewer)
    )
    assert summary["polygons"] == len(simple) == len(outlines)
    assert shapely.is_valid(simple).all()
    assert (
        shapely.get_num_coordinates(simple).sum() < shapely.get_num_coordinates(outlines).sum() / 2
    )
    assert shapely.hausdorff_distance(outlines, simple).max() < 40.0
    areas = [
        [
            one["properties"]["area_km2"]
            for one in json.loads(files["polygons"].read_text())["features"]
        ]
        for files in (whole, fewer)
    ]
    assert areas[0] == areas[1], "that of the pixels"


ZONES = {
    "Búzi": pixels(0, 0, 100, 1300),  # half of the flood
    "Dombe": pixels(100, 0, 200, 650),
    "Búzi and Dombe": pixels(0, 0, 200, 1300),
    "sea": pixels(150, 1200, 400, 1400),  # of which the scene shows a fifth
    "far": pixels(5000, 0, 5100, 100),
}
AREA = 1e-4 / 0.9996**2  # of a pixel


@pytest.mark.parametrize(
    ("name", "driver", "crs"),
    [
        ("zones.gpkg", "GPKG", "EPSG:32651"),
        ("zones.geojson", "GeoJSON", "EPSG:4326"),
        ("zones.shp", "ESRI Shapefile", "EPSG:32651"),
        ("zones.zip", "ESRI Shapefile", "EPSG:32651"),
    ],
)
def test_zones_tell_their_flooded_area_and_how_much_of_them_was_seen(
    tmp_path: Path, flooded: SceneMap, name: str, driver: str, crs: str
) -> None:
    folder = tmp_path / "zones"
    folder.mkdir()
    write_zones(folder / name.replace(".zip", ".shp"), ZONES, driver, crs)
    if name == "zones.zip":
        shutil.make_archive(str(folder / "zones"), "zip", folder)
    files, summary = written(flooded, tmp_path / "out", zones=folder / name)
    found = {zone["name"]: zone for zone in summary["zones"]}
    assert list(found) == ["Búzi", "Dombe", "Búzi and Dombe", "sea"]
    flooded_pixels = {"Búzi": 55_000, "Dombe": 27_500, "Búzi and Dombe": 110_000, "sea": 0}
    shares = {"Búzi": 0.8, "Dombe": 1.0, "Búzi and Dombe": 0.9, "sea": 0.1}
    for zone, count in flooded_pixels.items():
        assert found[zone]["flooded_km2"] == pytest.approx(count * AREA, rel=2e-3)
        assert found[zone]["valid_share"] == pytest.approx(shares[zone], abs=2e-3)
    assert found["sea"]["area_km2"] == pytest.approx(50_000 * AREA, rel=1e-3)
    assert found["Búzi and Dombe"]["flooded_km2"] == pytest.approx(summary["flooded_km2"], rel=1e-4)
    meta, _, _, fields = pyogrio.raw.read(files["geopackage"], layer="zones")
    columns = dict(zip(meta["fields"].tolist(), fields, strict=True))
    assert columns["name"].tolist() == list(found)
    assert columns["flooded_km2"].tolist() == [zone["flooded_km2"] for zone in found.values()]


def test_zones_elsewhere_on_the_earth_are_left_out_and_one_all_around_it_is_refused(
    tmp_path: Path, flooded: SceneMap
) -> None:
    near = shapely.box(122.9, 13, 123.1, 14)
    brazil, sudan = shapely.box(-60, -20, -50, -10), shapely.box(30, 5, 36, 10)
    path = tmp_path / "zones.geojson"

    def zones(*outlines: shapely.Geometry) -> list[str]:
        features = [
            {"type": "Feature", "geometry": shapely.geometry.mapping(item), "properties": {}}
            for item in outlines
        ]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        _, summary = written(flooded, tmp_path / "out", zones=path)
        assert all(zone["area_km2"] < 4000 for zone in summary["zones"])
        return [zone["name"] for zone in summary["zones"]]

    assert zones(brazil, sudan, near, shapely.MultiPolygon([near, brazil])) == ["zone 3", "zone 4"]
    assert zones(brazil, sudan) == []
    with pytest.raises(InputError, match="polygon 2 reaches more than 60° of longitude"):
        zones(near, shapely.box(-180, -90, 180, 90))
    with pytest.raises(InputError, match="polygon 1 does not lie on the Earth by EPSG:4326"):
        zones(shapely.box(500_000, 1_400_000, 500_100, 1_400_100))


def test_zones_may_be_named_by_a_field_or_by_number(tmp_path: Path, flooded: SceneMap) -> None:
    path = tmp_path / "zones.geojson"
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(122.9, 13, 123.1, 14)),
         "properties": {"state": "Sofala", "town": town}}
        for town in ("Beira\u202e\n", None, "Beira")
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    named = {
        field: [
            zone["name"]
            for zone in written(flooded, tmp_path / "out", zones=path, zone_field=field)[1]["zones"]
        ]
        for field in (None, "town")
    }
    assert named == {
        None: ["Sofala", "Sofala (2)", "Sofala (3)"],
        "town": ["Beira", "zone 2", "Beira (2)"],
    }
    with pytest.raises(InputError, match="no text field 'city'; there are: state, town"):
        written(flooded, tmp_path / "out", zones=path, zone_field="city")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("zones.gpkg", b"PK\x03\x04", "not GPKG"),
        ("zones.geojson", b'{"type": "FeatureCollection", "features": []}', "no polygon"),
        (
            "zones.geojson",
            b'{"type": "FeatureCollection", "features": [',
            "cannot be read as GeoJSON",
        ),
        ("zones.zip", b"PK\x03\x04 no more", "damaged or truncated"),
        ("zones.kml", b"<kml/>", "zones are a GeoPackage"),
        ("zones.vrt", b"<OGRVRTDataSource/>", "zones are a GeoPackage"),
    ],
)
def test_bad_zones_are_refused_and_the_earlier_map_stays(
    tmp_path: Path, flooded: SceneMap, name: str, content: bytes, why: str
) -> None:
    files, before = written(flooded, tmp_path / "out")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=why):
        written(flooded, tmp_path / "out", zones=tmp_path / name)
    assert json.loads(files["summary"].read_text("utf-8")) == before


def test_permanent_water_is_no_flood(tmp_path: Path, flooded: SceneMap) -> None:
    """A mask on a grid of 30 m, in degrees elsewhere, of the river: columns 90 to 119."""
    river = np.zeros((1, 500, 200), np.uint8)
    river[0, :, 30:40] = 1
    grid = Affine(30, 0, LEFT, 0, -30, TOP + 300)
    water = write_scene(tmp_path / "water.tif", river, transform=grid)
    files, summary = written(flooded, tmp_path / "out", permanent_water=water)
    assert summary["flooded_km2"] == pytest.approx(70 * 1100 * AREA, rel=1e-4)
    assert summary["permanent_water_km2"] == pytest.approx(30 * 1300 * AREA, rel=1e-4)
    mask = read(files["mask"])
    assert not mask[:, 90:120].any()
    assert mask[100:1200, 50:90].all()
    assert (mask[:, :20] == 255).all()
    assert summary["polygons"] == 2
    assert read(files["probability"])[500, 100] == 95, "what the model said stays"


@pytest.mark.parametrize("kind", ["permanent_water", "dem"])
def test_a_raster_beside_the_scene_is_refused(tmp_path: Path, flooded: SceneMap, kind: str) -> None:
    away = write_scene(
        tmp_path / "away.tif", speckle(1, 100, 100), transform=UTM @ Affine.translation(9000, 0)
    )
    wanted: Any = {kind: away}
    if kind == "dem":
        wanted = {"terrain": Terrain(dem=away, orbit="ascending")}
    with pytest.raises(InputError, match=r"away\.tif: lies beside the scene"):
        written(flooded, tmp_path / "out", **wanted)


def test_exclusion_says_where_not_to_trust_the_map(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[100:1200, 50:150] = 1
    mask[:, :20] = 255
    cells = np.zeros((-(-HEIGHT // 16), -(-WIDTH // 16)), np.uint8)
    cells[64:66, 4:6] = 1  # pixels 1024 to 1055, 64 to 95, in the second strip
    cells[0, 0] = 1
    # A steep wall that faces west, where an ascending satellite stands.
    cols = np.arange(WIDTH, dtype=np.float32)
    heights = np.clip(cols - 120, 0, 20) * 12  # 50° between columns 120 and 140
    dem = write_scene(tmp_path / "dem.tif", np.tile(heights, (1, HEIGHT, 1)))
    result = drawn(tmp_path / "work", mask, cells)
    terrain = Terrain(dem=dem, orbit="ascending", incidence=39.0)
    files, summary = written(result, tmp_path / "out", terrain=terrain)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1024:1056, 64:96] = 2
    expected[:, 121:140] = 3
    expected[:, :20] = 1
    codes = read(files["exclusion"])
    assert np.array_equal(codes, expected)
    excluded = summary["excluded"]
    assert excluded["radar_shadow_share"] == pytest.approx(19 / 180, abs=1e-5)
    assert excluded["outside_training_share"] == pytest.approx(1024 / HEIGHT / 180, abs=1e-5)
    assert excluded["flooded_km2"] == pytest.approx((1024 + 19 * 1100) * AREA, rel=1e-3)
    _, without = written(drawn(tmp_path / "plain", mask), tmp_path / "out")
    assert without["excluded"] == {
        "outside_training_share": None, "radar_shadow_share": None, "flooded_km2": 0.0
    }  # fmt: skip


def test_qgis_finds_each_layer_beside_the_layer_file_with_its_style(
    tmp_path: Path, flooded: SceneMap
) -> None:
    zones = write_zones(tmp_path / "zones.gpkg", ZONES, "GPKG", "EPSG:32651")
    files, _ = written(flooded, tmp_path / "out", zones=zones)
    layers = ET.parse(files["layers"]).getroot().findall("maplayers/maplayer")  # noqa: S314 - ours
    sources = {layer.findtext("layername"): layer.findtext("datasource") or "" for layer in layers}
    assert len(sources) == 5
    for source in sources.values():
        file, _, layer = source.partition("|layername=")
        assert (files["layers"].parent / file).is_file()
        assert not layer or layer in pyogrio.list_layers(files["geopackage"])[:, 0]
    with closing(sqlite3.connect(files["geopackage"])) as database:
        styles = database.execute("SELECT f_table_name, styleQML, useAsDefault FROM layer_styles")
        for _, qml, is_default in styles.fetchall():
            assert ET.fromstring(qml).find("renderer-v2") is not None  # noqa: S314
            assert is_default


def test_the_preview_shows_water_in_blue_and_land_in_grey(tmp_path: Path, result: SceneMap) -> None:
    files, _ = written(result, tmp_path / "out")
    picture = np.asarray(Image.open(files["preview"]).convert("RGB")).astype(int)
    blue = (picture[:, :, 2] - picture[:, :, 0] > 100).mean()
    assert 0.2 * result.flooded_share < blue < 1.2 * result.flooded_share


def test_the_same_map_has_the_same_bytes(tmp_path: Path, flooded: SceneMap) -> None:
    one, other = (written(flooded, tmp_path / name / "out")[0] for name in ("one", "other"))
    for name in set(FILES) - {"summary"}:  # which says how long it took
        assert one[name].read_bytes() == other[name].read_bytes(), name


def test_an_earlier_map_is_replaced(tmp_path: Path, flooded: SceneMap) -> None:
    for version in ("v0.1.0", "v0.2.0"):
        files = write_map(flooded, tmp_path / "out", version=version, origin=ORIGIN)
    assert json.loads(files["summary"].read_text())["version"] == "v0.2.0"
    assert len(list((tmp_path / "out").iterdir())) == len(files)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, flooded: SceneMap) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: is a file; name a folder"):
        written(flooded, tmp_path / "file")


@pytest.mark.parametrize("folder", ["scene.tif/map", "n" * 300])
def test_a_folder_that_cannot_be_is_refused_before_there_is_a_map(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / "scene.tif").touch()
    with pytest.raises(InputError, match="cannot be written: "):
        make_folder(tmp_path / folder)


def test_a_full_disk_leaves_the_earlier_map(tmp_path: Path, result: SceneMap) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "flood.tif").write_bytes(b"the old one")
    with full_disk(), pytest.raises(SarfloodError, match=r"out.*: cannot be written"):
        written(result, folder)
    assert [path.name for path in folder.iterdir()] == ["flood.tif"]
    assert (folder / "flood.tif").read_bytes() == b"the old one"
