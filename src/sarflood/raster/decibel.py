"""Decibels: 10 · log10 of linear power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BEYOND_DB = 60.0  # Sentinel-1's noise floor is about -30 dB, and corner reflectors reach +40 dB


def to_db(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn linear backscatter into dB; what is not above 0 has no logarithm and becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = 10.0 * np.log10(power)
    return np.where(power > 0, decibel, np.nan).astype(np.float32)


def without_fill(decibel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make NaN what fills a swath's edge without a tag that says so.

    In each band that is what lies below all backscatter, such as -99 or -9999 dB. What is 0, or
    lies above all backscatter, such as 255, is so only where all bands are: a single 0 may be true,
    and single high values say that these are no dB, which validation is to find.

    Args:
        decibel: (C, H, W) in dB, the bands of one date; left as it is.

    Returns:
        `decibel` itself where there is no fill.
    """
    below = decibel < -BEYOND_DB
    odd = (decibel[0] == 0) | (decibel[0] > BEYOND_DB)
    if not (odd.any() or below.any()):
        return decibel
    alike = (decibel == 0).all(axis=0) | (decibel > BEYOND_DB).all(axis=0)
    return np.where(below | alike, np.float32(np.nan), decibel)
