from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sarflood.errors import InputError
from sarflood.model.histogram import BINS
from sarflood.params import Params, load_params
from sarflood.patches.loader import LabelledPatches
from sarflood.training.calibrate import best_threshold, count_by_probability
from sarflood.training.fit import Epoch, fit

ROOT = Path(__file__).parents[2]
BANDS = ("vv",)


def settings(**train: float) -> Params:
    params = load_params(ROOT / "params.yaml")
    changed = {"epochs": 3, "batch_size": 4, "crop": 64, "learning_rate": 0.01, **train}
    return params.model_copy(
        update={
            "train": params.train.model_copy(update=changed),
            "model": params.model.model_copy(update={"width": 4, "depth": 2}),
        }
    )


def lakes(number: int, seed: int) -> LabelledPatches:
    """Dark squares on bright land, with speckle; a strip of each patch has no data."""
    random = np.random.default_rng(seed)
    masks = np.zeros((number, 256, 256), np.uint8)
    for mask in masks:
        top, left = random.integers(0, 160, 2)
        mask[top : top + 90, left : left + 90] = 1
    images = random.normal(0, 2, (number, 1, 256, 256)) - 10 - 8 * masks[:, None]
    images[:, :, :8] = np.nan
    masks[:, :8] = 255
    return LabelledPatches(images.astype(np.float16), masks)


def test_a_network_learns_lakes_and_its_best_epoch_is_kept() -> None:
    seen: list[Epoch] = []
    fitted = fit(lakes(4, 0), lakes(2, 1), BANDS, settings(), seen.append)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    assert fitted.epochs["val_iou"].max() > 0.9
    assert fitted.epochs["learning_rate"].iloc[-1] < 0.002, "the rate ends near zero"
    assert not fitted.network.training
    best = max(seen, key=lambda epoch: epoch.val_iou)
    assert fitted.threshold == best.threshold


def test_the_boundary_loss_comes_in_over_the_training() -> None:
    params = settings()
    curves = []
    for first in (0.0, 0.05):
        terms = {"dice": (1.0, 1.0), "boundary": (first, 0.05)}
        loss = params.loss.model_copy(update={"terms": terms})
        seen: list[Epoch] = []
        fit(lakes(4, 0), lakes(2, 1), BANDS, params.model_copy(update={"loss": loss}), seen.append)
        curves.append(seen)
    ramp, whole = curves
    assert ramp[-1].val_iou > 0.8
    assert ramp[0].train_loss < 0.7 * whole[0].train_loss
    assert ramp[-1].train_loss > ramp[0].train_loss, "its weight has grown"


def test_the_same_seed_gives_the_same_weights() -> None:
    weights = [
        fit(
            lakes(2, 0), lakes(1, 1), BANDS, settings(epochs=1), lambda _: None
        ).network.state_dict()
        for _ in range(2)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_ends_when_its_time_is_over() -> None:
    params = settings(epochs=10_000, max_minutes=0.03)
    fitted = fit(lakes(2, 0), lakes(1, 1), BANDS, params, lambda _: None)
    assert 1 <= len(fitted.epochs) < 10_000
    assert fitted.epochs["learning_rate"].iloc[-1] < params.train.learning_rate / 2


@pytest.mark.parametrize(("train", "val", "name"), [(0, 1, "training"), (1, 0, "validation")])
def test_missing_patches_are_said(train: int, val: int, name: str) -> None:
    with pytest.raises(InputError, match=f"no {name} patches"):
        fit(lakes(train, 0), lakes(val, 1), BANDS, settings(), lambda _: None)


def test_a_dry_validation_part_is_said() -> None:
    dry = lakes(1, 1)
    dry.masks[dry.masks == 1] = 0
    with pytest.raises(InputError, match="no wet pixel in the validation patches"):
        fit(lakes(1, 0), dry, BANDS, settings(), lambda _: None)


def test_the_threshold_is_the_one_of_the_highest_iou() -> None:
    random = np.random.default_rng(0)
    masks = (random.random((2, 32, 32)) < 0.2).astype(np.uint8)
    logits = random.normal(-2 + 2.5 * masks, 1).astype(np.float32)
    masks[:, 0] = 255
    counts = count_by_probability(torch.from_numpy(logits), torch.from_numpy(masks))
    assert counts.sum() == (masks < 2).sum()
    threshold, iou = best_threshold(counts)
    probability = 1 / (1 + np.exp(-logits))

    def brute(at: float) -> float:
        wet = (probability >= at) & (masks < 2)
        return float((wet & (masks == 1)).sum() / (wet | (masks == 1)).sum())

    assert iou == pytest.approx(brute(threshold))
    assert iou == pytest.approx(max(brute(step / BINS) for step in range(1, BINS)))
