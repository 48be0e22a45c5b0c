from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from affine import Affine
from scipy.ndimage import gaussian_filter

from sarflood.errors import DataRefusedError
from sarflood.params import load_params
from sarflood.patches.split import split_events
from sarflood.patches.store import EventPatches, PatchWriter, open_events
from sarflood.sources.backscatter import simulate_window
from sarflood.sources.event import Event, Origin
from sarflood.sources.landscape import Landscape
from sarflood.sources.pixels import cut_patches
from sarflood.sources.reader import RawPatch
from sarflood.stages.leaks import leaks
from sarflood.stages.split import split as split_stage
from sarflood.validation.leaks import check_leaks, leak_table
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[2]
PLACE = Affine(10, 0, 300_000, 0, -10, 1_800_000)


def raw_patches(seed: int = 1) -> list[RawPatch]:
    scene = simulate_window(Landscape(seed, 1792), 0, 0, 1792, 1792)
    return list(cut_patches(f"s{seed}", scene.after, scene.mask, "EPSG:32651", PLACE))


def write(folder: Path, name: str, patches: list[RawPatch], number: int = 1) -> None:
    event = Event(
        id=name,
        name=name,
        bands=("vv", "vh"),
        units="db",
        label="flood",
        source=Origin(name="test"),
        number=number,
    )
    (folder / name).mkdir(parents=True)
    with PatchWriter(folder / name, event) as writer:
        for patch in patches:
            writer.add(patch, patch.name)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    workspace.params.write_bytes((ROOT / "params.yaml").read_bytes())
    write(workspace.events, "a", raw_patches())
    return workspace


@pytest.fixture(scope="module")
def events(workspace: Workspace) -> list[EventPatches]:
    return open_events(workspace.events)


def parts_of(events: list[EventPatches], train: list[str], test: list[str]) -> pd.DataFrame:
    ids = pd.concat([item.index["id"] for item in events])
    table = pd.DataFrame({"id": ids, "split": "guard"})
    table.loc[table["id"].isin(train), "split"] = "train"
    table.loc[table["id"].isin(test), "split"] = "test"
    return table


def test_our_split_does_not_leak_and_a_random_one_stops_the_pipeline(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    split_stage(workspace)
    leaks(workspace)
    metrics = json.loads((workspace.metrics / "leaks.json").read_text())
    assert metrics["passed"]
    assert metrics["leaking"] == 0
    assert metrics["test"] > 0
    table = pd.read_parquet(workspace.split)
    table["split"] = np.random.default_rng(0).permutation(table["split"])
    table.to_parquet(workspace.split)
    with pytest.raises(DataRefusedError, match=r"scored patches are known.*a/s1-.*nearer than 1"):
        leaks(workspace)
    metrics = json.loads((workspace.metrics / "leaks.json").read_text())
    assert not metrics["passed"]
    assert metrics["guard_distance"] == metrics["leaking"] > 0


def test_a_neighbour_in_training_leaks_and_one_behind_the_guard_does_not(
    events: list[EventPatches],
) -> None:
    for train, passed in (("a/s1-0-1", False), ("a/s1-1-1", False), ("a/s1-2-0", True)):
        verdict = check_leaks(events, parts_of(events, [train], ["a/s1-0-0"]), guard=1)
        assert verdict.passed == passed
        assert set(verdict.reasons) == (set() if passed else {"a/s1-0-0"})


def test_copies_shifts_masks_and_ground_in_other_events_leak(tmp_path: Path) -> None:
    patches = raw_patches()
    one = max(patches, key=lambda patch: np.count_nonzero(patch.mask == 1))
    other = raw_patches(2)
    shifted = np.roll(one.image, 60, axis=1)
    beside = Affine.translation(-1.9 * 256, 0)
    assert one.mask is not None
    assert one.transform is not None
    spoiled = [
        replace(
            one, name="copy", mask=np.roll(one.mask, 3, axis=0), grid=None, crs=None, transform=None
        ),
        replace(
            one,
            name="shifted",
            image=shifted,
            mask=np.roll(one.mask, 60, 0),
            grid=None,
            crs=None,
            transform=None,
        ),
        replace(other[9], name="mask", mask=one.mask, grid=None, crs=None, transform=None),
        replace(other[11], name="ground", transform=one.transform, grid=None),
        replace(other[12], name="beside", transform=one.transform @ beside, grid=None),
        replace(other[10], name="far", grid=None, crs=None, transform=None),
    ]
    write(tmp_path, "a", patches)
    write(tmp_path, "b", spoiled, 2)
    events = open_events(tmp_path)
    found = {}
    for patch in spoiled:
        split = parts_of(events, [f"b/{patch.name}"], [f"a/{one.name}"])
        row = leak_table(events, split, 1).iloc[0]
        found[patch.name] = {name for name in row.index if row[name] == f"b/{patch.name}"}
    assert found == {
        "copy": {"copy_in_train", "near_copy_in_train"},
        "shifted": {"near_copy_in_train"},
        "mask": {"mask_in_train"},
        "ground": {"ground_in_train", "near_train"},
        "beside": {"near_train"},
        "far": set(),
    }


def test_a_patch_that_continues_a_training_patch_leaks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    field = np.stack([gaussian_filter(rng.normal(0, 60, (256, 768)), 4) - 12 for _ in range(2)])
    mask = (field[0] < -13).astype(np.uint8)
    patches = [
        RawPatch(
            f"p{number}",
            field[:, :, 256 * number : 256 * number + 256].astype(np.float32),
            mask[:, 256 * number : 256 * number + 256],
        )
        for number in range(3)
    ]
    write(tmp_path, "a", patches)
    events = open_events(tmp_path)
    verdict = check_leaks(events, parts_of(events, ["a/p0"], ["a/p1", "a/p2"]), guard=1)
    assert verdict.reasons == {"a/p1": ["a training patch continues it at an edge"]}


def test_two_events_of_one_place_do_not_leak_after_our_split(tmp_path: Path) -> None:
    write(tmp_path, "a", raw_patches(1))
    write(tmp_path, "b", raw_patches(2), 2)
    events = open_events(tmp_path)
    params = load_params(ROOT / "params.yaml").split
    table = split_events(events, params)
    assert check_leaks(events, table, params.guard_patches).passed
    shifted = table["split"].to_numpy().copy()
    shifted[49:] = np.roll(shifted[49:], 24)
    assert not check_leaks(events, table.assign(split=shifted), params.guard_patches).passed
