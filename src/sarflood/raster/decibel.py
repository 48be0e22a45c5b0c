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
    """Make NaN what all bands fill alike at a swath's edge without saying so in a tag.

    That is 0, and what no backscatter reaches, such as -99, -9999 or 255 dB. No set of true values
    is either.

    Args:
        decibel: (C, H, W) in dB, the bands of one date; left as it is.

    Returns:
        `decibel` itself where there is no fill.
    """
    odd = (decibel[0] == 0) | (np.abs(decibel[0]) > BEYOND_DB)
    if not odd.any():
        return decibel
    fill = (decibel == 0).all(axis=0) | (np.abs(decibel) > BEYOND_DB).all(axis=0)
    return np.where(fill, np.float32(np.nan), decibel)
