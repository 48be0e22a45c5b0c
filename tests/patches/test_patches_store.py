from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from affine import Affine
from tiny import PLAIN

from sarflood.errors import InputError
from sarflood.patches import store
from sarflood.patches.loader import band_statistics, take
from sarflood.patches.store import (
    EventPatches,
    PatchWriter,
    open_event,
    stored_patches,
)
from sarflood.sources.event import Event, Origin
from sarflood.sources.reader import RawPatch

EVENT = Event(
    id="e", name="E", bands=("vv", "vh"), units="db", label="flood", source=Origin(name="test")
)


def raw(number: int) -> RawPatch:
    random = np.random.default_rng(number)
    image = random.normal([[[-10.0]], [[-17.0]]], 2.0, (2, 256, 256)).astype(np.float32)
    image[:, :4] = np.nan
    mask = (random.random((256, 256)) < 0.1).astype(np.uint8)
    where = Affine(10.0, 0.0, 500_000.0 + 2560 * number, 0.0, -10.0, 1_600_000.0)
    return RawPatch(f"p{number}", image, mask, "scene", 0, number, "EPSG:32651", where)


def written(folder: Path, patches: int = 3) -> EventPatches:
    folder.mkdir(parents=True)
    with PatchWriter(folder, EVENT) as writer:
        for number in range(patches):
            writer.add(raw(number), "scene")
    return open_event(folder)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    opened = written(tmp_path / "e")
    assert opened.event == EVENT
    assert opened.images.shape == (3, 2, 256, 256)
    assert opened.masks is not None
    np.testing.assert_array_equal(opened.images[1], raw(1).image.astype(np.float16))
    assert (opened.masks[:, :4] == 255).all(), "what has no data is unknown in the mask"
    row = opened.index.iloc[2]
    assert (row["id"], row["row"], row["col"], row["crs"]) == ("e/p2", 0, 2, "EPSG:32651")
    assert row["valid_share"] == pytest.approx(252 / 256)
    assert row["vv_mean"] == pytest.approx(-10, abs=0.1)
    assert opened.index["sha256"].nunique() == 3


def test_a_patch_without_a_mask_is_no_part_of_a_labelled_event(tmp_path: Path) -> None:
    with PatchWriter(tmp_path, EVENT) as writer:
        writer.add(raw(0), "scene")
        with pytest.raises(InputError, match=r"other: patch p1 has no mask, and event e is labell"):
            writer.add(replace(raw(1), mask=None), "other")
        writer.add(raw(2), "scene")
    opened = open_event(tmp_path)
    assert opened.masks is not None
    assert len(opened.images) == len(opened.masks) == 2


def test_stored_patches_can_be_written_again_as_they_are(tmp_path: Path) -> None:
    whole = written(tmp_path / "e")
    folder = tmp_path / "part"
    folder.mkdir()
    with PatchWriter(folder, EVENT) as writer:
        for patch in stored_patches(tmp_path / "e"):
            if patch.row["id"] != "e/p1":
                writer.write(patch)
    part = open_event(folder)
    np.testing.assert_array_equal(part.images, whole.images[[0, 2]])
    assert part.masks is not None
    assert whole.masks is not None
    np.testing.assert_array_equal(part.masks, whole.masks[[0, 2]])
    pd.testing.assert_frame_equal(part.index, whole.index.iloc[[0, 2]].reset_index(drop=True))


def test_the_index_of_many_patches_is_written_by_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_ROWS_AT_ONCE", 2)
    opened = written(tmp_path / "e", patches=5)
    assert opened.index["id"].tolist() == [f"e/p{number}" for number in range(5)]
    assert [patch.row["id"] for patch in stored_patches(tmp_path / "e")] == list(opened.index["id"])


def test_an_index_of_another_version_is_refused(tmp_path: Path) -> None:
    opened = written(tmp_path / "e")
    opened.index.drop(columns="sketch").to_parquet(tmp_path / "e" / "index.parquet")
    with pytest.raises(InputError, match=r"has no sketch.*ingest it again"):
        open_event(tmp_path / "e")


def test_arrays_that_do_not_fit_the_index_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "e")
    other = written(tmp_path / "other", patches=2)
    (tmp_path / "e" / "images.npy").write_bytes((tmp_path / "other" / "images.npy").read_bytes())
    assert len(other.images) == 2
    with pytest.raises(InputError, match="the index says"):
        open_event(tmp_path / "e")
    (tmp_path / "e" / "images.npy").unlink()
    with pytest.raises(InputError, match="dvc pull"):
        open_event(tmp_path / "e")


def test_band_statistics_are_of_the_pixels_with_data(tmp_path: Path) -> None:
    events = [written(tmp_path / "e")]
    patches = take(
        events, events[0].index[["id"]].assign(split="train", scene="e/0"), "train", PLAIN
    )
    mean, std = band_statistics(patches)
    assert mean == pytest.approx((-10, -17), abs=0.05)
    assert std == pytest.approx((2, 2), abs=0.05)


def test_patches_that_do_not_fit_into_memory_are_read_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [written(tmp_path / "e"), written(tmp_path / "f")]
    split = events[0].index[["id"]].assign(split="train", scene="e/0")
    fitting = take(events, split, "train", PLAIN)
    monkeypatch.setattr("sarflood.patches.room.MEMORY_SHARE", 0.0)
    filed = take(events, split, "train", PLAIN, tmp_path / "scratch")
    assert isinstance(filed.images, np.memmap)
    for name, values in vars(fitting).items():
        np.testing.assert_array_equal(vars(filed)[name], values)


def test_permanent_water_is_taken_along_and_none_where_an_event_does_not_know_it(
    tmp_path: Path,
) -> None:
    known, unknown = written(tmp_path / "e"), written(tmp_path / "f")
    unknown = replace(unknown, index=unknown.index.assign(id="f-" + unknown.index["id"]))
    rows = pd.concat([known.index, unknown.index])[["id"]].assign(split="train", scene="e/0")
    assert take([known, unknown], rows, "train", PLAIN).permanent_water is None
    water = np.random.default_rng(0).integers(0, 2, (len(known.index), 256, 256), np.uint8)
    found = take([replace(known, permanent_water=water), unknown], rows, "train", PLAIN)
    assert found.permanent_water is not None
    np.testing.assert_array_equal(found.permanent_water[: len(water)], water)
    assert not found.permanent_water[len(water) :].any()


def test_a_part_without_patches_is_empty(tmp_path: Path) -> None:
    events = [written(tmp_path / "e")]
    assert (
        len(take(events, events[0].index[["id"]].assign(split="train", scene="e/0"), "test", PLAIN))
        == 0
    )


def test_a_sliver_at_the_border_of_a_scene_is_whole_but_tells_no_distribution() -> None:
    image = np.full((2, 256, 256), np.nan, np.float32)
    image[:, :2, :100] = np.random.default_rng(0).normal(-12, 2, (2, 2, 100))
    mask = np.where(np.isfinite(image[0]), 0, 255).astype(np.uint8)
    sliver = replace(raw(0), image=image, mask=mask, height=2, width=100)
    row = store.describe(sliver, EVENT, "scene").row
    assert row["valid_share"] == 1
    assert row["vv_mean"] == pytest.approx(-12, abs=1)
    assert np.isnan([row["vv_std"], row["vv_constant_share"], row["vv_enl"]]).all()
