"""How sure a pooled figure is: 95 % intervals by bootstrap over blocks of ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 2  # patches, edge of the square blocks of ground that are drawn as one
SAMPLES = 2000
_LOW_HIGH = (2.5, 97.5)  # percent

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """How much the pooled IoU of one model is above that of another, and how sure that is.

    Attributes:
        value: The difference; None where one has no IoU, for nothing is wet and none was called so.
        low: With the confidence asked for, it is above this; None where that cannot be told, with
            fewer than two blocks of ground.
        high: With the same confidence, it is below this.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


def bootstrap(
    counts: NDArray[np.int64], blocks: NDArray[np.int64]
) -> tuple[list[Interval | None], list[Interval | None]]:
    """Return the intervals of pooled IoU and of pooled F1, for each method.

    Neighbouring patches fail together, so whole blocks are drawn, with replacement (percentile
    method, Efron and Tibshirani 1993, chapters 8 and 13); the same draws for each method.

    Args:
        counts: (N, M, 3) true positives, false positives and false negatives of N patches and M
            methods.
        blocks: (N,) number of the block that each patch lies in.

    Returns:
        Low and high end for each method, IoU then F1; None where there is one block only, or no
        draw has wet pixels.
    """
    drawn = _draw(counts, blocks)
    if drawn is None:
        return [None] * counts.shape[1], [None] * counts.shape[1]
    hits, alarms, misses = np.moveaxis(drawn, -1, 0)
    return (
        _interval(hits, hits + alarms + misses),
        _interval(2 * hits, 2 * hits + alarms + misses),
    )


def iou_difference(
    counts: NDArray[np.int64], blocks: NDArray[np.int64], confidence: float
) -> Difference:
    """Compare the pooled IoU of two models on the same patches, by the same draws of blocks.

    Args:
        counts: (N, 2, 3) true positives, false positives and false negatives, of the model and of
            the one that it is compared with.
        blocks: (N,) number of the block that each patch lies in.
        confidence: Of each end by itself; 0.95 gives the 90 % interval.
    """
    total = counts.sum(axis=0)
    if not total.sum(axis=-1).all():
        return Difference(None)
    ours, other = total[:, 0] / total.sum(axis=-1)
    drawn = _draw(counts, blocks)
    if drawn is None:
        return Difference(float(ours - other))
    unions = drawn.sum(axis=-1)
    has = unions.all(axis=1)
    ious = drawn[has, :, 0] / unions[has]
    low, high = np.percentile(ious[:, 0] - ious[:, 1], (100 * (1 - confidence), 100 * confidence))
    return Difference(float(ours - other), float(low), float(high))


def _draw(counts: NDArray[np.int64], blocks: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Add up the counts of `SAMPLES` draws of blocks: (SAMPLES, …); None with a single block."""
    _, block = np.unique(blocks, return_inverse=True)
    number = int(block.max(initial=-1)) + 1
    if number < 2:
        return None
    summed = np.zeros((number, counts[0].size))
    np.add.at(summed, block, counts.reshape(len(counts), -1))
    drawn = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), SAMPLES)
    added: NDArray[np.float64] = drawn.astype(np.float64) @ summed
    return added.reshape(SAMPLES, *counts.shape[1:])


def _interval(part: NDArray[np.float64], whole: NDArray[np.float64]) -> list[Interval | None]:
    found: list[Interval | None] = []
    for above, below in zip(part.T, whole.T, strict=True):
        has = below > 0
        if not has.any():
            found.append(None)
            continue
        low, high = np.percentile(above[has] / below[has], _LOW_HIGH)
        found.append((float(low), float(high)))
    return found
