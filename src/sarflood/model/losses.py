"""The loss that `params.yaml` asks for: a weighted sum of terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sarflood.model import terms
from sarflood.model.pixels import Pixels
from sarflood.model.terms import Term
from sarflood.params import LossName, LossParams, Reduction

_MAX_CLASS_WEIGHT = 1000.0


class CombinedLoss(nn.Module):
    """A weighted sum of terms that share one `Pixels`.

    Args:
        terms: Each with its weight in the first and at the end of the last epoch, linear between.
        reduction: See `Pixels`.
    """

    def __init__(self, terms: list[tuple[tuple[float, float], Term]], reduction: Reduction) -> None:
        super().__init__()
        self._terms, self._reduction = terms, reduction

    def forward(
        self, logits: Tensor, target: Tensor, distance: Tensor | None = None, done: float = 0.0
    ) -> Tensor:
        """Return the loss of a batch as a scalar; exactly 0 where no pixel is labelled.

        Args:
            logits: (N, H, W) float of any precision, or (N, K, H, W) with K > 2 classes; the loss
                is computed in float32 at least.
            target: (N, H, W) uint8, 0 dry, 1 wet or another class, 255 unknown.
            distance: (N, K, H, W), K 1 with two classes; see `patches.distance`. Only the boundary
                term needs it.
            done: The share of the training that is done, 0 to 1.
        """
        pixels = Pixels.of(logits, target, distance, self._reduction)
        weights = [first + (last - first) * done for (first, last), _ in self._terms]
        return torch.stack(
            [weight * term(pixels) for weight, (_, term) in zip(weights, self._terms, strict=True)]
        ).sum()


def build_loss(params: LossParams, counts: Sequence[int]) -> CombinedLoss:
    """Build the loss.

    Args:
        params: What it is made of.
        counts: The labelled pixels of each class in the training patches, for weights by inverse
            frequency: wᵢ = Σ n / (K nᵢ), at most 1000.
    """
    weights = (
        tuple(min(sum(counts) / (len(counts) * max(n, 1)), _MAX_CLASS_WEIGHT) for n in counts)
        if params.class_weights == "inverse_frequency"
        else params.class_weights
    )
    alpha, beta = params.tversky_alpha, params.tversky_beta
    known: Mapping[LossName, Term] = {
        "cross_entropy": terms.cross_entropy,
        "weighted_cross_entropy": partial(terms.weighted_cross_entropy, weights=weights),
        "dice": terms.dice,
        "iou": terms.iou,
        "focal": partial(terms.focal, gamma=params.focal_gamma),
        "tversky": partial(terms.tversky, alpha=alpha, beta=beta),
        "focal_tversky": partial(
            terms.focal_tversky, alpha=alpha, beta=beta, gamma=params.focal_tversky_gamma
        ),
        "lovasz": terms.lovasz,
        "boundary": terms.boundary,
    }
    chosen = [(weight, known[name]) for name, weight in params.terms.items()]
    return CombinedLoss(chosen, params.reduction)
