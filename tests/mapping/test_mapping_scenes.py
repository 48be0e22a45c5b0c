from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from grd_product import CENTRE, Place, write_product
from numpy.typing import NDArray
from tiny import lake_model, speckle, write_package, write_scene

from sarflood.errors import InputError
from sarflood.mapping import scenes
from sarflood.mapping.folder import FILES
from sarflood.mapping.scenes import (
    Job,
    begin,
    finish,
    map_into,
    map_part,
    scratch_folder,
)
from sarflood.mapping.sources import SceneFiles, find_scene, find_scenes
from sarflood.mapping.wanted import Wanted
from sarflood.model.package import FloodModel
from sarflood.monitoring.histograms import Histogram, count_values
from sarflood.monitoring.reference import Answered, Reference, Trained, write_reference
from sarflood.raster.grid import Grid
from sarflood.raster.terrain import hidden

NAMES = set(FILES.values())


@pytest.fixture
def scene(tmp_path: Path) -> SceneFiles:
    return find_scene(write_scene(tmp_path / "north.tif", speckle(2, 200, 150), ("VV", "VH")))


def job(scene: SceneFiles, version: str = "v0.1.0", **wanted: Any) -> Job:
    folder = scene.paths[0].parent
    package = folder / "package"
    if not package.exists():
        write_package(package)
        (package / "recorded.npz").unlink()  # so that PyTorch computes
    out = folder / "maps"
    target = out / scene.name
    return Job(package, scene, out / ".mapping", target, version, False, Wanted(**wanted))


def take(
    scene: SceneFiles,
    version: str = "v0.1.0",
    on_progress: Callable[[float], object] | None = None,
    **wanted: Any,
) -> dict[str, Any]:
    """Map a scene into `maps/north` beside it."""
    with scratch_folder(scene.paths[0].parent / "maps"):
        return map_into(job(scene, version, **wanted), on_progress)


def take_half(scene: SceneFiles) -> None:
    def kill(done: float) -> None:
        if done > 0.6:
            os.kill(os.getpid(), signal.SIGKILL)

    take(scene, on_progress=kill)


def test_a_scene_gets_a_folder_and_nothing_else_is_left(scene: SceneFiles) -> None:
    done = take(scene)
    target = scene.paths[0].parent / "maps" / "north"
    assert {path.name for path in target.iterdir()} == NAMES
    assert done["new"]
    assert done["engine"] == "PyTorch float32"
    assert json.loads((target / "summary.json").read_text("utf-8"))["version"] == "v0.1.0"
    assert [path.name for path in target.parent.iterdir() if path.suffix != ".lock"] == ["north"]


def test_the_same_version_and_files_are_mapped_once(scene: SceneFiles) -> None:
    first = take(scene)
    target = scene.paths[0].parent / "maps" / "north"
    made = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    assert take(scene) == {**first, "new": False}
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == made
    assert take(scene, "v0.2.0")["new"]
    write_scene(scene.paths[0], speckle(2, 200, 150, seed=1), ("VV", "VH"))
    other = take(scene, "v0.2.0")
    assert other["new"]
    assert other["inputs"] != first["inputs"]
    (target / "flood.tif").unlink()
    assert take(scene, "v0.2.0")["new"], "it was not whole"


def test_a_scene_is_mapped_anew_where_other_files_are_wanted_of_it(scene: SceneFiles) -> None:
    assert take(scene)["new"]
    assert take(scene, min_area_m2=0.0)["new"]
    zones = scene.paths[0].with_name("zones.geojson")
    for east in (123.001, 123.002):
        town = shapely.geometry.mapping(shapely.box(122, 13, east, 14))
        feature = {"type": "Feature", "properties": {"town": "Beira"}, "geometry": town}
        content = {"type": "FeatureCollection", "features": [feature]}
        zones.write_text(json.dumps(content), "utf-8")
        first = take(scene, zones=zones)
        assert first["new"]
        assert not take(scene, zones=zones)["new"]
    assert [zone["name"] for zone in first["zones"]] == ["Beira"]


def test_what_cannot_be_read_in_the_end_is_refused_before_the_scene_is_mapped(
    scene: SceneFiles,
) -> None:
    asked: list[float] = []
    with pytest.raises(InputError, match=r"north\.txt: cannot be read"):
        take(scene, on_progress=asked.append, permanent_water=scene.paths[0].with_suffix(".txt"))
    earth = scene.paths[0].with_name("earth.geojson")
    earth.write_text(shapely.to_geojson(shapely.box(-180, -90, 180, 90)))
    with pytest.raises(InputError, match="reaches more than 60° of longitude"):
        take(scene, on_progress=asked.append, zones=earth)
    scene.paths[0].with_suffix(".gpkg").write_text("none")
    with pytest.raises(InputError, match=r"north\.gpkg: not GPKG"):
        take(scene, on_progress=asked.append, zones=scene.paths[0].with_suffix(".gpkg"))
    assert not asked


def test_what_the_model_was_not_trained_on_is_excluded(tmp_path: Path) -> None:
    """Also where two strips meet."""
    seen = speckle(2, 1400, 300)
    image = seen.copy()
    image[1, 1000:1100, 64:160] += 25.0
    scene = find_scene(write_scene(tmp_path / "north.tif", image, ("VV", "VH")))
    package = job(scene).package
    bands = dict(
        zip(("vv", "vh"), (Histogram.of(count_values(x, "db")) for x in seen), strict=True)
    )
    trained = Trained(scene="a", bands=bands)
    answered = Answered(scene="a", wet_share=0.5, confidence=0.9)
    units, names = "db", ("vv", "vh")
    write_reference(Reference(units=units, bands=names, train=(trained,), val=(answered,)), package)
    summary = take(scene)
    with rasterio.open(tmp_path / "maps" / "north" / "exclusion.tif") as raster:
        outside = raster.read(1) == 2
    rows, cols = np.nonzero(outside)
    assert (cols.min(), cols.max()) == (64, 159)
    assert (rows.min(), rows.max()) == (992, 1103), "whole cells"
    assert outside[992:1104, 64:160].all()
    assert summary["excluded"]["outside_training_share"] == pytest.approx(outside.mean(), abs=1e-6)


def test_a_scene_that_fails_leaves_the_earlier_map(scene: SceneFiles) -> None:
    take(scene)
    scene.paths[0].write_bytes(scene.paths[0].read_bytes()[:3000])
    with pytest.raises(InputError, match=r"north\.tif"):
        take(scene)
    target = scene.paths[0].parent / "maps" / "north"
    assert {path.name for path in target.iterdir()} == NAMES
    assert not (target.parent / ".mapping").exists()
    scene.paths[0].unlink()
    with pytest.raises(InputError, match=r"north\.tif: cannot be read: No such file"):
        take(scene)


def test_one_command_at_a_time_maps_into_a_folder(tmp_path: Path) -> None:
    with (
        scratch_folder(tmp_path) as scratch,
        pytest.raises(InputError, match="another command maps scenes into it"),
        scratch_folder(tmp_path),
    ):
        pass
    assert not scratch.exists()


@dataclass(frozen=True)
class Tall:
    """A scene of three strips, and the map that one process made of it in one go."""

    scene: SceneFiles
    target: Path
    summary: dict[str, Any]
    rasters: dict[str, bytes]

    def check(self, summary: dict[str, Any]) -> None:
        """Compare a map that was made anew."""
        assert {**summary, "seconds": 0} == {**self.summary, "seconds": 0}
        for name, content in self.rasters.items():
            assert (self.target / name).read_bytes() == content


@pytest.fixture
def tall(tmp_path: Path) -> Tall:
    image = speckle(2, 2400, 300)
    scene = find_scene(write_scene(tmp_path / "north.tif", image, ("VV", "VH")))
    summary, target = take(scene), tmp_path / "maps" / "north"
    rasters = {path.name: path.read_bytes() for path in target.glob("*.tif")}
    return Tall(scene, target, summary, rasters)


def test_a_map_that_was_killed_goes_on_and_ends_as_if_it_was_not(
    tmp_path: Path, tall: Tall
) -> None:
    scene, target = tall.scene, tall.target
    (target / "summary.json").unlink()

    asked: list[float] = []
    mapping = multiprocessing.get_context("spawn").Process(target=take_half, args=(scene,))
    mapping.start()
    mapping.join()
    assert mapping.exitcode == -signal.SIGKILL
    assert not (target / "summary.json").exists()
    again = take(scene, on_progress=asked.append)
    assert len(asked) == 2, "the first of three strips was done"
    tall.check(again)
    assert not (tmp_path / "maps" / ".mapping").exists()


def test_parts_on_any_machine_in_any_order_make_the_map_of_one_process(
    tall: Tall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sarflood.mapping.scenes.STRIPS_A_PART", 1)
    shutil.rmtree(tall.target)
    with scratch_folder(tall.target.parent):
        asked = job(tall.scene)
        begun = begin(asked, in_parts=True)
        assert begun.firsts == (0, 1, 2)
        for part in (2, 0, 1):
            map_part(asked, begun, part)
        summary = finish(asked, begun)
    tall.check({**summary, "new": True})


def test_a_map_that_was_begun_in_one_piece_goes_on_in_parts(
    tall: Tall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sarflood.mapping.scenes.STRIPS_A_PART", 1)
    shutil.rmtree(tall.target)
    with scratch_folder(tall.target.parent):
        asked = job(tall.scene)
        map_part(asked, begin(asked))
        begun = begin(asked, in_parts=True)
        for part in range(3):
            map_part(asked, begun, part)
        summary = finish(asked, begun)
    tall.check({**summary, "new": True})


def test_a_grd_product_is_mapped_where_it_lies(tmp_path: Path) -> None:
    def sigma(place: Place) -> NDArray[np.float64]:
        lake = np.hypot(place[0] - CENTRE[0] - 1500, place[1] - CENTRE[1]) < 1000
        looks = np.random.default_rng(0).gamma(4.0, 0.25, place[0].shape)
        return np.asarray(np.where(lake, 0.01, 0.126) * looks)

    safe = write_product(tmp_path, {"vv": sigma, "vh": sigma})
    write_package(tmp_path / "package", lake_model())
    summary = take(find_scene(safe))
    assert summary["acquired"] == "2019-03-02T23:46:51+00:00"
    assert summary["crs"] == "EPSG:32651"
    with rasterio.open(tmp_path / "maps" / safe.stem / "flood.tif") as file:
        mask = file.read(1)
        rows, cols = np.mgrid[: file.height, : file.width] + 0.5
        x, y = file.transform @ (cols, rows)
    off = np.hypot(x - CENTRE[0] - 1500, y - CENTRE[1])
    lake, land = (mask[inside & (mask < 2)].mean() for inside in (off < 900, off > 1100))
    assert lake > land + 0.3
    assert (mask == 255).any(), "around the product"
    assert not take(find_scene(safe))["new"]


def test_shadow_falls_as_the_product_says_that_the_satellite_flew(tmp_path: Path) -> None:
    def land(place: Place) -> NDArray[np.float64]:
        return np.full(place[0].shape, 0.126)

    scene = find_scene(write_product(tmp_path, {"vv": land, "vh": land}))
    write_package(tmp_path / "package", lake_model())
    take(scene)
    target = job(scene).target
    with rasterio.open(target / "flood.tif") as file:
        grid = Grid.of(file)
    ridge = np.abs(np.arange(grid.width, dtype=np.float32) % 40 - 20) * 10  # 45°: laid over
    heights = np.tile(ridge, (grid.height, 1))
    dem = write_scene(tmp_path / "dem.tif", heights[None], transform=grid.transform)
    take(scene, terrain={"dem": dem})
    with rasterio.open(target / "exclusion.tif") as file:
        codes = file.read(1)
    bordered = np.pad(heights, 1, mode="edge")
    by_orbit = [hidden(bordered, grid, 0, orbit, 39.0) for orbit in ("descending", "ascending")]
    assert ((codes == 3) != by_orbit[0])[codes != 1].mean() < 1e-3
    assert ((codes == 3) != by_orbit[1])[codes != 1].mean() > 0.1
    asked = take(scene, terrain={"dem": dem, "orbit": "ascending"})
    assert not asked["new"], "the product knows it"
    assert asked["wanted"]["terrain"]["orbit"] == "descending"


def test_shadow_needs_an_orbit_where_the_scene_says_none(scene: SceneFiles) -> None:
    dem = write_scene(scene.paths[0].with_name("dem.tif"), speckle(1, 200, 150))
    with pytest.raises(InputError, match=r"north: does not say .* --dem needs --orbit"):
        take(scene, terrain={"dem": dem})
    with pytest.raises(InputError, match=r"gone\.tif: cannot be read"):
        take(find_scene(scene.paths[0].with_name("gone.tif")), terrain={"dem": dem})
    assert take(scene, terrain={"dem": dem, "orbit": "ascending"})["new"]


def test_a_folder_gives_the_scene_with_the_one_before(tmp_path: Path) -> None:
    for name in ("scene.tif", "pre.tif"):
        (tmp_path / name).touch()
    found = find_scene(tmp_path)
    assert (found.name, found.pre) == (tmp_path.name, tmp_path / "pre.tif")
    shutil.copytree(tmp_path, tmp_path / "deep" / tmp_path.name)
    with pytest.raises(InputError, match=f"both are named {tmp_path.name}"):
        find_scenes([tmp_path, tmp_path / "deep" / tmp_path.name])


def test_scenes_that_begin_together_load_their_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, loads = tmp_path / "package", []
    begun = threading.Barrier(3)

    def load(path: Path, *, may_round: bool) -> FloodModel:
        loads.append((path, may_round))
        time.sleep(0.2)  # so that the others come in the meantime
        return lake_model()

    def ask(_: int) -> FloodModel:
        begun.wait(60)
        return scenes._model(package, may_round=True)

    monkeypatch.setattr(scenes, "load_fastest", load)
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(ask, range(3))) == [lake_model()] * 3
    assert loads == [(package, True)]
