"""Where a scene lies outside the range of values that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sarflood.mapping.layers import Layer
from sarflood.model.inputs import has_data
from sarflood.monitoring.sight import beyond_training

CELL = 16  # pixels a side; strips begin and end at whole cells
# Speckle brings a pixel now and then beyond what the training's pixels reach but for a thousandth:
# a cell is outside if more than this share of its pixels is.
_SHARE = 0.1


def cells_outside(
    image: NDArray[np.floating], ranges: Sequence[tuple[float, float]]
) -> NDArray[np.bool_]:
    """Say of each cell of 16×16 pixels whether it lies outside the range.

    Args:
        image: (C, H, W); NaN is no data.
        ranges: Of each band, the lowest and the highest value.

    Returns:
        (⌈H / 16⌉, ⌈W / 16⌉) bool.
    """
    found = _counts(beyond_training(image[None], ranges)[0])
    there = _counts(has_data(image[None])[0])
    outside: NDArray[np.bool_] = found > _SHARE * there
    return outside


def expanded(cells: Layer, top: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return (h, W) bool for rows of pixels from `top` on, which begins a cell."""
    rows = cells.rows(top // CELL, -(-(top + shape[0]) // CELL)).astype(np.bool_)
    pixels: NDArray[np.bool_] = np.repeat(np.repeat(rows, CELL, axis=0), CELL, axis=1)
    return pixels[: shape[0], : shape[1]]


def _counts(selected: NDArray[np.bool_]) -> NDArray[np.int64]:
    starts = [np.arange(0, length, CELL) for length in selected.shape]
    down = np.add.reduceat(selected, starts[0], axis=0, dtype=np.int64)
    counts: NDArray[np.int64] = np.add.reduceat(down, starts[1], axis=1)
    return counts
