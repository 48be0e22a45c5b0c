from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from sarflood.errors import InputError
from sarflood.params import SplitParams
from sarflood.patches.ground import footprints, overlaps
from sarflood.patches.sketch import sketch
from sarflood.patches.split import split_events
from sarflood.patches.store import EventPatches
from sarflood.sources.event import Event, Origin

PARAMS = SplitParams(val_share=0.15, test_share=0.2, guard_patches=1, leave_out=())
PARTS = ("train", "val", "test")


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
            "crs": None,
            "transform": None,
            "sketch": b"",
        }
    )


def at(index: pd.DataFrame, east_m: float = 0.0) -> pd.DataFrame:
    """Give a grid its place on the ground, in UTM."""
    where = [
        Affine(10, 0, 300_000 + east_m + 2560 * col, 0, -10, 1_800_000 - 2560 * row)
        for row, col in zip(index["row"], index["col"], strict=True)
    ]
    texts = [json.dumps(list(affine)[:6]) for affine in where]
    return index.assign(crs="EPSG:32651", transform=texts)


def event(
    index: pd.DataFrame,
    name: str = "e",
    number: int = 1,
    *,
    hold_out: bool = False,
    images: np.ndarray | None = None,
) -> EventPatches:
    manifest = Event(
        id=name,
        name=name,
        bands=("vv",),
        units="db",
        label="flood" if index["wet_share"].notna().any() else None,
        source=Origin(name="test"),
        hold_out=hold_out,
        number=number,
    )
    ids = index["id"].str.replace("e/", f"{name}/")
    if images is None:
        images = np.zeros((len(index), 1, 8, 8), np.float16)
    masks = None if manifest.label is None else np.zeros((len(index), 8, 8), np.uint8)
    return EventPatches(manifest, index.assign(id=ids, event=name), images, masks)


def split(*events: EventPatches, params: SplitParams = PARAMS) -> pd.Series:
    table = split_events(events, params)
    assert table["id"].tolist() == [name for item in events for name in item.index["id"]]
    return table["split"]


def apart(places: Iterable[np.ndarray]) -> int:
    arrays = list(places)
    return min(
        int(np.abs(one[:, None] - other[None]).max(axis=-1).min())
        for number, one in enumerate(arrays)
        for other in arrays[:number]
    )


def test_parts_of_a_grid_are_apart_by_the_guard_and_of_the_asked_size() -> None:
    index = grid(12, 10)
    parts = split(event(index))
    shares = parts.value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.05)
    assert shares["val"] == pytest.approx(0.15, abs=0.05)
    assert shares["train"] >= 0.4
    places = [index.loc[parts == part, ["row", "col"]].to_numpy() for part in PARTS]
    assert apart(places) > PARAMS.guard_patches


def test_parts_are_about_as_wet_as_the_event() -> None:
    index = grid(12, 10)
    parts = split(event(index))
    mean = index["wet_share"].mean()
    for part in PARTS:
        assert index.loc[parts == part, "wet_share"].mean() == pytest.approx(mean, rel=0.5)


@pytest.mark.parametrize("seed", range(6))
def test_parts_of_places_of_unlike_size_and_wetness_are_as_wet_as_the_event(seed: int) -> None:
    random = np.random.default_rng(seed)
    place = np.repeat(np.arange(60), np.ceil(random.lognormal(1.5, 1.2, 60)).astype(np.int64))
    index = grid(len(place), 1).assign(
        grid=[f"chip-{number}" for number in place],
        wet_share=random.lognormal(-2, 1, 60).clip(max=1)[place],
    )
    parts = split(event(index))
    wet = index.groupby(parts)["wet_share"].mean() / index["wet_share"].mean()
    assert wet[list(PARTS)].between(0.97, 1.03).all()
    assert parts.eq("test").mean() == pytest.approx(0.2, abs=0.01)


def test_the_same_grid_is_always_split_alike_whatever_the_row_order() -> None:
    index = grid(9, 9)
    shuffled = index.sample(frac=1, random_state=1)
    once, again = split(event(index)), split(event(shuffled))
    assert dict(zip(index["id"], once, strict=True)) == dict(
        zip(shuffled["id"], again, strict=True)
    )


def test_all_patches_of_a_chip_are_in_one_part() -> None:
    index = grid(1, 120).assign(grid=[f"chip{n // 4:02}" for n in range(120)])
    parts = split(event(index))
    assert (parts.groupby(index["grid"]).nunique() == 1).all()
    assert set(PARTS) <= set(parts)


def speckle(count: int, height: int = 256, width: int = 256) -> np.ndarray:
    rng = np.random.default_rng(5)
    return 10 * np.log10(rng.gamma(4.4, 1 / 4.4, (count, height, width)).astype(np.float32))


def test_patches_without_a_place_are_split_by_scenes_that_their_edges_tell() -> None:
    """Ten mosaics of 2×3 patches, in no order at all: none may be cut."""
    scene = np.repeat(np.arange(10), 6)
    order = np.random.default_rng(0).permutation(60)
    index = grid(1, 60).assign(grid=None)
    parts = split(event(index, images=mosaics(order)))
    assert (parts.groupby(scene[order]).nunique() == 1).all()
    assert set(PARTS) <= set(parts)


def test_scenes_are_named_as_edges_and_grids_tell() -> None:
    order = np.random.default_rng(0).permutation(24)
    loose = event(grid(1, 24).assign(grid=None), "a", 1, images=mosaics(order))
    whole = event(grid(4, 8), "b", 2)
    table = split_events([loose, whole], PARAMS)
    mosaic = pd.Series(np.repeat(np.arange(4), 6)[order])
    scenes = table["scene"][:24]
    assert scenes.nunique() == 4
    assert (scenes.groupby(mosaic).nunique() == 1).all()
    assert set(table["scene"][24:]) == {"b/0"}


def test_scenes_too_large_for_a_part_are_cut() -> None:
    """Four mosaics of six patches: one would do for testing, but none for validation."""
    index = grid(1, 24).assign(grid=None)
    parts = split(event(index, images=mosaics(np.arange(24))))
    assert set(PARTS) <= set(parts)


def test_a_single_mosaic_without_a_place_is_cut_where_its_edges_tell() -> None:
    """As the tiles of one scene whose georeference was lost: 6 rows of 8."""
    field = gaussian_filter(np.random.default_rng(3).normal(0, 40, (6 * 256, 8 * 256)), 4)
    row, col = (axis.ravel() for axis in np.mgrid[:6, :8])
    order = np.random.default_rng(0).permutation(48)
    row, col = row[order], col[order]
    images = np.stack(
        [
            field[256 * r : 256 * r + 256, 256 * c : 256 * c + 256]
            for r, c in zip(row, col, strict=True)
        ]
    )
    index = grid(6, 8).iloc[order].assign(grid=None)
    parts = split(event(index, images=images[:, None].astype(np.float16))).to_numpy()
    assert set(PARTS) <= set(parts)
    places = np.column_stack([row, col])
    assert apart([places[parts == part] for part in PARTS]) > PARAMS.guard_patches


def test_chips_of_one_mosaic_are_cut_by_the_ground_that_they_cover() -> None:
    """Single files with a georeference, side by side: no grid says so."""
    index = at(grid(12, 10)).assign(grid=None)
    parts = split(event(index))
    assert set(PARTS) <= set(parts)
    places = [index.loc[parts == part, ["row", "col"]].to_numpy() for part in PARTS]
    assert apart(places) > PARAMS.guard_patches


def mosaics(order: np.ndarray) -> np.ndarray:
    """Tiles of smooth random fields, so that neighbours continue each other at their edges."""
    rng = np.random.default_rng(5)
    fields = [gaussian_filter(rng.normal(0, 40, (512, 768)), 4) for _ in range(10)]
    tiles = [
        field[top : top + 256, left : left + 256]
        for field in fields
        for top in (0, 256)
        for left in (0, 256, 512)
    ]
    images: np.ndarray = np.stack(tiles)[order][:, None].astype(np.float16)
    return images


def test_near_copies_are_never_in_two_parts() -> None:
    noise = speckle(60)
    sketches = [sketch(image) for image in noise]
    for number in range(30):  # patch 30 + n shows what patch n shows, a quarter shifted
        sketches[30 + number] = sketch(np.roll(noise[number], 64, axis=0))
    index = grid(1, 60).assign(
        sketch=sketches, grid=None, crs="EPSG:32651", transform=at(grid(1, 60))["transform"]
    )
    index["transform"] = [
        json.dumps([10.0, 0.0, 3e5 + 9e3 * number, 0.0, -10.0, 1.8e6]) for number in range(60)
    ]
    parts = split(event(index)).to_numpy()
    assert (parts[:30] == parts[30:]).all()
    assert set(PARTS) <= set(parts)


def test_held_out_and_unlabelled_patches_never_train() -> None:
    index = grid(8, 8)
    assert set(split(event(index, hold_out=True))) == {"held_out"}
    assert set(split(event(index.assign(wet_share=np.nan)))) == {"unlabelled"}


def test_a_dry_event_is_split_too() -> None:
    assert set(PARTS) <= set(split(event(grid(8, 8).assign(wet_share=0.0))))


def test_an_event_too_small_to_be_kept_apart_is_for_training() -> None:
    assert set(split(event(grid(1, 2)))) == {"train"}


@pytest.mark.parametrize("scenes", [2, 5])
def test_a_few_scenes_are_cut_alike(scenes: int) -> None:
    """Two dates of one place share rows and columns, so that no ground is in two parts."""
    parts = [grid(12, 10, seed).assign(grid=f"scene{seed}") for seed in range(scenes)]
    index = pd.concat(parts, ignore_index=True)
    index["id"] = [f"e/{number}" for number in range(len(index))]
    found = split(event(index))
    assert found.value_counts(normalize=True)["train"] >= 0.4
    assert set(PARTS) <= set(found)
    assert (found.groupby([index["row"], index["col"]]).nunique() == 1).all()


def test_a_new_event_follows_the_split_of_the_ground_that_it_shows_again() -> None:
    first, second = event(at(grid(12, 10))), event(at(grid(12, 10, 1)), "f", 2)
    parts = split(first, second)
    assert parts[:120].tolist() == parts[120:].tolist()


def test_of_a_new_event_that_overlaps_an_old_one_no_test_ground_trains() -> None:
    first = event(at(grid(12, 10)))
    second = event(at(grid(12, 10, 1), east_m=5 * 2560 + 700), "f", 2)
    parts = split(first, second).to_numpy()
    east_1 = np.array([json.loads(text)[2] for text in first.index["transform"]])
    east_2 = np.array([json.loads(text)[2] for text in second.index["transform"]])
    rows_1, rows_2 = (item.index["row"].to_numpy() for item in (first, second))
    for place, (row, east) in enumerate(zip(rows_2, east_2, strict=True)):
        same = (rows_1 == row) & (np.abs(east_1 - east) < 2500)
        kinds = {*parts[:120][same], parts[120 + place]} & set(PARTS)
        assert len(kinds) <= 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 12), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_a_new_event_never_moves_a_patch_of_an_earlier_one(
    shapes: list[tuple[int, int, int, bool]],
) -> None:
    events = []
    for number, (rows, cols, east, placed) in enumerate(shapes, start=1):
        index = grid(rows, cols, number)
        index = at(index, east * 1280.0) if placed else index
        events.append(event(index, f"e{number}", number))
    before = pd.Series(dtype=str)
    for count in range(1, len(events) + 1):
        table = split_events(events[:count][::-1], PARAMS).set_index("id")["split"]
        assert (table.loc[before.index] == before).all()
        before = table


def test_a_left_out_event_is_all_test_and_the_others_train() -> None:
    params = PARAMS.model_copy(update={"leave_out": ("f",)})
    first, second = event(grid(12, 10)), event(grid(6, 6), "f", 2)
    parts = split(first, second, params=params)
    assert set(parts[120:]) == {"test"}
    assert "test" not in set(parts[:120])
    assert {"train", "val"} <= set(parts[:120])
    with pytest.raises(InputError, match=r"leave_out names 'g'; labelled events are e, f"):
        split(first, second, params=PARAMS.model_copy(update={"leave_out": ("g",)}))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.integers(1, 9),
            st.integers(0, 24),
            st.sampled_from(["labelled", "held out", "unlabelled", "chips"]),
        ),
        min_size=2,
        max_size=5,
    ),
    st.integers(0, 2),
    st.booleans(),
)
def test_nothing_scored_is_nearer_to_training_than_the_guard(
    shapes: list[tuple[int, int, int, str]], guard: int, leave_out: bool
) -> None:
    events = []
    for number, (rows, cols, east, kind) in enumerate(shapes, start=1):
        index = at(grid(rows, cols, number), east * 1280.0)
        if kind == "unlabelled":
            index = index.assign(wet_share=np.nan)
        if kind == "chips":
            index = index.assign(grid=None)
        events.append(event(index, f"e{number}", number, hold_out=kind == "held out"))
    left_out = ("e1",) if leave_out and shapes[0][3] != "unlabelled" else ()
    params = PARAMS.model_copy(update={"guard_patches": guard, "leave_out": left_out})
    table = pd.concat([item.index for item in events], ignore_index=True)
    table["split"] = split_events(events, params)["split"]
    trained = table[table["split"] == "train"]
    scored = table[table["split"].isin(["val", "test", "held_out"])]
    near, _ = overlaps(footprints(scored, guard), footprints(trained, guard))
    assert not len(near)
    if left_out:
        assert set(table.loc[table["split"] == "test", "event"]) <= {"e1"}


def test_nothing_that_a_left_out_event_shows_trains() -> None:
    params = PARAMS.model_copy(update={"leave_out": ("f",)})
    first, second = event(at(grid(12, 10))), event(at(grid(6, 10), 0), "f", 2)
    parts = split(first, second, params=params)
    on_its_ground = first.index["row"].to_numpy() < 6
    assert not {"train", "val"} & set(parts[:120][on_its_ground])
    assert "train" in set(parts[:120][~on_its_ground])


def test_ground_is_not_torn_at_the_antimeridian() -> None:
    """Fiji lies where longitudes change their sign."""
    fiji = Affine(10, 0, 818_600, 0, -10, 8_140_000)
    moved = fiji @ Affine.translation(-128, 0)
    index = pd.DataFrame(
        {"crs": "EPSG:32760", "transform": [json.dumps(list(at)[:6]) for at in (fiji, moved)]}
    )
    outlines = footprints(index)
    west, _, eastmost, _ = outlines[0].bounds
    assert west < 180 < eastmost < 181
    assert [pair.tolist() for pair in overlaps(outlines[:1], outlines[1:])] == [[0], [0]]
