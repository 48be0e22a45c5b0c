"""How backscatter and water look, in every picture of a map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WATER = "#1f6feb"


def stretched(backscatter: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (h, w) float32 grey in [0, 1]: black the 1st, white the 99th percentile; 0 for NaN."""
    valid = np.isfinite(backscatter)
    low, high = np.percentile(backscatter[valid], (1.0, 99.0)) if valid.any() else (0.0, 1.0)
    grey = (np.nan_to_num(backscatter, nan=low) - low) / max(float(high - low), 1e-6)
    return np.clip(grey, 0.0, 1.0).astype(np.float32)
