from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from sarflood.params import SplitParams
from sarflood.patches.split import split_event
from sarflood.sources.event import Event, Origin

PARAMS = SplitParams(val_share=0.15, test_share=0.2, guard_patches=1)
PARTS = ("train", "val", "test")


def event(*, hold_out: bool = False) -> Event:
    return Event(
        id="e",
        name="e",
        bands=("vv",),
        units="db",
        label="flood",
        source=Origin(name="test"),
        hold_out=hold_out,
    )


def grid(rows: int, cols: int, seed: int = 0) -> pd.DataFrame:
    """A grid of patches whose wet share falls off from a river in the middle."""
    row, col = (axis.ravel() for axis in np.mgrid[:rows, :cols])
    wet = np.exp(-np.abs(row - rows / 2)) * np.random.default_rng(seed).uniform(0.2, 1, rows * cols)
    return pd.DataFrame(
        {
            "id": [f"e/{r}-{c}" for r, c in zip(row, col, strict=True)],
            "item": "scene",
            "grid": "scene",
            "row": row,
            "col": col,
            "wet_share": wet,
            "valid_share": 1.0,
        }
    )


def test_parts_of_a_grid_are_apart_by_the_guard_and_of_the_asked_size() -> None:
    index = grid(12, 10)
    split = split_event(event(), index, PARAMS)
    shares = split.value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.05)
    assert shares["val"] == pytest.approx(0.15, abs=0.05)
    assert shares["train"] >= 0.4
    places = {part: index.loc[split == part, ["row", "col"]].to_numpy() for part in PARTS}
    for one in PARTS:
        for other in PARTS:
            if one < other:
                steps = np.abs(places[one][:, None] - places[other][None]).max(axis=-1)
                assert steps.min() > PARAMS.guard_patches


def test_parts_are_about_as_wet_as_the_event() -> None:
    index = grid(12, 10)
    split = split_event(event(), index, PARAMS)
    mean = index["wet_share"].mean()
    for part in PARTS:
        assert index.loc[split == part, "wet_share"].mean() == pytest.approx(mean, rel=0.5)


def test_the_same_event_is_always_split_alike_whatever_the_row_order() -> None:
    index = grid(9, 9)
    split = split_event(event(), index, PARAMS)
    shuffled = index.sample(frac=1, random_state=1)
    again = split_event(event(), shuffled, PARAMS)
    assert dict(zip(index["id"], split, strict=True)) == dict(
        zip(shuffled["id"], again, strict=True)
    )


def test_patches_without_a_grid_are_split_by_runs_of_their_order() -> None:
    index = grid(1, 100).assign(grid=None, item=[f"{n:03}" for n in range(100)])
    split = split_event(event(), index, PARAMS).tolist()
    changes = sum(left != right for left, right in pairwise(split))
    assert changes <= 8
    assert {"train", "val", "test", "guard"} == set(split)


def test_all_patches_of_a_chip_are_in_one_part() -> None:
    index = grid(1, 120).assign(grid=[f"chip{n // 4:02}" for n in range(120)])
    split = split_event(event(), index, PARAMS)
    assert (split.groupby(index["grid"]).nunique() == 1).all()


def test_held_out_and_unlabelled_patches_never_train() -> None:
    index = grid(8, 8)
    assert set(split_event(event(hold_out=True), index, PARAMS)) == {"held_out"}
    assert set(split_event(event(), index.assign(wet_share=np.nan), PARAMS)) == {"unlabelled"}


def test_a_dry_event_is_split_too() -> None:
    split = split_event(event(), grid(8, 8).assign(wet_share=0.0), PARAMS)
    assert set(PARTS) <= set(split)


def test_an_event_too_small_to_be_kept_apart_is_for_training() -> None:
    assert set(split_event(event(), grid(1, 2), PARAMS)) == {"train"}


@pytest.mark.parametrize("scenes", [2, 5])
def test_a_few_scenes_are_cut_alike(scenes: int) -> None:
    """Two dates of one place share rows and columns, so that no ground is in two parts."""
    parts = [grid(12, 10, seed).assign(grid=f"scene{seed}") for seed in range(scenes)]
    index = pd.concat(parts, ignore_index=True)
    split = split_event(event(), index, PARAMS)
    assert split.value_counts(normalize=True)["train"] >= 0.4
    assert {"train", "val", "test"} <= set(split)
    assert (split.groupby([index["row"], index["col"]]).nunique() == 1).all()
