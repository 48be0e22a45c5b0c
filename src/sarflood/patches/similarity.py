"""Patches without a grid that continue each other at an edge: neighbours in place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

MIN_CORRELATION = 0.6
_DEPTH = 2  # pixels from the edge that are averaged against speckle
_TREND = 65  # pixels: what varies slower along an edge says nothing of continuation
_SMOOTH = 3
_MIN_STD = 1e-3
_AT_ONCE = 2048  # patches whose edges are compared with all others at a time

Lines = NDArray[np.float32]


def edge_continuations(images: NDArray[np.float16]) -> pd.DataFrame:
    """Find pairs of patches of which one begins where the other ends.

    The right edge of one patch is correlated with the left edge of every other, and the bottom
    with the top, along the edge and less its trend. A pair counts where each is the other's best
    match, and the least correlation of all bands is at least 0.6.

    Args:
        images: (N, C, H, W), NaN no data; read patch by patch.

    Returns:
        `first` and `second` (positions), `down` and `right` (rows and columns from the first to the
        second: 0 and 1, or 1 and 0), `correlation`.
    """
    edges = [_edges(image) for image in images]
    pairs = []
    for ending, beginning, down in (("right", "left", 0), ("bottom", "top", 1)):
        ends, begins = (np.stack([edge[side] for edge in edges]) for side in (ending, beginning))
        pairs += [(end, begin, down, 1 - down, r) for end, begin, r in _mutual_best(ends, begins)]
    return pd.DataFrame(pairs, columns=["first", "second", "down", "right", "correlation"])


def _edges(image: NDArray[np.float16]) -> dict[str, Lines]:
    """Return the (C, L) lines along the four edges, of mean 0 and norm 1; 0 where nothing tells."""
    sides = {
        "left": image[:, :, :_DEPTH].mean(axis=2, dtype=np.float32),
        "right": image[:, :, -_DEPTH:].mean(axis=2, dtype=np.float32),
        "top": image[:, :_DEPTH].mean(axis=1, dtype=np.float32),
        "bottom": image[:, -_DEPTH:].mean(axis=1, dtype=np.float32),
    }
    return {side: _normal(line) for side, line in sides.items()}


def _normal(line: Lines) -> Lines:
    smooth = uniform_filter1d(line, _SMOOTH, axis=1) - uniform_filter1d(line, _TREND, axis=1)
    smooth -= smooth.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(smooth, axis=1, keepdims=True)
    telling = norm > _MIN_STD * np.sqrt(line.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(telling, smooth / norm, np.float32(0))


def _mutual_best(ends: Lines, begins: Lines) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of (N, C, L) lines that are each other's best match."""
    count = len(ends)
    best_begin, best_value = np.zeros(count, np.int64), np.full(count, -1.0, np.float32)
    best_end, end_value = np.zeros(count, np.int64), np.full(count, -1.0, np.float32)
    for start in range(0, count, _AT_ONCE):
        rows = slice(start, min(start + _AT_ONCE, count))
        least = np.min(
            [ends[rows, band] @ begins[:, band].T for band in range(ends.shape[1])], axis=0
        )
        own = np.arange(rows.start, rows.stop)
        least[own - start, own] = -1
        best_begin[rows], best_value[rows] = least.argmax(axis=1), least.max(axis=1)
        better = least.max(axis=0) > end_value
        best_end[better] = start + least.argmax(axis=0)[better]
        end_value = np.maximum(end_value, least.max(axis=0))
    for end in np.flatnonzero(best_value >= MIN_CORRELATION):
        if best_end[best_begin[end]] == end:
            yield int(end), int(best_begin[end]), float(best_value[end])
