"""How sure a pooled figure is: 95 % intervals by bootstrap over blocks of ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 2  # patches, edge of the square blocks of ground that are drawn as one
SAMPLES = 2000
_LOW_HIGH = (2.5, 97.5)  # percent

Interval = tuple[float, float]


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
    _, block = np.unique(blocks, return_inverse=True)
    number = int(block.max(initial=-1)) + 1
    methods = counts.shape[1]
    if number < 2:
        return [None] * methods, [None] * methods
    summed = np.zeros((number, methods, 3))
    np.add.at(summed, block, counts)
    drawn = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), SAMPLES)
    hits, alarms, misses = np.moveaxis(np.tensordot(drawn, summed, 1), -1, 0)
    return (
        _interval(hits, hits + alarms + misses),
        _interval(2 * hits, 2 * hits + alarms + misses),
    )


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
