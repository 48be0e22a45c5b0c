from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_events import constant_model, make_events, make_split, random_model

from sarflood.errors import InputError
from sarflood.evaluation.evaluate import evaluate, read_patches
from sarflood.evaluation.recorded import write_recorded
from sarflood.model.inputs import Scaling
from sarflood.model.package import FloodModel
from sarflood.patches.store import EventPatches


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[EventPatches]:
    return make_events(tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="module")
def split(events: list[EventPatches]) -> pd.DataFrame:
    return make_split(events)


@pytest.fixture
def model() -> FloodModel:
    return random_model()


def test_the_model_is_scored_on_the_test_patches_of_all_labelled_events(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    found = evaluate(model, events, split)
    hits = alarms = misses = 0
    for patches in (events[0], events[2]):
        first = 4 if patches.event.id == "east" else 1
        assert patches.masks is not None
        for image, truth in zip(patches.images[first:], patches.masks[first:], strict=True):
            predicted = model.masks(model.probabilities(image[None]))[0]
            hits += int(((predicted == 1) & (truth == 1)).sum())
            alarms += int(((predicted == 1) & (truth == 0)).sum())
            misses += int(((predicted == 0) & (truth == 1)).sum())
    assert hits
    assert alarms
    assert misses
    test = found.metrics["test"]
    assert test["iou"] == pytest.approx(hits / (hits + alarms + misses), abs=1e-4)
    assert test["patches"] == 23
    assert set(found.metrics["events"]) == {"east", "west"}
    assert found.metrics["events"]["east"]["patches"] == 20
    json.dumps(found.metrics, allow_nan=False)


def test_a_held_out_event_is_scored_apart_and_changes_nothing_else(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame, tmp_path: Path
) -> None:
    is_east = split["event"] == "east"
    found = evaluate(model, events, split.assign(split=split["split"].mask(is_east, "held_out")))
    without = evaluate(model, events, split[~is_east])
    assert set(found.metrics["events"]) == {"west"}
    assert without.metrics["held_out"] == {}
    assert found.metrics | {"held_out": {}} == without.metrics
    pd.testing.assert_frame_equal(found.precision_recall, without.precision_recall)
    pd.testing.assert_frame_equal(found.test_patches, without.patches)
    held_out = found.patches[found.patches["part"] == "held_out"]
    assert set(held_out["event"]) == {"east"}
    assert set(found.metrics["held_out"]) == {"east"}
    figures = found.metrics["held_out"]["east"]
    assert figures.keys() == found.metrics["test"].keys()
    assert figures["patches"] == len(held_out) == 24
    tested = evaluate(model, events, split.assign(split=split["split"].mask(is_east, "test")))
    assert figures["iou"] == tested.metrics["events"]["east"]["iou"]
    for name, patches in (("a.npz", found.patches), ("b.npz", without.patches)):
        write_recorded(tmp_path / name, model, events, patches)
    with np.load(tmp_path / "a.npz") as recorded, np.load(tmp_path / "b.npz") as expected:
        np.testing.assert_array_equal(recorded["images"], expected["images"])


@pytest.mark.parametrize("event", ["2019", "007", "null", "1e5", "nan"])
def test_the_table_of_patches_survives_csv(
    events: list[EventPatches], split: pd.DataFrame, event: str, tmp_path: Path
) -> None:
    patches = evaluate(constant_model(-9.0), events, split).patches
    assert patches["iou"].isna().any()
    patches["event"] = event
    patches.to_csv(tmp_path / "patches.csv", index=False)
    pd.testing.assert_frame_equal(read_patches(tmp_path / "patches.csv"), patches)


def test_a_table_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"patches\.csv: cannot be read"):
        read_patches(tmp_path / "patches.csv")


def test_pixels_without_data_or_label_are_not_scored(
    events: list[EventPatches], split: pd.DataFrame
) -> None:
    test = evaluate(constant_model(9.0), events, split).metrics["test"]
    labelled = 256 * 256 - 20 * 10 - 30 * 40
    assert test["pixels"] == 23 * labelled
    assert test["recall"] == 1.0
    assert test["precision"] == pytest.approx(test["wet_share"])
    assert test["iou"] == pytest.approx(test["wet_share"])


def test_baselines_are_scored_beside_the_model_on_the_same_pixels(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    found = evaluate(model, events, split)
    test = found.metrics["test"]
    assert -19 < found.metrics["fitted_threshold"] < -9
    assert test["fitted_threshold_iou"] > 0.85  # lakes 10 dB below the land
    assert test["otsu_iou"] < test["fitted_threshold_iou"]  # Otsu parts dry patches too
    for prefix in ("otsu_", "fitted_threshold_"):
        counts = found.patches[[f"{prefix}{name}" for name in ("tp", "fp", "fn", "tn")]]
        own = found.patches[["tp", "fp", "fn", "tn"]]
        np.testing.assert_array_equal(counts.sum(axis=1), own.sum(axis=1))
        assert {f"{prefix}{name}" for name in ("f1", "precision", "recall")} <= set(test)


def test_the_baseline_is_fitted_on_training_patches_alone(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    few_tests = split.assign(
        split=split["split"].mask((split["split"] == "test") & (split.index % 2 == 0), "guard")
    )
    fitted = [evaluate(model, events, s).metrics["fitted_threshold"] for s in (split, few_tests)]
    assert fitted[0] == fitted[1]


def test_a_dry_patch_that_is_called_dry_has_no_iou_and_spoils_no_pooled_one(
    events: list[EventPatches], split: pd.DataFrame
) -> None:
    found = evaluate(constant_model(-9.0), events, split)
    dry = found.patches.set_index("id").loc["east/p05"]
    assert np.isnan(dry["iou"])
    assert dry["tp"] + dry["fn"] == 0
    assert found.metrics["test"]["iou"] == 0.0
    assert found.metrics["test"]["precision"] is None


def test_figures_of_single_patches_are_averaged_over_those_that_have_one(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    found = evaluate(model, events, split)
    test, patches = found.metrics["test"], found.patches
    assert test["patch_iou"] == pytest.approx(patches["iou"].mean())
    wet = patches["tp"] / patches[["tp", "fp", "fn"]].sum(axis=1)
    dry = patches["tn"] / patches[["tn", "fp", "fn"]].sum(axis=1)
    both = pd.concat([wet, dry], axis=1).mean(axis=1)
    assert test["patch_mean_iou"] == pytest.approx(both.mean())
    called_dry = evaluate(constant_model(-9.0), events, split).metrics["test"]
    assert called_dry["patch_iou"] == 0.0, "dry patches that are called dry have none"


def test_the_lakes_of_the_fitted_threshold_have_their_borders_in_place(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    test = evaluate(model, events, split).metrics["test"]
    assert test["fitted_threshold_boundary_f1"] > 0.9
    assert 0 < test["fitted_threshold_boundary_distance_px"] < 3
    assert test["boundary_f1"] < test["fitted_threshold_boundary_f1"]
    assert test["boundary_distance_m"] is None, "nothing says how large a pixel is"


def test_distances_of_borders_are_told_in_metres_where_there_is_a_georeference(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    transforms = [f"[20.0, 0, {500_000 + 5120 * n}, 0, -20.0, 1600000]" for n in range(40)]
    placed = [
        replace(e, index=e.index.assign(crs="EPSG:32651", transform=transforms[: len(e.index)]))
        for e in events
    ]
    test = evaluate(model, placed, split).metrics["test"]
    assert test["boundary_distance_m"] == pytest.approx(20 * test["boundary_distance_px"], rel=0.01)


def test_intervals_hold_the_figure_and_are_drawn_from_blocks_of_ground(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    found = evaluate(model, events, split)
    test = found.metrics["test"]
    for name in ("iou", "fitted_threshold_iou", "otsu_f1"):
        assert test[f"{name}_low"] < test[name] < test[f"{name}_high"], name
    assert test["blocks"] == found.patches["block"].nunique() <= 23
    wetter = found.metrics["wet_shares"]["to_20"]
    assert wetter["iou_low"] < wetter["iou"] < wetter["iou_high"]
    assert wetter["blocks"] < test["blocks"]
    of_event = found.patches.groupby("block")["event"].nunique()
    assert (of_event == 1).all(), "a block lies in one event"
    grid = [e.index.assign(grid="g", row=0, col=range(len(e.index))) for e in events]
    on_grid = [replace(e, index=index) for e, index in zip(events, grid, strict=True)]
    east = evaluate(model, on_grid, split).patches.query("event == 'east'")
    assert east.groupby("block").size().tolist() == [2] * 10


def test_a_model_that_knows_nothing_is_off_by_what_is_wet(
    events: list[EventPatches], split: pd.DataFrame
) -> None:
    found = evaluate(constant_model(0.0), events, split)
    test = found.metrics["test"]
    assert test["ece"] == pytest.approx(0.5 - test["wet_share"], abs=0.002)
    assert found.reliability["pixels"].tolist() == [test["pixels"]]


def test_patches_are_told_apart_by_their_wet_share(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    found = evaluate(model, events, split)
    classes = found.metrics["wet_shares"]
    assert classes["0"]["patches"] == 5
    assert classes["0"]["recall"] is None
    assert sum(item["patches"] for item in classes.values()) == 23
    assert 0.01 < classes["to_5"]["wet_share"] < 0.05 < classes["to_20"]["wet_share"] < 0.2


def test_what_lies_outside_permanent_water_is_scored_apart(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    assert evaluate(model, events, split).metrics["outside_permanent_water"] is None
    east = events[0]
    assert east.masks is not None
    water = np.zeros_like(east.masks)
    water[:, :128] = east.masks[:, :128] == 1
    knowing = [replace(east, permanent_water=water), *events[1:]]
    metrics = evaluate(model, knowing, split).metrics
    outside = metrics["outside_permanent_water"]
    truth, all_water = east.masks[4:], water[4:]
    assert outside["pixels"] == int(((truth != 255) & (all_water == 0)).sum())
    assert outside["fitted_threshold_iou"] > 0.8
    assert outside["iou"] < metrics["events"]["east"]["iou"]
    assert outside["iou_low"] < outside["iou"] < outside["iou_high"] < metrics["test"]["iou_high"]
    assert metrics["test"] == evaluate(model, events, split).metrics["test"]


def test_the_precision_recall_curve_passes_the_operating_point(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    found = evaluate(model, events, split)
    curve = found.precision_recall
    assert list(curve.columns) == ["threshold", "precision", "recall"]
    assert curve["recall"].is_monotonic_decreasing
    assert curve["recall"].iloc[0] == 1.0
    point = curve.set_index("threshold").loc[model.manifest.threshold]
    assert point["precision"] == pytest.approx(found.metrics["test"]["precision"])
    assert point["recall"] == pytest.approx(found.metrics["test"]["recall"])


def test_progress_is_told_and_ends_at_the_whole(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    told: list[tuple[int, int]] = []
    evaluate(model, events, split, lambda done, total: told.append((done, total)))
    assert told == [(16, 23), (20, 23), (23, 23)]


def test_a_model_with_fewer_bands_sees_its_own(
    events: list[EventPatches], split: pd.DataFrame
) -> None:
    swapped = constant_model(9.0)
    swapped.manifest = swapped.manifest.model_copy(update={"bands": ("vh", "vv")})
    seen: list[float] = []
    answer = swapped.probabilities

    def watched(images: np.ndarray, scaling: Scaling | None = None) -> np.ndarray:
        seen.append(float(np.nanmean(images[:, 0].astype(np.float32))))
        return answer(images, scaling)

    swapped.probabilities = watched  # type: ignore[method-assign]
    evaluate(swapped, events, split)
    vh = np.nanmean(events[0].images[4:20, 1].astype(np.float32))
    assert seen[0] == pytest.approx(vh, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": ("vv", "vv_pre")}, "event east: has the bands vv, vh, the model also needs"),
        ({"units": "uint8"}, "event east: is in db, the model was trained on uint8"),
    ],
)
def test_an_event_that_does_not_fit_the_model_is_named(
    events: list[EventPatches], split: pd.DataFrame, change: dict[str, object], message: str
) -> None:
    model = constant_model(0.0)
    model.manifest = model.manifest.model_copy(update=change)
    with pytest.raises(InputError, match=message):
        evaluate(model, events, split)


def test_a_test_split_without_labelled_pixels_is_refused(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    with pytest.raises(InputError, match="no labelled pixel in any test patch"):
        evaluate(model, events, split[split["split"] == "train"])
    assert events[2].masks is not None
    blank = replace(events[2], masks=np.full_like(events[2].masks, 255))
    with pytest.raises(InputError, match="no labelled pixel in any test patch"):
        evaluate(model, [blank], split)


def test_recorded_examples_hold_the_models_own_answers(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame, tmp_path: Path
) -> None:
    found = evaluate(model, events, split)
    for name in ("a.npz", "b.npz"):
        write_recorded(tmp_path / name, model, events, found.patches.sample(frac=1))
    with np.load(tmp_path / "a.npz") as recorded, np.load(tmp_path / "b.npz") as again:
        images, masks = recorded["images"], recorded["masks"]
        np.testing.assert_array_equal(again["images"], images)
    assert (images.shape, images.dtype) == ((4, 2, 256, 256), np.float16)
    assert (masks.shape, masks.dtype) == ((4, 256, 256), np.uint8)
    np.testing.assert_array_equal(masks, model.masks(model.probabilities(images)))
    assert (masks[:, :20, :10] == 255).all()
    wettest = found.patches.assign(wet=found.patches["tp"] + found.patches["fn"]).nlargest(2, "wet")
    stored = events[0 if wettest["event"].iloc[0] == "east" else 2]
    np.testing.assert_array_equal(images[0], stored.images[wettest["position"].iloc[0]])


def test_fewer_patches_than_wanted_are_recorded_once_each(
    model: FloodModel, events: list[EventPatches], split: pd.DataFrame, tmp_path: Path
) -> None:
    found = evaluate(model, events, split)
    write_recorded(tmp_path / "one.npz", model, events, found.patches.iloc[:1])
    with np.load(tmp_path / "one.npz") as recorded:
        assert recorded["images"].shape[0] == 1
