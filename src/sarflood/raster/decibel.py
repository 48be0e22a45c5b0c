"""Decibels: 10 · log10 of linear power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def to_db(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn linear backscatter into dB; what is not above 0 has no logarithm and becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = 10.0 * np.log10(power)
    return np.where(power > 0, decibel, np.nan).astype(np.float32)
