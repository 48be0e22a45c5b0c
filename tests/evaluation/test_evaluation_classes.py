"""Evaluation on land cover of several classes: of each class, and of water as ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_events import manifest, random_model
from landcover import CLASSES, land_cover
from tiny import network_params

from sarflood.evaluation.baselines import fit_threshold
from sarflood.evaluation.confusion import class_ious, count, count_classes
from sarflood.evaluation.evaluate import evaluate
from sarflood.evaluation.figures import verdict_image
from sarflood.model.advice import look_at
from sarflood.model.histogram import count_pixels
from sarflood.model.package import FloodModel
from sarflood.model.unet import UNet
from sarflood.patches.store import EventPatches, PatchWriter, open_events
from sarflood.sources.event import Event, Origin
from sarflood.sources.reader import RawPatch


def write_event(folder: Path, *, classes: bool) -> None:
    """Four patches of land cover with their classes, or with the water of them alone."""
    event = Event(
        id="po",
        name="Po",
        bands=("vv", "vh"),
        units="db",
        label="water",
        classes=CLASSES if classes else None,
        source=Origin(name="synthetic"),
    )
    folder.mkdir(parents=True)
    with PatchWriter(folder, event) as writer:
        for seed in range(4):
            image, mask = land_cover(256, seed)
            mask = mask if classes else (mask == 1).astype(np.uint8)
            image[0, :20, :10] = np.nan
            mask[-30:, -40:] = 255
            writer.add(RawPatch(f"p{seed}", image, mask), item=f"p{seed}")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[EventPatches]]:
    found = {}
    for name in ("classes", "water"):
        folder = tmp_path_factory.mktemp(name)
        write_event(folder / "po", classes=name == "classes")
        found[name] = open_events(folder)
    return found


@pytest.fixture(scope="module")
def model() -> FloodModel:
    """Random weights; each class is said somewhere."""
    torch.manual_seed(0)
    network = UNet(2, network_params(width=2, depth=1), 4).eval()
    model = FloodModel(manifest().model_copy(update={"classes": CLASSES}), network)
    with torch.inference_mode():
        images = model.normalise(land_cover(256)[0][None])
        network.head.weight *= 4 / network(images).std()
        network.head.get_parameter("bias").sub_(network(images).mean(dim=(0, 2, 3)))
    return model


def split_of(events: list[EventPatches], last: str = "test") -> pd.DataFrame:
    index = events[0].index[["id", "event"]]
    return index.assign(split=["train", "test", "test", last])


def test_water_is_judged_as_if_there_were_no_other_classes(
    model: FloodModel, events: dict[str, list[EventPatches]]
) -> None:
    found, plain = (
        evaluate(model, events[name], split_of(events[name])) for name in ("classes", "water")
    )
    assert 0 < found.metrics["test"]["iou"] < 1
    assert found.metrics | {"classes": None} == plain.metrics | {"classes": None}
    pd.testing.assert_frame_equal(found.patches, plain.patches)
    pd.testing.assert_frame_equal(found.reliability, plain.reliability)
    pd.testing.assert_frame_equal(found.precision_recall, plain.precision_recall)


def test_each_class_has_its_iou_on_all_test_pixels_alone(
    model: FloodModel, events: dict[str, list[EventPatches]]
) -> None:
    opened = events["classes"][0]
    metrics = evaluate(model, [opened], split_of([opened], last="held_out")).metrics
    assert opened.masks is not None
    truth, images = opened.masks[1:3], opened.images[1:3]
    said = np.concatenate([model.classes(image[None]) for image in images])
    known = (truth != 255) & np.isfinite(images).all(axis=1)
    ious = []
    for code, name in enumerate(CLASSES):
        one, other = (said == code) & known, (truth == code) & known
        assert one.any(), name
        ious.append((one & other).sum() / (one | other).sum())
        assert metrics["classes"][name] == pytest.approx(ious[-1]), name
    assert metrics["classes"]["mean"] == pytest.approx(np.mean(ious))
    assert set(metrics["classes"]) == {*CLASSES, "mean"}


def test_there_are_no_classes_where_model_or_event_has_none(
    model: FloodModel, events: dict[str, list[EventPatches]]
) -> None:
    for scored, name in ((model, "water"), (random_model(), "classes"), (random_model(), "water")):
        metrics = evaluate(scored, events[name], split_of(events[name])).metrics
        assert metrics["classes"] is None
    other = model.manifest.model_copy(update={"classes": (*CLASSES[:3], "towns")})
    renamed = replace(model, manifest=other)
    split = split_of(events["classes"])
    assert evaluate(renamed, events["classes"], split).metrics["classes"] is None


def test_ious_are_those_of_a_count_by_hand() -> None:
    truth = np.array([0, 0, 0, 1, 2, 2, 255, 2], np.uint8)
    said = np.array([0, 0, 1, 1, 2, 0, 1, 255], np.uint8)
    counts = count_classes(said, truth, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    found = class_ious(counts, CLASSES)
    assert found == {
        "other": pytest.approx(2 / 4),
        "water": pytest.approx(1 / 2),
        "forest": pytest.approx(1 / 2),
        "crops": None,
        "mean": pytest.approx(0.5),
    }
    assert class_ious(np.zeros((4, 4), np.int64), CLASSES)["mean"] is None


def test_all_that_judges_water_takes_other_codes_for_dry_land() -> None:
    image, mask = land_cover(256)
    mask[:9] = 255
    water = np.where(mask == 255, mask, mask == 1).astype(np.uint8)
    said = np.roll(water, 5, axis=1) % 254
    probabilities = np.random.default_rng(0).random(mask.shape, np.float32)
    assert count(said, mask) == count(said, water)
    assert verdict_image(said, mask) == verdict_image(said, water)
    assert look_at(mask[None]) == look_at(water[None])
    assert fit_threshold([(image[0], mask)]) == fit_threshold([(image[0], water)])
    np.testing.assert_array_equal(
        count_pixels(probabilities, mask), count_pixels(probabilities, water)
    )
