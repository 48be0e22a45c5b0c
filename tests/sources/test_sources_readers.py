"""Which layout a source has."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarflood.errors import InputError
from sarflood.sources.readers import READERS, recognise

SAMPLES = {
    "scene": "scene.tif",
    "sen1floods11": "S1/Spain_1_S1Hand.tif",
    "stac-overflow": "ab_vv.tif",
    "ombria": "train/AFTER/S1_after_0001.png",
    "etci2021": "tiles/vv/x_x-1_y-2_vv.png",
}


def _touch(root: Path, name: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(("layout", "name"), SAMPLES.items())
def test_each_layout_is_told_by_names_alone(tmp_path: Path, layout: str, name: str) -> None:
    _touch(tmp_path, name)
    assert recognise(tmp_path).layout == layout


def test_unknown_layout_lists_all_that_are_known(tmp_path: Path) -> None:
    _touch(tmp_path, "notes.txt")
    _touch(tmp_path, ".hidden/vv/x_x-1_y-2_vv.png")
    with pytest.raises(InputError, match="no known layout") as error:
        recognise(tmp_path)
    assert {reader.layout for reader in READERS} == set(SAMPLES)
    for reader in READERS:
        assert f"{reader.layout}: {reader.looks_for}" in str(error.value)


def test_several_layouts_are_named(tmp_path: Path) -> None:
    _touch(tmp_path, SAMPLES["ombria"])
    _touch(tmp_path, SAMPLES["sen1floods11"])
    with pytest.raises(InputError, match="sen1floods11 and ombria at once"):
        recognise(tmp_path)


def test_missing_source_and_a_file_that_is_no_geotiff(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        recognise(tmp_path / "absent")
    _touch(tmp_path, "tile.png")
    with pytest.raises(InputError, match="no known layout"):
        recognise(tmp_path / "tile.png")
