"""Scenes whose polarisations lie apart, and those that a STAC item names, here or on a server."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from item_site import serving, write_apart, write_item
from tiny import speckle, write_package, write_scene

from sarflood.errors import InputError, NetworkError
from sarflood.mapping.scenes import Job, map_into, scratch_folder
from sarflood.mapping.sources import bring, find_scene, with_scene_before

IMAGE = speckle(2, 200, 150)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, list[str], set[str]]]:
    """The address of an item on a server, what is asked of it, and what it breaks off."""
    asked: list[str] = []
    breaks: set[str] = set()
    write_item(tmp_path / "site", IMAGE)
    with serving(tmp_path / "site", asked, breaks) as address:
        yield f"{address}/item.json", asked, breaks


def take(tmp_path: Path, source: str | Path, version: str = "v0.1.0") -> dict[str, Any]:
    package = tmp_path / "package"
    if not package.exists():
        write_package(package)
        (package / "recorded.npz").unlink()  # so that PyTorch computes
    scene = find_scene(source)
    with scratch_folder(tmp_path / "maps") as scratch:
        return map_into(
            Job(package, scene, scratch, tmp_path / "maps" / scene.name, version, False)
        )


def mask(tmp_path: Path, name: str) -> np.ndarray:
    with rasterio.open(tmp_path / "maps" / name / "flood.tif") as file:
        found: np.ndarray = file.read(1)
    return found


@pytest.fixture
def expected(tmp_path: Path) -> np.ndarray:
    take(tmp_path, write_scene(tmp_path / "whole.tif", IMAGE, ("VV", "VH")))
    return mask(tmp_path, "whole")


def test_polarisations_in_files_of_their_own_are_one_scene(
    tmp_path: Path, expected: np.ndarray
) -> None:
    folder = write_apart(tmp_path / "beira-2019-03-19", IMAGE)
    summary = take(tmp_path, folder)
    assert np.array_equal(mask(tmp_path, folder.name), expected)
    assert set(summary["inputs"]) == {"scene_vv", "scene_vh"}
    assert summary["acquired"].startswith("2019-03-19")
    assert not take(tmp_path, folder)["new"]
    (folder / "scene.tif").touch()
    with pytest.raises(InputError, match="the same date twice"):
        take(tmp_path, folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"beira-2019-03-19: no scene\.tif"):
        take(tmp_path, folder)


def test_the_scene_before_may_be_a_folder_of_polarisations_and_nothing_else_is_taken_for_it(
    tmp_path: Path,
) -> None:
    flood = find_scene(write_scene(tmp_path / "whole.tif", IMAGE, ("VV", "VH")))
    before = find_scene(write_apart(tmp_path / "beira-2019-03-07", IMAGE))
    both = with_scene_before(flood, before)
    assert both.scene == tmp_path / "whole.tif"
    assert both.pre == {name: before.paths[at] for at, name in enumerate(("vv", "vh"))}
    (tmp_path / "empty").mkdir()
    item = write_item(tmp_path / "here", IMAGE)
    for one, other, why in (
        (both, before, "whole: names what was there before"),
        (find_scene(item), before, "item.json: names what was there before"),
        (flood, find_scene(item), "item.json: a STAC item"),
        (flood, both, "whole: a scene with one from before it"),
        (flood, find_scene(tmp_path / "empty"), r"empty: no scene\.tif"),
    ):
        with pytest.raises(InputError, match=why):
            with_scene_before(one, other)


def test_an_item_says_which_way_the_satellite_flew(tmp_path: Path) -> None:
    item = write_item(tmp_path / "here", IMAGE)
    assert find_scene(item).flown is None
    content = json.loads(item.read_text("utf-8"))
    for said, flown in (("ascending", "ascending"), ("geostationary", None), (7, None)):
        content["properties"]["sat:orbit_state"] = said
        item.write_text(json.dumps(content), "utf-8")
        assert find_scene(item).flown == flown


def test_an_item_on_disk_is_mapped_anew_where_its_files_change(
    tmp_path: Path, expected: np.ndarray
) -> None:
    item = write_item(tmp_path / "here", IMAGE)
    assert take(tmp_path, item)["new"]
    assert np.array_equal(mask(tmp_path, "S1A_of_Beira"), expected)
    assert not take(tmp_path, item)["new"]
    write_scene(tmp_path / "here" / "scene_vv.tif", IMAGE[:1] + 1, ("VV",))
    assert take(tmp_path, item)["new"]
    assert not (tmp_path / "maps" / ".mapping").exists()


def test_an_item_on_a_server_is_brought_and_mapped_once(
    tmp_path: Path, expected: np.ndarray, site: tuple[str, list[str], set[str]]
) -> None:
    address, asked, _ = site
    summary = take(tmp_path, address)
    assert np.array_equal(mask(tmp_path, "S1A_of_Beira"), expected)
    assert summary["scene"] == summary["inputs"]["item"] == address
    assert summary["acquired"] == "2019-03-19T16:00:00+00:00"
    asked.clear()
    assert not take(tmp_path, address)["new"]
    assert set(asked) == {"/item.json"}, "nothing large is asked for again"
    assert take(tmp_path, address, "v0.2.0")["new"]
    assert "/scene_vh.tif" in asked


def test_a_server_that_breaks_off_is_said_and_leaves_nothing_half(
    tmp_path: Path, expected: np.ndarray, site: tuple[str, list[str], set[str]]
) -> None:
    address, _, breaks = site
    breaks.add("/scene_vh.tif")
    with pytest.raises(NetworkError, match=r"scene_vh\.tif: does not answer as it should"):
        take(tmp_path, address)
    assert take(tmp_path, address)["new"]
    assert np.array_equal(mask(tmp_path, "S1A_of_Beira"), expected)


def test_files_of_an_item_that_were_brought_in_part_are_brought_again(
    tmp_path: Path, site: tuple[str, list[str], set[str]]
) -> None:
    address, _, _ = site
    folder = tmp_path / "item"
    folder.mkdir()
    (folder / "scene_vv.tif").write_bytes(b"half")
    whole = [name for name, _ in bring(address, folder).files]
    assert whole == ["scene_vv", "scene_vh"]
    assert (folder / "scene_vv.tif").stat().st_size > 1000


def test_a_catalogue_of_several_is_refused(tmp_path: Path) -> None:
    catalogue = pystac.Catalog("floods", "Two items")
    for name in ("one", "two"):
        when = dt.datetime(2019, 3, 19, tzinfo=dt.UTC)
        catalogue.add_item(pystac.Item(name, None, None, when, {}))
    catalogue.normalize_and_save(str(tmp_path / "floods"), pystac.CatalogType.SELF_CONTAINED)
    with pytest.raises(InputError, match="a catalogue of several items; name them one by one"):
        find_scene(tmp_path / "floods" / "catalog.json")
