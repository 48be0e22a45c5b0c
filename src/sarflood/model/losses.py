"""The losses: pure functions of the labelled pixels of a batch, and their weighted sum.

A pixel of the target is 0 dry, 1 wet or 255 unknown; an unknown pixel has no gradient and is in no
mean. Sums run over the whole batch, so that one patch without water is an ordinary case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from sarflood.params import LossName, LossParams
from sarflood.raster.patch import UNKNOWN, WET

# Added to both sides of the overlap ratios, as a share of the labelled pixels. A constant number of
# pixels vanishes in a large batch: where 10⁵ dry pixels have the probability 0.5, the gradient of
# Dice against these false alarms is 4·10⁻¹⁰ a pixel with 1, and 7·10⁻⁷ with this.
SMOOTHING = 0.02


@dataclass(frozen=True)
class Pixels:
    """What all losses need of a batch, computed once.

    Attributes:
        logits: (N, H, W) float32 (float64 if given so); 0 where unknown.
        probability: (N, H, W), the sigmoid of the logits.
        wet: (N, H, W), 1 where wet, else 0.
        valid: (N, H, W), 1 where labelled, 0 where unknown.
        count: The number of labelled pixels, at least 1.
    """

    logits: Tensor
    probability: Tensor
    wet: Tensor
    valid: Tensor
    count: Tensor

    @classmethod
    def of(cls, logits: Tensor, target: Tensor) -> Self:
        """Prepare a batch.

        Args:
            logits: (N, H, W) float of any precision.
            target: (N, H, W) uint8, 0 dry, 1 wet, 255 unknown.

        Raises:
            ValueError: The shapes differ.
        """
        if logits.shape != target.shape:
            raise ValueError(f"logits are {tuple(logits.shape)}, target {tuple(target.shape)}")
        labelled = target != UNKNOWN
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        known = torch.where(labelled, wide, 0.0)
        valid = labelled.to(known.dtype)
        wet = (target == WET).to(known.dtype)
        return cls(known, torch.sigmoid(known), wet, valid, valid.sum().clamp(min=1.0))

    def mean(self, values: Tensor) -> Tensor:
        """Average (N, H, W) values over the labelled pixels; 0 where there are none."""
        return (values * self.valid).sum() / self.count


Term = Callable[[Pixels], Tensor]


def cross_entropy(pixels: Pixels) -> Tensor:
    """Return the mean of −log p_t, with p_t the probability of the true class."""
    return weighted_cross_entropy(pixels, positive_weight=1.0)


def weighted_cross_entropy(pixels: Pixels, *, positive_weight: float) -> Tensor:
    """Return the mean of −w log p_t, with w = `positive_weight` on wet pixels and 1 on dry ones."""
    weight = pixels.logits.new_tensor(positive_weight)
    return pixels.mean(
        functional.binary_cross_entropy_with_logits(
            pixels.logits, pixels.wet, pos_weight=weight, reduction="none"
        )
    )


def focal(pixels: Pixels, *, gamma: float) -> Tensor:
    """Return the mean of −(1 − p_t)^γ log p_t.

    Lin et al. (2017), equation 4, https://arxiv.org/abs/1708.02002. Both factors come from the
    log-sigmoid, so that neither they nor their gradients overflow.
    """
    towards_truth = torch.where(pixels.wet == 1.0, pixels.logits, -pixels.logits)
    modulation = torch.exp(gamma * functional.logsigmoid(-towards_truth))
    return pixels.mean(-modulation * functional.logsigmoid(towards_truth))


def dice(pixels: Pixels) -> Tensor:
    """Return 1 − (2 Σ p g + s) / (Σ p + Σ g + s), with s the smoothing.

    Milletari, Navab and Ahmadi (2016), section 3, https://arxiv.org/abs/1606.04797, with plain sums
    below the line in place of sums of squares.
    """
    hits, alarms, misses = _overlap(pixels)
    return 1.0 - (2 * hits + SMOOTHING) / (2 * hits + alarms + misses + SMOOTHING)


def iou(pixels: Pixels) -> Tensor:
    """Return 1 − (Σ p g + s) / (Σ (p + g − p g) + s), with s the smoothing.

    Rahman and Wang (2016), equations 3 to 5, https://doi.org/10.1007/978-3-319-50835-1_22.
    """
    return tversky(pixels, alpha=1.0, beta=1.0)


def tversky(pixels: Pixels, *, alpha: float, beta: float) -> Tensor:
    """Return 1 − (Σ p g + s) / (Σ p g + α Σ p (1 − g) + β Σ (1 − p) g + s), with s the smoothing.

    Salehi, Erdogmus and Gholipour (2017), equation 4, https://arxiv.org/abs/1706.05721.

    Args:
        pixels: The batch.
        alpha: Weight of the false alarms.
        beta: Weight of the misses.
    """
    hits, alarms, misses = _overlap(pixels)
    return 1.0 - (hits + SMOOTHING) / (hits + alpha * alarms + beta * misses + SMOOTHING)


def _overlap(pixels: Pixels) -> tuple[Tensor, Tensor, Tensor]:
    """Return the soft hits, false alarms and misses, as shares of the labelled pixels."""
    hits = pixels.mean(pixels.probability * pixels.wet)
    alarms = pixels.mean(pixels.probability * (1.0 - pixels.wet))
    misses = pixels.mean((1.0 - pixels.probability) * pixels.wet)
    return hits, alarms, misses


class CombinedLoss(nn.Module):
    """A weighted sum of terms that share one `Pixels`.

    Args:
        terms: Pairs of a weight and a term.
    """

    def __init__(self, terms: list[tuple[float, Term]]) -> None:
        super().__init__()
        self._terms = terms

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch as a scalar; exactly 0 where no pixel is labelled.

        Args:
            logits: (N, H, W) float of any precision; the loss is computed in float32 at least.
            target: (N, H, W) uint8, 0 dry, 1 wet, 255 unknown.
        """
        pixels = Pixels.of(logits, target)
        return torch.stack([weight * term(pixels) for weight, term in self._terms]).sum()


def build_loss(params: LossParams) -> CombinedLoss:
    """Build the loss that `params.yaml` asks for."""
    known: Mapping[LossName, Term] = {
        "cross_entropy": cross_entropy,
        "weighted_cross_entropy": partial(
            weighted_cross_entropy, positive_weight=params.positive_weight
        ),
        "dice": dice,
        "iou": iou,
        "focal": partial(focal, gamma=params.focal_gamma),
        "tversky": partial(tversky, alpha=params.tversky_alpha, beta=params.tversky_beta),
    }
    return CombinedLoss([(weight, known[name]) for name, weight in params.terms.items()])
