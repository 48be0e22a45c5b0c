"""What the losses need of a batch, each made once and only where a term asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sarflood.params import Reduction
from sarflood.raster.patch import UNKNOWN, WET

# The logit of an unknown pixel where a pixel has one: the sigmoid of it is exactly 0, and so is the
# log of the probability of "dry". Sums over all pixels are those over the labelled ones.
_NEVER = -1e4


class Sums(NamedTuple):
    """Sums over the labelled pixels of each image; p is a probability, g the truth.

    Attributes:
        entropy: (N, C) Σ −log p_t over the pixels of each of the C classes, dry among them.
        hits: (N, K) Σ p g.
        predicted: (N, K) Σ p.
        actual: (N, K) Σ g.
        along: (N, K) Σ p φ with φ the distance; 0 without distances.
    """

    entropy: Tensor
    hits: Tensor
    predicted: Tensor
    actual: Tensor
    along: Tensor


@dataclass(frozen=True)
class Pixels:
    """The labelled pixels of a batch.

    Where there are two classes, a pixel has one logit, that of wet, and K is 1; where there are
    more, it has one for each, and K is their number. P is H · W.

    Attributes:
        logits: (N, P), or (N, K, P) with several classes; float32, or float64 if given so.
        target: (N, P) uint8, the class of each pixel, or 255 for unknown.
        unknown: (N, P), whether the target is 255.
        distance: (N, K, P) in pixels, see `patches.distance`; None where no term needs it.
        reduction: Whether sums run over the batch, the shares of other processes included, or over
            each image with a mean over the images.
    """

    logits: Tensor
    target: Tensor
    unknown: Tensor
    distance: Tensor | None
    reduction: Reduction

    @classmethod
    def of(
        cls,
        logits: Tensor,
        target: Tensor,
        distance: Tensor | None = None,
        reduction: Reduction = "batch",
    ) -> Self:
        """Prepare a batch.

        Args:
            logits: (N, H, W), or (N, K, H, W) with several classes; of any precision.
            target: (N, H, W) uint8, 0 dry, 1 wet or another class, 255 unknown.
            distance: (N, K, H, W) of any type; K is 1 with two classes.
            reduction: As above.

        Raises:
            ValueError: The shapes do not fit.
        """
        classes = logits.shape[1:-2]
        if logits.shape != (target.shape[0], *classes, *target.shape[1:]) or len(classes) > 1:
            raise ValueError(f"logits are {tuple(logits.shape)}, target {tuple(target.shape)}")
        dtype = torch.promote_types(logits.dtype, torch.float32)
        if distance is not None:
            expected = (target.shape[0], *(classes or (1,)), *target.shape[1:])
            if distance.shape != expected:
                raise ValueError(f"distance is {tuple(distance.shape)}, where {expected} belongs")
            distance = distance.flatten(-2).to(dtype)
        flat = target.flatten(-2)
        return cls(logits.to(dtype).flatten(-2), flat, flat == UNKNOWN, distance, reduction)

    @property
    def several(self) -> bool:
        """Whether there are more than two classes."""
        return self.logits.ndim == 3

    @cached_property
    def truth(self) -> Tensor:
        """(N, K, P), 1 where a pixel is of the class, else 0."""
        if not self.several:
            return (self.target == WET).to(self.logits.dtype)[:, None]
        classes = torch.arange(self.logits.shape[1], device=self.target.device)
        return (self.target[:, None] == classes[:, None]).to(self.logits.dtype)

    @cached_property
    def probability(self) -> Tensor:
        """(N, K, P), the probability of each class; 0 where unknown."""
        if not self.several:
            return torch.sigmoid(self._known)[:, None]
        return self._log_probability.exp() * ~self.unknown[:, None]

    @cached_property
    def log_truth(self) -> Tensor:
        """(N, P), the log of the probability of the true class; 0 where unknown."""
        if not self.several:
            return functional.logsigmoid(self._known * (2.0 * self.truth[:, 0] - 1.0))
        chosen = self.target.long().masked_fill(self.unknown, 0)[:, None]
        return self._log_probability.gather(1, chosen)[:, 0].masked_fill(self.unknown, 0.0)

    @cached_property
    def sums(self) -> Sums:
        """What most terms are made of."""
        actual = self.truth.sum(dim=2)
        if not self.several:
            distance = None if self.distance is None else self.distance[:, 0]
            sums = _TwoClassSums.apply(  # type: ignore[no-untyped-call]
                self.logits, self.unknown, self.truth[:, 0], distance
            )
            entropy, hits, predicted, along = sums
            return Sums(entropy, hits, predicted, actual, along)
        probability, distance = self.probability, self.distance
        return Sums(
            -(self._log_probability * self.truth).sum(dim=2),
            (probability * self.truth).sum(dim=2),
            probability.sum(dim=2),
            actual,
            actual * 0 if distance is None else (probability * distance).sum(dim=2),
        )

    @cached_property
    def overlap(self) -> tuple[Tensor, Tensor, Tensor]:
        """The soft hits, false alarms and misses, (G, K), as shares of the labelled pixels.

        Classes that no pixel of a group has share their false alarms. A ratio rises the less, the
        more of them a class has, so that one by one the surest wrong class would grow at the cost
        of the others.
        """
        _, hits, predicted, actual, _ = self.sums
        alarms = self.share(predicted - hits)
        if self.several:
            absent = self.share(actual) == 0
            alarms = torch.where(absent, (alarms * absent).sum(dim=1, keepdim=True), alarms)
        return self.share(hits), alarms, self.share(actual - hits)

    @cached_property
    def counts(self) -> Tensor:
        """(G, 1), the labelled pixels of each group: one for the batch, or one an image."""
        labelled = self.unknown.shape[1] - torch.count_nonzero(self.unknown, dim=1)
        return self._grouped(labelled.to(self.logits.dtype)[:, None])

    def share(self, sums: Tensor) -> Tensor:
        """Turn sums over the pixels of each image, (N, K), into means of groups, (G, K)."""
        return self._grouped(sums) / self.counts.clamp(min=1.0)

    def mean(self, groups: Tensor) -> Tensor:
        """Average (G, K) over the classes, and over the groups with a labelled pixel."""
        there = (self.counts[:, 0] > 0).to(groups.dtype)
        found = (groups.mean(dim=1) * there).sum()
        if self.reduction == "batch":
            return found
        return _of_all_processes(found) / _of_all_processes(there.sum()).clamp(min=1.0)

    def _grouped(self, sums: Tensor) -> Tensor:
        if self.reduction == "image":
            return sums
        return _of_all_processes(sums.sum(dim=0, keepdim=True))

    @cached_property
    def _known(self) -> Tensor:
        """The logits without what unknown pixels have, be it NaN."""
        unknown = self.unknown[:, None] if self.several else self.unknown
        return self.logits.masked_fill(unknown, _NEVER)

    @cached_property
    def _log_probability(self) -> Tensor:
        return functional.log_softmax(self._known, dim=1)


def _of_all_processes(values: Tensor) -> Tensor:
    """Sum over the processes that share a batch, so that sums are those of all of it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    total: Tensor = _TotalSum.apply(values)  # type: ignore[no-untyped-call]
    return total


class _TotalSum(torch.autograd.Function):
    """A sum over processes. All make a loss of it, and take the mean of their gradients later."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # noqa: ARG004
        total = slope.clone()
        distributed.all_reduce(total)
        return total


class _TwoClassSums(torch.autograd.Function):
    """`Sums` for two classes, with the slope of all of them in one go.

    With z the logit, p = σ(z): ∂(−log p_t)/∂z is p where dry and p − 1 where wet, and
    ∂p/∂z = p (1 − p). What autograd would do takes three times as long as this.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, unknown: Tensor, truth: Tensor, distance: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        known = logits.masked_fill(unknown, _NEVER)
        probability = torch.sigmoid(known)
        log_truth = functional.logsigmoid(known * (2.0 * truth - 1.0))
        ctx.save_for_backward(probability, truth, distance)
        wet = torch.linalg.vecdot(log_truth, truth)
        dry = torch.linalg.vecdot(log_truth, 1.0 - truth)
        hits = torch.linalg.vecdot(probability, truth)[:, None]
        along = hits * 0 if distance is None else (probability * distance).sum(dim=1)[:, None]
        return -torch.stack([dry, wet], dim=1), hits, probability.sum(dim=1)[:, None], along

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, entropy: Tensor, hits: Tensor, predicted: Tensor, along: Tensor
    ) -> tuple[Tensor, None, None, None]:
        probability, truth, distance = ctx.saved_tensors
        dry, wet = entropy[:, :1], entropy[:, 1:]
        slope = hits * truth
        slope += predicted
        if distance is not None:
            slope += along * distance
        slope *= probability * (1.0 - probability)
        slope += dry * probability
        slope += truth * ((wet - dry) * probability - wet)
        return slope, None, None, None
