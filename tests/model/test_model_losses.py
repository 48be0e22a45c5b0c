from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.losses.tversky import TverskyLoss
from torch import Tensor

from sarflood.model import terms
from sarflood.model.losses import build_loss
from sarflood.model.pixels import Pixels
from sarflood.model.terms import SMOOTHING
from sarflood.params import LossName, LossParams, Reduction

NAMES: tuple[LossName, ...] = get_args(LossName)
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
Loss = Callable[..., Tensor]


def loss_params(**changes: Any) -> LossParams:
    settings: dict[str, Any] = {
        "terms": {"dice": 1.0},
        "reduction": "batch",
        "class_weights": (1.0, 4.0),
        "focal_gamma": 2.0,
        "tversky_alpha": 0.3,
        "tversky_beta": 0.7,
        "focal_tversky_gamma": 4 / 3,
    }
    return LossParams(**(settings | changes))


def single(name: LossName, **changes: Any) -> Loss:
    return build_loss(loss_params(terms={name: 1.0}, **changes), counts=(90, 10))


def several(name: LossName, reduction: Reduction = "batch") -> Loss:
    return single(name, reduction=reduction, class_weights=(1.0, 4.0, 0.5))


def batch(classes: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, target and distance of three images; the last has few labelled pixels."""
    random = torch.Generator().manual_seed(7)
    shape = (3, 6, 5) if classes == 2 else (3, classes, 6, 5)
    logits = 3 * torch.randn(shape, generator=random, dtype=dtype)
    target = torch.tensor([*range(classes), 255], dtype=torch.uint8)[
        torch.randint(0, classes + 1, (3, 6, 5), generator=random)
    ]
    target[2, 1:] = 255
    foreground = 1 if classes == 2 else classes
    distance = torch.randint(-9, 9, (3, foreground, 6, 5), generator=random, dtype=torch.int8)
    return logits, target, distance


def gradient(loss: Loss, logits: Tensor, target: Tensor, distance: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, target, distance), logits)[0]


def far(target: Tensor) -> Tensor:
    """The distances of a batch without water."""
    return torch.full((len(target), 1, *target.shape[1:]), 127, dtype=torch.int8)


# --- the equations of the papers, written out on the labelled pixels of one group -----------------


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(K, P) logits, or (1, P) of wet, as probabilities of all classes."""
    if len(logits) == 1:
        wet = 1 / (1 + np.exp(-logits[0]))
        return np.stack([1 - wet, wet])
    power = np.exp(logits - logits.max(axis=0))
    shares: np.ndarray = power / power.sum(axis=0)
    return shares


def lovasz_of(p: np.ndarray, g: np.ndarray) -> float:
    """Equation 9 of Berman et al., one set of wrong pixels after the other."""
    errors = np.abs(g - p)
    order = np.argsort(-errors, kind="stable")

    def jaccard_loss(wrong: set[int]) -> float:
        right_hits = sum(1 for i in range(g.size) if g[i] == 1 and i not in wrong)
        union = g.sum() + sum(1 for i in wrong if g[i] == 0)
        return float(1 - right_hits / union) if union else 0.0

    total, wrong = 0.0, set[int]()
    for place in order:
        before = jaccard_loss(wrong)
        wrong.add(int(place))
        total += errors[place] * (jaccard_loss(wrong) - before)
    return total


def expected(name: LossName, logits: np.ndarray, g: np.ndarray, distance: np.ndarray) -> float:
    """One group: (K, P) or (1, P) logits, (P,) classes, (K, P) or (1, P) distances."""
    p = probabilities(logits)
    weights = np.array([1.0, 4.0] if len(p) == 2 else [1.0, 4.0, 0.5])
    p_t, w_t = p[g, np.arange(g.size)], weights[g]
    compared = range(1, 2) if len(p) == 2 else range(len(p))
    s = SMOOTHING * g.size

    def tversky(k: int, alpha: float, beta: float) -> float:
        own, true = p[k], (g == k).astype(float)
        hits = (own * true).sum()
        return float(
            1
            - (hits + s)
            / (hits + alpha * (own * (1 - true)).sum() + beta * ((1 - own) * true).sum() + s)
        )

    def dice(k: int) -> float:
        own, true = p[k], (g == k).astype(float)
        return float(1 - (2 * (own * true).sum() + s) / (own.sum() + true.sum() + s))

    areas: dict[LossName, Callable[[int], float]] = {
        "dice": dice,
        "iou": lambda k: tversky(k, 1.0, 1.0),
        "tversky": lambda k: tversky(k, 0.3, 0.7),
        "focal_tversky": lambda k: tversky(k, 0.3, 0.7) ** 0.75,
        "lovasz": lambda k: lovasz_of(p[k], (g == k).astype(float)),
        "boundary": lambda k: float((p[k] * distance[k - compared[0]]).mean()),
    }
    if name in areas:
        return float(np.mean([areas[name](k) for k in compared]))
    of_pixels = {
        "cross_entropy": -np.log(p_t),
        "weighted_cross_entropy": -w_t * np.log(p_t),
        "focal": -((1 - p_t) ** 2) * np.log(p_t),
    }[name]
    return float(of_pixels.mean())


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_term_is_the_equation_of_its_paper(
    name: LossName, classes: int, reduction: Reduction
) -> None:
    logits, target, distance = batch(classes, torch.float64)
    weights = (1.0, 4.0) if classes == 2 else (1.0, 4.0, 0.5)
    loss = single(name, reduction=reduction, class_weights=weights)
    rows = (logits[:, None] if classes == 2 else logits).flatten(2).numpy()
    pairs = [
        (rows[i][:, known], target[i].flatten().numpy()[known], distance[i].flatten(1)[:, known])
        for i in range(3)
        if (known := (target[i] != 255).flatten().numpy()).any()
    ]
    groups: list[list[Any]] = [list(pair) for pair in pairs]
    if reduction == "batch":
        groups = [[np.concatenate(parts, axis=-1) for parts in zip(*pairs, strict=True)]]
    want = np.mean([expected(name, *map(np.asarray, group)) for group in groups])
    assert loss(logits, target, distance).item() == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_term_has_the_gradient_of_finite_differences(name: LossName, classes: int) -> None:
    logits, target, distance = batch(classes, torch.float64)
    loss = single(name) if classes == 2 else several(name, "image")
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss(values, target, distance), logits)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("there", [-50.0, 1e4, float("inf"), float("nan")])
def test_the_logits_of_unknown_pixels_change_nothing(
    name: LossName, there: float, classes: int
) -> None:
    logits, target, distance = batch(classes)
    unknown = (target == 255) if classes == 2 else (target == 255)[:, None].expand_as(logits)
    other = torch.where(unknown, there, logits)
    loss = single(name) if classes == 2 else several(name)
    slope = gradient(loss, logits, target, distance)
    assert torch.equal(loss(logits, target, distance), loss(other, target, distance))
    assert torch.equal(slope, gradient(loss, other, target, distance))
    assert (slope[unknown] == 0).all()
    if name not in ("lovasz", "boundary"):  # a distance may be 0
        assert (slope[~unknown] != 0).all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_unknown_pixels_are_in_no_mean(name: LossName, classes: int) -> None:
    logits, target, distance = batch(classes)
    loss = single(name) if classes == 2 else several(name)
    padded = [
        torch.nn.functional.pad(item, (0, 40), value=value)
        for item, value in ((logits, 2.0), (target, 255), (distance, 7))
    ]
    torch.testing.assert_close(loss(*padded), loss(logits, target, distance))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_an_unlabelled_batch_has_the_loss_zero_and_no_gradient(
    name: LossName, classes: int, reduction: Reduction
) -> None:
    logits, target, distance = batch(classes)
    target = torch.full_like(target, 255)
    loss = single(name, reduction=reduction) if classes == 2 else several(name, reduction)
    assert loss(logits, target, distance).item() == 0.0
    assert (gradient(loss, logits, target, distance) == 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("logit", [-2.0, 0.0, 2.0])
def test_a_dry_batch_pushes_against_false_alarms(
    name: LossName, logit: float, reduction: Reduction
) -> None:
    shape = (8, 128, 128)
    target = torch.zeros(shape, dtype=torch.uint8)
    loss = single(name, reduction=reduction)
    slope = gradient(loss, torch.full(shape, logit), target, far(target))
    assert slope.sum() > 0.002  # cross entropy has 0.12 to 0.88
    assert (slope >= 0).all()
    if name != "lovasz":  # it is the worst pixel alone that counts where there is no water
        assert (slope > 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("logit", [-2.0, 0.0, 2.0, 4.0])
def test_a_dry_batch_of_several_classes_pushes_water_down_however_sure_it_is(
    name: LossName, classes: int, logit: float, reduction: Reduction
) -> None:
    shape = (2, 32, 32)
    target = torch.zeros(shape, dtype=torch.uint8)
    logits = torch.zeros((2, classes, 32, 32))
    logits[:, 1] = logit
    distance = torch.full(logits.shape, 20, dtype=torch.int8)
    distance[:, 0] = -20
    loss = single(name, reduction=reduction, class_weights=(1.0,) * classes)
    slope = gradient(loss, logits, target, distance)
    assert slope[:, 1].sum() > 0
    assert slope[:, 0].sum() < 0


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_stay_finite(name: LossName, gamma: float, classes: int) -> None:
    values = torch.tensor([[[1e4, -1e4, 1e4, -1e4, 0.0]]])
    target = torch.tensor([[[1, 1, 0, 0, 1]]], dtype=torch.uint8)
    weights = (1.0, 4.0) if classes == 2 else (1.0, 4.0, 0.5)
    loss = single(name, focal_gamma=gamma, class_weights=weights)
    logits = values if classes == 2 else torch.stack([-values, values, values], dim=1)
    distance = torch.full((1, 1 if classes == 2 else 3, 1, 5), -3, dtype=torch.int8)
    assert torch.isfinite(loss(logits, target, distance))
    assert torch.isfinite(gradient(loss, logits, target, distance)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(name: LossName, dtype: torch.dtype) -> None:
    shape = (8, 96, 96)  # more pixels than the largest float16
    target = (torch.arange(8 * 96 * 96).reshape(shape) % 3 == 0).to(torch.uint8)
    logits = torch.linspace(-4, 4, target.numel()).reshape(shape).to(dtype)
    loss = single(name)(logits, target, far(target))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, single(name)(logits.float(), target, far(target)))


# --- MONAI as an independent reference, where it has the same: all pixels labelled ----------------

LABELLED = torch.Generator().manual_seed(3)
LOGITS = torch.randn((4, 1, 16, 16), generator=LABELLED, dtype=torch.float64)
TRUTH = torch.randint(0, 2, (4, 1, 16, 16), generator=LABELLED)
SMALL = SMOOTHING * TRUTH.numel()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cross_entropy", torch.nn.BCEWithLogitsLoss()),
        ("focal", FocalLoss(gamma=2.0)),
        (
            "dice",
            DiceLoss(sigmoid=True, batch=True, smooth_nr=SMALL, smooth_dr=SMALL),
        ),
        (
            "iou",
            TverskyLoss(
                sigmoid=True, batch=True, alpha=1.0, beta=1.0, smooth_nr=SMALL, smooth_dr=SMALL
            ),
        ),
        (
            "tversky",
            TverskyLoss(
                sigmoid=True, batch=True, alpha=0.3, beta=0.7, smooth_nr=SMALL, smooth_dr=SMALL
            ),
        ),
    ],
)
def test_where_all_is_labelled_a_term_agrees_with_monai(name: LossName, reference: Loss) -> None:
    ours, theirs = (LOGITS.clone().requires_grad_() for _ in range(2))
    loss = single(name)(ours[:, 0], TRUTH[:, 0].to(torch.uint8))
    other = reference(theirs, TRUTH.to(torch.float64))
    torch.testing.assert_close(loss, other, check_dtype=False)  # its focal loss is in float32
    torch.testing.assert_close(
        torch.autograd.grad(loss, ours)[0], torch.autograd.grad(other, theirs)[0]
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_dice_of_several_classes_agrees_with_monai(reduction: Reduction) -> None:
    logits, target, distance = batch(3, torch.float64)
    target = torch.where(target == 255, 0, target)
    pixels = target.numel() if reduction == "batch" else target[0].numel()
    small = SMOOTHING * pixels
    reference = DiceLoss(
        softmax=True,
        to_onehot_y=True,
        batch=reduction == "batch",
        smooth_nr=small,
        smooth_dr=small,
    )
    ours = several("dice", reduction)(logits, target, distance)
    torch.testing.assert_close(ours, reference(logits, target[:, None].long()))


# --- what makes each term what it is --------------------------------------------------------------


def test_a_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, target, _ = batch()
    pixels = Pixels.of(logits, target)
    torch.testing.assert_close(terms.focal(pixels, gamma=0.0), terms.cross_entropy(pixels))


def test_overlap_terms_agree_with_a_count_by_hand() -> None:
    logits = torch.full((1, 4, 4), 100.0)
    target = torch.zeros((1, 4, 4), dtype=torch.uint8)
    target[0, :2] = 1  # all is called wet, half of it is: 8 hits and 8 false alarms of 16
    pixels = Pixels.of(logits, target)
    assert terms.dice(pixels).item() == pytest.approx(1 - (1 + SMOOTHING) / (1.5 + SMOOTHING))
    assert terms.iou(pixels).item() == pytest.approx(1 - (0.5 + SMOOTHING) / (1 + SMOOTHING))
    assert terms.lovasz(pixels).item() == pytest.approx(0.5), "1 - IoU of a map without doubt"


def test_tversky_weighs_false_alarms_by_alpha_and_misses_by_beta() -> None:
    wet = torch.tensor([[[1, 1, 0, 0]]], dtype=torch.uint8)
    false_alarm = Pixels.of(torch.tensor([[[9.0, 9.0, 9.0, -9.0]]]), wet)
    miss = Pixels.of(torch.tensor([[[9.0, -9.0, -9.0, -9.0]]]), wet)
    weights = {"alpha": 0.1, "beta": 0.9}
    assert terms.tversky(miss, **weights) > 3 * terms.tversky(false_alarm, **weights)


def test_boundary_weighs_a_false_alarm_by_its_distance() -> None:
    target = torch.tensor([[[1, 1, 0, 0]]], dtype=torch.uint8)
    distance = torch.tensor([[[[-1, 0, 1, 2]]]], dtype=torch.int8)
    near = torch.tensor([[[9.0, 9.0, 9.0, -9.0]]])
    away = torch.tensor([[[9.0, 9.0, -9.0, 9.0]]])
    right = torch.tensor([[[9.0, 9.0, -9.0, -9.0]]])
    loss = single("boundary")
    values = [loss(logits, target, distance).item() for logits in (right, near, away)]
    assert values == pytest.approx([-0.25, 0.0, 0.25], abs=1e-3)


def test_inverse_frequency_weighs_the_classes_alike() -> None:
    logits, target, _ = batch()
    loss = single("weighted_cross_entropy", class_weights="inverse_frequency")
    fixed = single("weighted_cross_entropy", class_weights=(100 / 180, 5.0))
    assert loss(logits, target) == fixed(logits, target)
    rare = build_loss(
        loss_params(terms={"weighted_cross_entropy": 1.0}, class_weights="inverse_frequency"),
        counts=(10**9, 0),
    )
    assert torch.isfinite(rare(logits, target))


def test_class_weights_must_be_one_for_each_class() -> None:
    logits, target, _ = batch(3)
    with pytest.raises(ValueError, match="2 class weights for 3 classes"):
        single("weighted_cross_entropy")(logits, target)


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    logits, target, _ = batch()
    loss = build_loss(loss_params(terms={"dice": 0.5, "focal": 2.0, "iou": 0.0}), counts=(1, 1))
    want = 0.5 * single("dice")(logits, target) + 2.0 * single("focal")(logits, target)
    torch.testing.assert_close(loss(logits, target), want)


def test_a_weight_may_change_over_the_training() -> None:
    logits, target, distance = batch()
    params = loss_params(terms={"dice": [1.0, 0.5], "boundary": [0.0, 0.2]})
    loss = build_loss(params, counts=(1, 1))
    dice, boundary = (single(name)(logits, target, distance) for name in ("dice", "boundary"))
    for done in (0.0, 0.25, 1.0):
        want = (1 - 0.5 * done) * dice + 0.2 * done * boundary
        torch.testing.assert_close(loss(logits, target, distance, done=done), want)


def test_an_image_counts_as_much_as_any_other_where_each_is_one_by_one() -> None:
    """The labelled pixels of a cut patch must not vanish beside those of a whole one."""
    logits, target, _ = batch()
    both = single("cross_entropy", reduction="image")(logits[1:], target[1:])
    alone = [single("cross_entropy")(logits[i : i + 1], target[i : i + 1]) for i in (1, 2)]
    torch.testing.assert_close(both, torch.stack(alone).mean())


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 4, 4), (2, 3, 3, 4, 5), (2, 5, 4)])
def test_shapes_that_would_broadcast_are_refused(shape: tuple[int, ...]) -> None:
    target = torch.zeros((2, 4, 5), dtype=torch.uint8)
    if shape == (2, 1, 4, 5):
        with pytest.raises(ValueError, match=r"distance is \(2, 3, 4, 5\), where \(2, 1, 4, 5\)"):
            single("boundary")(torch.zeros((2, 4, 5)), target, torch.zeros((2, 3, 4, 5)))
        return
    with pytest.raises(ValueError, match=r"logits are .*, target \(2, 4, 5\)"):
        single("dice")(torch.zeros(shape), target)


def test_the_boundary_loss_says_that_it_needs_distances() -> None:
    logits, target, _ = batch()
    with pytest.raises(ValueError, match="needs distances"):
        single("boundary")(logits, target)
