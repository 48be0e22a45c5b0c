"""Whether probabilities are honest: of the pixels called wet with 70 %, 70 % should be wet."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.model.histogram import BINS

CLASSES = 16


def reliability(pixels: NDArray[np.int64]) -> pd.DataFrame:
    """Return the reliability curve.

    Args:
        pixels: (2, 256), as `count_pixels` gives it.

    Returns:
        `probability` (the mean of the class), `wet_share` and `pixels` of 16 equally wide classes
        of probability; those without pixels are left out.
    """
    middles = (np.arange(BINS) + 0.5) / BINS
    total = pixels.sum(axis=0).reshape(CLASSES, -1)
    number = total.sum(axis=1)
    some = number > 0
    said = (total * middles.reshape(CLASSES, -1)).sum(axis=1)[some] / number[some]
    wet = pixels[1].reshape(CLASSES, -1).sum(axis=1)[some] / number[some]
    return pd.DataFrame({"probability": said, "wet_share": wet, "pixels": number[some]})


def calibration_error(pixels: NDArray[np.int64]) -> float | None:
    """Return the expected calibration error; None without pixels.

    The mean distance between probability and wet share over the pixels (Naeini et al. 2015,
    https://doi.org/10.1609/aaai.v29i1.9602), with 16 classes.
    """
    curve = reliability(pixels)
    if curve.empty:
        return None
    off = (curve["probability"] - curve["wet_share"]).abs()
    return float(np.average(off, weights=curve["pixels"]))
