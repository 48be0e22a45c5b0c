from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from sarflood.errors import InputError, SarfloodError
from sarflood.evaluation.confusion import Counts, count
from sarflood.model.inputs import fill, standardise
from sarflood.params import LossName, LossParams, Params, load_params
from sarflood.patches.loader import LabelledPatches
from sarflood.training.calibrate import Calibration
from sarflood.training.checkpoint import Checkpoint
from sarflood.training.curve import Epoch
from sarflood.training.fit import Fitted, fit
from sarflood.training.steps import cycle_ends, one_cycle

ROOT = Path(__file__).parents[2]
BANDS = ("vv",)


def settings(**train: float) -> Params:
    params = load_params(ROOT / "params.yaml")
    changed = {
        "epochs": 3,
        "min_steps": 1,
        "batch_size": 4,
        "crop": 64,
        "learning_rate": 0.01,
        **train,
    }
    return params.model_copy(
        update={
            "train": params.train.model_copy(update=changed),
            "model": params.model.model_copy(update={"width": 4, "depth": 2, "flips": 1}),
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
    names = np.array([f"{seed}-{item}" for item in range(number)])
    return LabelledPatches(images.astype(np.float16), masks, names, names)


def test_a_network_learns_lakes_and_its_best_epoch_is_kept() -> None:
    seen: list[Epoch] = []
    fitted = fit(lakes(4, 0), lakes(2, 1), BANDS, settings(), seen.append)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    assert fitted.epochs["val_iou"].max() > 0.9
    assert fitted.epochs["learning_rate"].iloc[-1] < 0.002, "the rate ends near zero"
    assert not fitted.network.training
    best = max(seen, key=lambda epoch: epoch.val_iou)
    val = lakes(2, 1)
    with torch.inference_mode():
        mean, std = (torch.tensor(item).view(1, 1, 1, 1) for item in (fitted.mean, fitted.std))
        logits = fitted.network(fill(standardise(torch.from_numpy(val.images), mean, std)))
    said = (torch.sigmoid(logits / fitted.temperature) >= fitted.threshold).numpy().astype(np.uint8)
    kept = sum((count(*pair) for pair in zip(said, val.masks, strict=True)), Counts())
    assert kept.iou == pytest.approx(best.val_iou, abs=1e-3), "what is kept is what was scored"
    assert (fitted.threshold, fitted.temperature) == (best.threshold, best.temperature)


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


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("augment", "jitter", 1.0),
        ("augment", "contrast", 1.0),
        ("augment", "speckle", 1.0),
        ("augment", "holes", 1.0),
        ("train", "balance_scenes", 1.0),
        ("train", "balance_wet", 1.0),
        ("train", "permanent_water", 0.0),
        ("train", "ema", 0.0),
        ("train", "weight_decay", 1.0),
    ],
)
def test_each_setting_reaches_the_training(section: str, name: str, value: float) -> None:
    patches = lakes(4, 0)
    patches.masks[1:, :, 64:] = 0
    patches = replace(
        patches,
        scenes=np.array(["a", "a", "a", "b"]),
        permanent_water=(patches.masks == 1).astype(np.uint8),
    )
    calm = settings(epochs=1, balance_scenes=0.0, balance_wet=0.0, permanent_water=1.0)
    still = dict.fromkeys(("jitter", "contrast", "speckle", "band_dropout", "holes"), 0.0)
    calm = calm.model_copy(update={"augment": calm.augment.model_copy(update=still)})
    asked = getattr(calm, section).model_copy(update={name: value})
    plain, changed = (
        fit(patches, lakes(1, 1), BANDS, params, lambda _: None).network.head.weight
        for params in (calm, calm.model_copy(update={section: asked}))
    )
    assert not torch.equal(plain, changed)


@pytest.mark.parametrize("normalisation", ["training", "both", "fixed_db", "event", "local"])
def test_bands_are_scaled_as_the_normalisation_says(normalisation: str) -> None:
    params = settings(epochs=1)
    asked = params.input.model_copy(update={"normalisation": normalisation})
    params = params.model_copy(update={"input": asked})
    fitted = fit(lakes(2, 0), lakes(1, 1), BANDS, params, lambda _: None)
    expected = {"fixed_db": (-12.5, 12.5), "event": (0.0, 1.0), "local": (0.0, 1.0)}
    values = lakes(2, 0).images[:, 0, 8:].astype(np.float64)
    mean, std = expected.get(normalisation, (values.mean(), values.std()))
    assert fitted.mean == pytest.approx((mean,), abs=0.01)
    assert fitted.std == pytest.approx((std,), abs=0.01)


def test_patches_that_are_read_ahead_give_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for share in (0.4, 0.0):
        monkeypatch.setattr("sarflood.patches.crops.MEMORY_SHARE", share)
        fitted = fit(lakes(3, 0), lakes(1, 1), BANDS, settings(epochs=2), lambda _: None)
        weights.append(fitted.network.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which an epoch takes six seconds."""
    seconds = itertools.count(100, 6)
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("sarflood.training.steps.time", clock)
    params = settings(epochs=10_000, max_minutes=1.0)
    fitted = fit(lakes(2, 0), lakes(1, 1), BANDS, params, lambda _: None)
    assert fitted.epochs["seconds"].tolist() == [6.0 * number for number in range(1, 11)]
    assert fitted.epochs["learning_rate"].iloc[-1] < params.train.learning_rate / 20


@pytest.mark.parametrize("halted", [2, 3, 7])
def test_a_halt_does_not_shorten_a_training_that_has_time(
    halted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch takes a second, but for one, in which the machine stood still."""
    seconds = itertools.accumulate(
        31.0 if number == halted else 1.0 for number in itertools.count()
    )
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("sarflood.training.steps.time", clock)
    params = settings(epochs=9, max_minutes=1.0)
    fitted = fit(lakes(1, 0), lakes(1, 1), BANDS, params, lambda _: None)
    assert fitted.epochs["seconds"].iloc[-1] == 39.0
    assert (fitted.epochs["seconds_an_epoch"] == 1.0).all()
    assert fitted.epochs["planned"].tolist() == [9] * 9


@pytest.mark.parametrize(
    ("better", "epochs"), [((1, 3), 9), ((1, 4), 21), ((2, 9), 21), ((1, 4, 21), 45)]
)
def test_training_ends_with_a_cycle_that_brought_nothing(
    better: tuple[int, ...], epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With cycles of 3, 6, 12 and 24 epochs, by the epochs that are better than all before."""
    ious = itertools.accumulate(
        (0.1 if number in better else -0.001 for number in itertools.count(1)), initial=0.0
    )
    next(ious)
    said = (Calibration(1.0, 0.5, iou) for iou in ious)
    monkeypatch.setattr("sarflood.training.steps.calibrate", lambda _: next(said))
    fitted = fit(lakes(1, 0), lakes(1, 1), BANDS, settings(epochs=45), lambda _: None)
    assert len(fitted.epochs) == epochs


def test_each_cycle_of_the_learning_rate_is_twice_as_long() -> None:
    assert cycle_ends(1) == [1]
    assert cycle_ends(8) == [8]
    assert cycle_ends(9) == [3, 9]
    assert cycle_ends(21) == [3, 9, 21]
    assert cycle_ends(48) == [3, 10, 22, 48]
    assert cycle_ends(100) == [7, 20, 47, 100]


def test_within_a_cycle_the_learning_rate_rises_and_falls() -> None:
    rates = [one_cycle(done) for done in np.linspace(0.0, 1.0, 101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.0)
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[10:]) < 0).all()


def test_a_training_goes_through_its_cycles() -> None:
    params = settings(epochs=9)
    rate = fit(lakes(1, 0), lakes(1, 1), BANDS, params, lambda _: None).epochs["learning_rate"]
    assert rate.max() == pytest.approx(0.01, rel=0.05)
    lows = rate[(rate < rate.shift(1)) & (rate < rate.shift(-1, fill_value=1.0))].index + 1
    assert lows.tolist() == [3, 9]
    assert rate[3:].max() > 0.009


def test_a_loss_that_is_left_to_the_masks_is_the_advised_one() -> None:
    params = settings(epochs=1)
    auto = params.model_copy(update={"loss": LossParams.model_validate("auto")})
    fitted = fit(lakes(2, 0), lakes(1, 1), BANDS, auto, lambda _: None)
    assert set(fitted.loss.terms) == {"dice"}
    assert fitted.advice
    assert "minority" in fitted.advice
    named = params.model_copy(update={"loss": fitted.loss.model_copy(update={"auto": False})})
    same = fit(lakes(2, 0), lakes(1, 1), BANDS, named, lambda _: None)
    assert same.advice is None
    assert torch.equal(same.network.head.weight, fitted.network.head.weight)


def test_what_is_averaged_over_flips_is_calibrated_so() -> None:
    """The same weights, but another threshold or temperature: that of the answers in use."""
    params = settings(epochs=2)
    flipped = params.model_copy(update={"model": params.model.model_copy(update={"flips": 4})})
    alone, averaged = (
        fit(lakes(2, 0), lakes(1, 1), BANDS, item, lambda _: None) for item in (params, flipped)
    )
    assert torch.equal(alone.network.head.weight, averaged.network.head.weight)
    assert (alone.temperature, alone.threshold) != (averaged.temperature, averaged.threshold)
    assert alone.threshold == alone.epochs["threshold"].iloc[-1]


def test_the_average_of_the_weights_is_what_is_kept() -> None:
    first = [
        fit(lakes(2, 0), lakes(1, 1), BANDS, settings(epochs=1, ema=ema), lambda _: None)
        for ema in (0.0, 0.9)
    ]
    plain, averaged = (fitted.network.head.weight for fitted in first)
    assert not torch.equal(plain, averaged)


def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """In the second of its cycles of the learning rate, that of 3 to 9 epochs."""
    params = settings(epochs=9)
    loss: dict[LossName, tuple[float, float]] = {"boundary": (0.0, 1.0), "dice": (1.0, 1.0)}
    params = params.model_copy(
        update={
            "model": params.model.model_copy(update={"dropout": 0.3}),
            "loss": params.loss.model_copy(update={"terms": loss}),
        }
    )
    seen: list[int] = []

    def run(checkpoint: Checkpoint | None, kill: int = 0) -> Fitted:
        def on_epoch(epoch: Epoch) -> None:
            seen.append(epoch.epoch)
            if epoch.epoch == kill:
                raise SarfloodError("killed")

        return fit(lakes(3, 0), lakes(2, 1), BANDS, params, on_epoch, checkpoint)

    whole = run(None)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", "this")
    with pytest.raises(SarfloodError, match="killed"):
        run(checkpoint, kill=4)
    seen.clear()
    resumed = run(checkpoint)
    assert seen == list(range(1, 10)), "the epochs of before are told again, not run again"
    same = ["train_loss", "val_iou", "threshold", "temperature", "learning_rate"]
    pd.testing.assert_frame_equal(resumed.epochs[same], whole.epochs[same])
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    again = run(checkpoint)
    assert again.epochs["seconds"].tolist() == resumed.epochs["seconds"].tolist(), "nothing ran"


@pytest.mark.parametrize("damage", ["another key", "cut off", "absent"])
def test_a_checkpoint_that_does_not_fit_is_not_used(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    params = settings(epochs=1)
    fit(lakes(2, 0), lakes(1, 1), BANDS, params, lambda _: None, Checkpoint(path, "this"))
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    if damage == "absent":
        path.unlink()
    key = "other" if damage == "another key" else "this"
    assert Checkpoint(path, key).load() is None
    seen: list[Epoch] = []
    fit(lakes(2, 0), lakes(1, 1), BANDS, params, seen.append, Checkpoint(path, key))
    assert len(seen) == 1
    assert Checkpoint(path, key).load() is not None


@pytest.mark.parametrize(("train", "val", "name"), [(0, 1, "training"), (1, 0, "validation")])
def test_missing_patches_are_said(train: int, val: int, name: str) -> None:
    with pytest.raises(InputError, match=f"no {name} patches"):
        fit(lakes(train, 0), lakes(val, 1), BANDS, settings(), lambda _: None)


def test_a_dry_validation_part_is_said() -> None:
    dry = lakes(1, 1)
    dry.masks[dry.masks == 1] = 0
    with pytest.raises(InputError, match="no wet pixel in the validation patches"):
        fit(lakes(1, 0), dry, BANDS, settings(), lambda _: None)
