from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from sarflood.model import losses
from sarflood.model.losses import SMOOTHING, Pixels, build_loss
from sarflood.params import LossName, LossParams

NAMES: tuple[LossName, ...] = get_args(LossName)


def loss_params(**changes: Any) -> LossParams:
    settings: dict[str, Any] = {
        "terms": {"dice": 1.0},
        "positive_weight": 4.0,
        "focal_gamma": 2.0,
        "tversky_alpha": 0.3,
        "tversky_beta": 0.7,
    }
    return LossParams(**(settings | changes))


def single(name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
    return build_loss(loss_params(terms={name: 1.0}))


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    logits = 3 * torch.randn((2, 6, 5), generator=generator, dtype=dtype)
    target = torch.tensor([0, 1, 255], dtype=torch.uint8)[
        torch.randint(0, 3, (2, 6, 5), generator=generator)
    ]
    return logits, target


def gradient(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, target), logits)[0]


def expected(name: str, logits: np.ndarray, target: np.ndarray) -> float:
    """The equations of the papers, written out on the labelled pixels."""
    p = 1 / (1 + np.exp(-logits[target != 255]))
    g = target[target != 255].astype(float)
    p_t = np.where(g == 1, p, 1 - p)
    s = SMOOTHING * g.size
    value: float = {
        "cross_entropy": lambda: np.mean(-np.log(p_t)),
        "weighted_cross_entropy": lambda: np.mean(-np.where(g == 1, 4.0, 1.0) * np.log(p_t)),
        "focal": lambda: np.mean(-((1 - p_t) ** 2) * np.log(p_t)),
        "dice": lambda: 1 - (2 * (p * g).sum() + s) / (p.sum() + g.sum() + s),
        "iou": lambda: 1 - ((p * g).sum() + s) / ((p + g - p * g).sum() + s),
        "tversky": lambda: (
            1
            - ((p * g).sum() + s)
            / ((p * g).sum() + 0.3 * (p * (1 - g)).sum() + 0.7 * ((1 - p) * g).sum() + s)
        ),
    }[name]()
    return value


@pytest.mark.parametrize("name", NAMES)
def test_a_term_is_the_equation_of_its_paper(name: LossName) -> None:
    logits, target = batch(torch.float64)
    want = expected(name, logits.numpy(), target.numpy())
    assert single(name)(logits, target).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_term_has_the_gradient_of_finite_differences(name: LossName) -> None:
    logits, target = batch(torch.float64)
    loss = single(name)
    assert torch.autograd.gradcheck(lambda values: loss(values, target), logits.requires_grad_())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("there", [-50.0, 1e4, float("inf"), float("nan")])
def test_the_logits_of_unknown_pixels_change_nothing(name: LossName, there: float) -> None:
    logits, target = batch()
    other = torch.where(target == 255, there, logits)
    loss = single(name)
    slope = gradient(loss, logits, target)
    assert torch.equal(loss(logits, target), loss(other, target))
    assert torch.equal(slope, gradient(loss, other, target))
    assert (slope[target == 255] == 0).all()
    assert (slope[target != 255] != 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_unknown_pixels_are_in_no_mean(name: LossName) -> None:
    logits, target = batch()
    padded = torch.nn.functional.pad(logits, (0, 40), value=2.0)
    unknown = torch.nn.functional.pad(target, (0, 40), value=255)
    loss = single(name)
    torch.testing.assert_close(loss(padded, unknown), loss(logits, target))


@pytest.mark.parametrize("name", NAMES)
def test_an_unlabelled_batch_has_the_loss_zero_and_no_gradient(name: LossName) -> None:
    logits = torch.full((2, 4, 4), 3.0)
    target = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    loss = single(name)
    assert loss(logits, target).item() == 0.0
    assert (gradient(loss, logits, target) == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("logit", [-2.0, 0.0, 2.0])
def test_a_dry_batch_pushes_against_false_alarms(name: LossName, logit: float) -> None:
    shape = (8, 128, 128)
    target = torch.zeros(shape, dtype=torch.uint8)
    slope = gradient(single(name), torch.full(shape, logit), target)
    assert (slope > 0).all()
    assert slope.sum() > 0.002  # cross entropy has 0.12 to 0.88


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_stay_finite(name: LossName, gamma: float) -> None:
    logits = torch.tensor([[[1e4, -1e4, 1e4, -1e4, 0.0]]])
    target = torch.tensor([[[1, 1, 0, 0, 1]]], dtype=torch.uint8)
    loss = build_loss(loss_params(terms={name: 1.0}, focal_gamma=gamma))
    assert torch.isfinite(loss(logits, target))
    assert torch.isfinite(gradient(loss, logits, target)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(name: LossName, dtype: torch.dtype) -> None:
    shape = (8, 96, 96)  # more pixels than the largest float16
    target = (torch.arange(8 * 96 * 96).reshape(shape) % 3 == 0).to(torch.uint8)
    logits = torch.linspace(-4, 4, target.numel()).reshape(shape).to(dtype)
    loss = single(name)(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, single(name)(logits.float(), target))


def test_a_focal_loss_without_focus_is_cross_entropy() -> None:
    pixels = Pixels.of(*batch())
    torch.testing.assert_close(losses.focal(pixels, gamma=0.0), losses.cross_entropy(pixels))


def test_overlap_terms_agree_with_a_count_by_hand() -> None:
    logits = torch.full((1, 4, 4), 100.0)
    target = torch.zeros((1, 4, 4), dtype=torch.uint8)
    target[0, :2] = 1  # all is called wet, half of it is: 8 hits and 8 false alarms of 16
    pixels = Pixels.of(logits, target)
    assert losses.dice(pixels).item() == pytest.approx(1 - (1 + SMOOTHING) / (1.5 + SMOOTHING))
    assert losses.iou(pixels).item() == pytest.approx(1 - (0.5 + SMOOTHING) / (1 + SMOOTHING))


def test_tversky_weighs_false_alarms_by_alpha_and_misses_by_beta() -> None:
    term = partial(losses.tversky, alpha=0.1, beta=0.9)
    wet = torch.tensor([[[1, 1, 0, 0]]], dtype=torch.uint8)
    false_alarm = term(Pixels.of(torch.tensor([[[9.0, 9.0, 9.0, -9.0]]]), wet))
    miss = term(Pixels.of(torch.tensor([[[9.0, -9.0, -9.0, -9.0]]]), wet))
    assert miss > 3 * false_alarm


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    logits, target = batch()
    loss = build_loss(loss_params(terms={"dice": 0.5, "focal": 2.0, "iou": 0.0}))
    want = 0.5 * single("dice")(logits, target) + 2.0 * single("focal")(logits, target)
    torch.testing.assert_close(loss(logits, target), want)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits are \(2, 1, 4, 4\), target \(2, 4, 4\)"):
        build_loss(loss_params())(
            torch.zeros((2, 1, 4, 4)), torch.zeros((2, 4, 4), dtype=torch.uint8)
        )
