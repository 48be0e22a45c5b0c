from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sarflood.patches.sketch import near_duplicates, sketch
from sarflood.sources.backscatter import simulate_window
from sarflood.sources.landscape import Landscape
from sarflood.sources.readers import recognise

SCENE = simulate_window(Landscape(3, 2048), 0, 0, 1024, 1024).after[0]


def cut(values: np.ndarray, shift: int = 0) -> pd.DataFrame:
    """Sketch 3×3 patches of a scene, each shifted by some rows and columns."""
    rows = []
    for row in range(3):
        for col in range(3):
            top, left = 256 * row + shift, 256 * col + shift // 2
            patch = values[top : top + 256, left : left + 256].astype(np.float32)
            rows.append({"id": f"{row}-{col}", "sketch": sketch(patch)})
    return pd.DataFrame(rows)


def grey(decibel: np.ndarray) -> np.ndarray:
    return np.clip(np.round((decibel + 30) * 8), 0, 255)


def amplitude(decibel: np.ndarray) -> np.ndarray:
    return 10 ** (decibel / 20)


@pytest.mark.parametrize("shift", [0, 16, 64, 100])
@pytest.mark.parametrize("stretched", [np.asarray, grey, amplitude])
def test_shifted_and_stretched_copies_are_found(shift: int, stretched: object) -> None:
    assert callable(stretched)
    found = near_duplicates(cut(stretched(SCENE), shift), cut(SCENE))
    own = found[found["first"] == found["second"]]
    assert len(own) == 9
    assert (own["overlap"] > 0.15).all()


def test_the_overlap_falls_with_the_shift() -> None:
    overlaps = []
    for shift in (0, 32, 96):
        found = near_duplicates(cut(SCENE, shift), cut(SCENE))
        overlaps.append(found.loc[found["first"] == found["second"], "overlap"].mean())
    assert overlaps[0] == 1.0
    assert overlaps[0] > overlaps[1] > overlaps[2]


def test_neighbours_and_other_dates_of_a_place_are_no_copies() -> None:
    before = simulate_window(Landscape(3, 2048), 0, 0, 1024, 1024).before[0]
    assert near_duplicates(cut(SCENE)).empty
    assert near_duplicates(cut(SCENE), cut(before)).empty


def test_a_pair_within_a_table_is_told_once() -> None:
    table = pd.concat([cut(SCENE), cut(grey(SCENE)).assign(id=lambda t: "grey-" + t["id"])])
    found = near_duplicates(table.reset_index(drop=True))
    assert len(found) == 9
    assert (("grey-" + found["first"]) == found["second"]).all()


@pytest.mark.parametrize("value", [np.nan, 7.0])
def test_where_there_is_nothing_to_see_there_is_no_copy(value: float) -> None:
    empty = sketch(np.full((256, 256), value, np.float32))
    assert empty == b""
    table = pd.DataFrame({"id": ["a", "b"], "sketch": [empty, empty]})
    assert near_duplicates(table).empty


def test_a_pattern_that_is_everywhere_makes_no_pairs() -> None:
    pattern = np.tile(SCENE[:16, :16], (16, 16)).astype(np.float32)
    table = pd.DataFrame({"id": [str(n) for n in range(200)], "sketch": [sketch(pattern)] * 200})
    assert near_duplicates(table).empty


@pytest.mark.realdata
@pytest.mark.parametrize("source", ["etci2021/northal_20190302t234651", "ombria/test"])
def test_real_patches_are_told_from_each_other_and_found_again(
    real_data: Path, source: str
) -> None:
    root = real_data / source
    reader = recognise(root)
    patches = [patch for item in reader.items(root) for patch in reader.read(item)]
    table = pd.DataFrame({"id": [p.name for p in patches], "sketch": [b""] * len(patches)})
    table["sketch"] = [sketch(patch.image[0]) for patch in patches]
    assert near_duplicates(table).empty
    copies = table.copy()
    copies["sketch"] = [
        sketch(np.round(255 * (np.roll(p.image[0], 70, 0) / 255) ** 0.7)) for p in patches
    ]
    found = near_duplicates(copies, table)
    assert (found["first"] == found["second"]).sum() == len(patches)
    assert (found["first"] != found["second"]).sum() == 0
