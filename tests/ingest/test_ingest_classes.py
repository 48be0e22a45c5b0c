from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from landcover import CLASSES, write_land_cover

from sarflood.errors import DataRefusedError, InputError
from sarflood.ingest.ingest import Ingested, Said, ingest_event
from sarflood.params import load_params
from sarflood.patches.store import open_event
from sarflood.sources.event import as_classes
from sarflood.workspace import Workspace

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").validation


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    root.mkdir()
    return Workspace(root)


def take(
    workspace: Workspace,
    source: Path,
    classes: tuple[str, ...] | None = CLASSES,
    event: str = "po-2023",
) -> Ingested:
    return ingest_event(workspace, str(source), event, Said(classes=classes), PARAMS)


def test_a_scene_of_land_cover_becomes_an_event_with_classes(
    workspace: Workspace, tmp_path: Path
) -> None:
    mask = write_land_cover(tmp_path / "po", 512)
    assert take(workspace, tmp_path / "po").accepted == 4
    opened = open_event(workspace.events / "po-2023")
    assert opened.event.classes == CLASSES
    assert opened.event.label == "water"
    assert opened.masks is not None
    np.testing.assert_array_equal(opened.masks[0], mask[:256, :256])
    assert set(np.unique(opened.masks)) == {0, 1, 2, 3, 255}
    water = [(part == 1).sum() / (part != 255).sum() for part in opened.masks]
    np.testing.assert_allclose(opened.index["wet_share"], water, rtol=1e-5)
    known = opened.index[["vh_wet_mean", "vh_dry_mean"]].mean()
    assert known["vh_wet_mean"] == pytest.approx(-26.6, abs=0.3)
    assert -20 < known["vh_dry_mean"] < -16, "of all kinds of dry land"
    again = take(workspace, tmp_path / "po")
    assert again.verdict is None, "the same source with the same classes is known"
    with pytest.raises(InputError, match="other content"):
        take(workspace, tmp_path / "po", ("other", "water", "forest", "maize"))


def test_a_code_that_has_no_name_is_refused_with_file_and_value(
    workspace: Workspace, tmp_path: Path
) -> None:
    write_land_cover(tmp_path / "po", 256)
    with pytest.raises(DataRefusedError, match=r"mask\.tif: mask values 3; allowed are 0, 1, 2, 2"):
        take(workspace, tmp_path / "po", CLASSES[:3])
    with pytest.raises(DataRefusedError, match=r"mask\.tif: mask values 2, 3; allowed are 0, 1, 2"):
        take(workspace, tmp_path / "po", None)


def test_sources_without_such_masks_have_no_classes(
    workspace: Workspace, tmp_path: Path, write_raster: Callable[..., Path]
) -> None:
    chips = tmp_path / "chips"
    for suffix in ("_vv", "_vh", ""):
        values = np.full((256, 256), -9.0, np.float32) if suffix else np.zeros((256, 256), np.uint8)
        write_raster(chips / f"a{suffix}.tif", values)
    bare = tmp_path / "bare"
    write_land_cover(bare, 256)
    (bare / "mask.tif").unlink()
    for source in (chips, bare):
        with pytest.raises(InputError, match=r"--classes other,water,forest,crops is for georef"):
            take(workspace, source)


def test_polygons_among_scenes_of_land_cover_are_refused(
    workspace: Workspace, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for seed, name in enumerate("ab"):
        write_land_cover(both / name, 256, seed)
    (both / "b" / "mask.tif").unlink()
    with rasterio.open(both / "b" / "scene.tif") as scene:
        left, bottom, right, top = scene.bounds
    square = [[left, bottom], [right, bottom], [right, top], [left, bottom]]
    crs = {"type": "name", "properties": {"name": "EPSG:32651"}}
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": [square]},
    }
    outlines = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    (both / "b" / "mask.geojson").write_text(json.dumps(outlines), "utf-8")
    with pytest.raises(DataRefusedError, match=r"mask\.geojson: polygons show water alone"):
        take(workspace, both)


def test_events_of_other_classes_do_not_mix(workspace: Workspace, tmp_path: Path) -> None:
    write_land_cover(tmp_path / "po", 256)
    take(workspace, tmp_path / "po")
    write_land_cover(tmp_path / "elbe", 256, seed=1)
    with pytest.raises(
        InputError, match=r"labels or classes .*label water of other, water, forest"
    ):
        take(workspace, tmp_path / "elbe", (*CLASSES, "towns"), "elbe")
    with rasterio.open(tmp_path / "elbe" / "mask.tif", "r+") as file:
        mask = file.read()
        file.write(np.where(mask == 255, mask, mask == 1).astype(np.uint8))
    with pytest.raises(InputError, match="elbe: vv, vh in db, label water; po-2023"):
        take(workspace, tmp_path / "elbe", None, "elbe")
    assert take(workspace, tmp_path / "elbe", CLASSES, "elbe").accepted == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("other,water", r"2 name\(s\) of classes; give 3 to 16"),
        (",".join(map(str, range(17))), r"17 name\(s\)"),
        ("other,water,forest,forest", "a class stands twice"),
        ("other,water,", "'' cannot name a class"),
        ("other,water,<b>", "'<b>' cannot name a class"),
        ("other,water,mean", "'mean' cannot name a class"),
        ("water,other,forest", "water is code 1"),
    ],
)
def test_names_that_are_none_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        as_classes(text)


def test_names_stand_between_commas() -> None:
    assert as_classes("other, water,Wald und Moor") == ("other", "water", "Wald und Moor")
    assert as_classes(None) is None
