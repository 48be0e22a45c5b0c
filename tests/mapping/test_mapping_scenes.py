from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import speckle, write_package, write_scene

from sarflood.errors import InputError
from sarflood.mapping.scenes import SceneFiles, find_scene, find_scenes, map_into, scratch_folder

NAMES = {"flood.tif", "flood.geojson", "probability.tif", "preview.png", "summary.json"}


@pytest.fixture
def scene(tmp_path: Path) -> SceneFiles:
    return find_scene(write_scene(tmp_path / "north.tif", speckle(2, 200, 150), ("VV", "VH")))


def take(scene: SceneFiles, version: str = "v0.1.0") -> dict[str, Any]:
    """Map a scene into `maps/north` beside it."""
    folder = scene.scene.parent
    package = folder / "package"
    if not package.exists():
        write_package(package)
    out = folder / "maps"
    with scratch_folder(out) as scratch:
        return map_into(
            package, scene, scratch, out / scene.name, version=version, max_megapixels=1
        )


def test_a_scene_gets_a_folder_and_nothing_else_is_left(scene: SceneFiles) -> None:
    done = take(scene)
    target = scene.scene.parent / "maps" / "north"
    assert {path.name for path in target.iterdir()} == NAMES
    assert done["new"]
    assert json.loads((target / "summary.json").read_text("utf-8"))["version"] == "v0.1.0"
    assert [path.name for path in target.parent.iterdir() if path.suffix != ".lock"] == ["north"]


def test_the_same_version_and_files_are_mapped_once(scene: SceneFiles) -> None:
    first = take(scene)
    target = scene.scene.parent / "maps" / "north"
    made = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    assert take(scene) == {**first, "new": False}
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == made
    assert take(scene, "v0.2.0")["new"]
    write_scene(scene.scene, speckle(2, 200, 150, seed=1), ("VV", "VH"))
    other = take(scene, "v0.2.0")
    assert other["new"]
    assert other["inputs"] != first["inputs"]
    (target / "flood.tif").unlink()
    assert take(scene, "v0.2.0")["new"], "it was not whole"


def test_a_scene_that_fails_leaves_the_earlier_map(scene: SceneFiles) -> None:
    take(scene)
    scene.scene.write_bytes(scene.scene.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"north\.tif"):
        take(scene)
    target = scene.scene.parent / "maps" / "north"
    assert {path.name for path in target.iterdir()} == NAMES
    assert not (target.parent / ".mapping").exists()
    scene.scene.unlink()
    with pytest.raises(InputError, match=r"north\.tif: cannot be read: No such file"):
        take(scene)


def test_a_folder_with_other_files_is_not_taken_away(scene: SceneFiles) -> None:
    target = scene.scene.parent / "maps" / "north"
    target.mkdir(parents=True)
    (target / "thesis.docx").touch()
    with pytest.raises(InputError, match=r"maps/north: holds thesis\.docx, which belongs to no"):
        take(scene)
    assert (target / "thesis.docx").exists()


def test_what_a_killed_worker_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".mapping" / "north-x1").mkdir(parents=True)
    with scratch_folder(tmp_path) as scratch:
        assert list(scratch.iterdir()) == []
        with (
            pytest.raises(InputError, match="another command maps scenes into it"),
            scratch_folder(tmp_path),
        ):
            pass
        assert scratch.exists()


def test_a_folder_gives_the_scene_with_the_one_before(tmp_path: Path) -> None:
    for name in ("scene.tif", "pre.tif"):
        (tmp_path / name).touch()
    found = find_scene(tmp_path)
    assert (found.name, found.pre) == (tmp_path.name, tmp_path / "pre.tif")
    shutil.copytree(tmp_path, tmp_path / "deep" / tmp_path.name)
    with pytest.raises(InputError, match=f"both are named {tmp_path.name}"):
        find_scenes([tmp_path, tmp_path / "deep" / tmp_path.name])
