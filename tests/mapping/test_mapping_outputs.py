from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from tiny import full_disk, speckle, tiny_model, write_scene

from sarflood.errors import InputError
from sarflood.mapping.outputs import make_folder, write_map
from sarflood.mapping.scene import SceneMap, map_scene


@pytest.fixture
def result(tmp_path: Path) -> SceneMap:
    image = speckle(2, 300, 200)
    image[:, :30] = np.nan
    return map_scene(tiny_model(), write_scene(tmp_path / "scene.tif", image))


def test_the_files_tell_the_same(tmp_path: Path, result: SceneMap) -> None:
    files = write_map(result, tmp_path / "out", version="v0.1.0", scene=tmp_path / "scene.tif")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in files.values()
    )
    with rasterio.open(files["mask"]) as mask, rasterio.open(files["probability"]) as percent:
        assert np.array_equal(mask.read(1), result.mask)
        assert (mask.crs, mask.transform) == (result.crs, result.transform)
        values = percent.read(1).astype(float)
    assert np.array_equal(values == 255, np.isnan(result.probability))
    assert np.nanmax(np.abs(values[30:] / 100 - result.probability[30:])) <= 0.0051
    summary = json.loads(files["summary"].read_text())
    polygons = json.loads(files["polygons"].read_text())["features"]
    areas = [feature["properties"]["area_km2"] for feature in polygons]
    assert summary["flooded_km2"] == pytest.approx(sum(areas), rel=1e-3)
    assert summary["polygons"] == len(polygons) > 0
    assert (summary["scene"], summary["version"]) == ("scene.tif", "v0.1.0")
    assert summary["valid_share"] == pytest.approx(0.9)


def test_the_preview_shows_water_in_blue_and_land_in_grey(tmp_path: Path, result: SceneMap) -> None:
    files = write_map(result, tmp_path / "out", version="v0.1.0", scene=tmp_path / "scene.tif")
    picture = np.asarray(Image.open(files["preview"]).convert("RGB")).astype(int)
    blue = (picture[:, :, 2] - picture[:, :, 0] > 100).mean()
    assert 0.2 * result.flooded_share < blue < 1.2 * result.flooded_share


def test_an_earlier_map_is_replaced(tmp_path: Path, result: SceneMap) -> None:
    for version in ("v0.1.0", "v0.2.0"):
        files = write_map(result, tmp_path / "out", version=version, scene=tmp_path / "scene.tif")
    assert json.loads(files["summary"].read_text())["version"] == "v0.2.0"
    assert len(list((tmp_path / "out").iterdir())) == len(files)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, result: SceneMap) -> None:
    with pytest.raises(InputError, match=r"scene\.tif: is a file; name a folder"):
        write_map(result, tmp_path / "scene.tif", version="v0.1.0", scene=tmp_path / "scene.tif")


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
    with full_disk(), pytest.raises(InputError, match="out: cannot be written: File too large"):
        write_map(result, folder, version="v0.1.0", scene=tmp_path / "scene.tif")
    assert [path.name for path in folder.iterdir()] == ["flood.tif"]
    assert (folder / "flood.tif").read_bytes() == b"the old one"
