"""Labelled pixels counted by class and probability: all that thresholds and curves need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sarflood.raster.patch import WET, is_dry

BINS = 256


def count_pixels(probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count labelled pixels by class and probability.

    Args:
        probabilities: Of "wet", in any shape; NaN is no data (not counted).
        masks: uint8 in the same shape, 1 wet, 255 unknown (not counted), all other codes dry.

    Returns:
        (2, 256) counts; row 0 dry, row 1 wet; column k has probabilities in [k, k + 1) / 256, the
        last one 1 as well.
    """
    known = np.isfinite(probabilities)
    counts = []
    for kind in (is_dry(masks), masks == WET):
        bins = (probabilities[known & kind] * BINS).astype(np.int64)
        counts.append(np.bincount(bins.clip(max=BINS - 1), minlength=BINS))
    return np.stack(counts)
