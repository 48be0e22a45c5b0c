"""Decibels: 10 · log10 of linear power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def to_db(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn linear backscatter into dB; what is not above 0 has no logarithm and becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = 10.0 * np.log10(power)
    return np.where(power > 0, decibel, np.nan).astype(np.float32)


def without_fill(decibel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make 0 in all bands NaN: processors fill a swath's edge so, and no set of true values is.

    Args:
        decibel: (C, H, W) in dB, the bands of one date; left as it is.
    """
    return np.where((decibel == 0).all(axis=0), np.float32(np.nan), decibel)
