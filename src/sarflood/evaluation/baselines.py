"""What a model must beat: two thresholds on VV backscatter, below which a pixel is called wet."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sarflood.errors import InputError
from sarflood.raster.patch import DRY, UNKNOWN, WET

WINDOW = 5  # pixels, edge of the mean that calms the speckle
# Candidate thresholds: dB and 8-bit values lie in this range; a power of two keeps each one exact.
LOWEST, HIGHEST, STEP = -128.0, 256.0, 1 / 128


def otsu_threshold(values: NDArray[np.floating]) -> float:
    """Return the threshold that parts `values` into two classes as far apart as can be.

    It maximises the variance between the classes over all distinct values (no histogram of chosen
    bins), and lies half-way between the classes. Otsu (1979), https://doi.org/10.1109/TSMC.1979.4310076.

    Args:
        values: (n,) finite values.

    Returns:
        The threshold; where all values are the same that value, and −inf where there is none, so
        that nothing lies below.
    """
    levels, counts = np.unique(values.astype(np.float64), return_counts=True)
    if levels.size < 2:
        return float(levels[0]) if levels.size else float("-inf")
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(levels * counts)
    mean_below = sums[:-1] / below
    mean_above = (sums[-1] - sums[:-1]) / above
    split = int(np.argmax(below * above * (mean_above - mean_below) ** 2.0))
    return float((levels[split] + levels[split + 1]) / 2)


def otsu_mask(vv: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Call wet what lies below Otsu's threshold of this patch.

    Args:
        vv: (H, W) post-event backscatter; NaN is no data.

    Returns:
        (H, W) uint8; 0 dry, 1 wet, 255 no data.
    """
    return _below(vv, otsu_threshold(vv[np.isfinite(vv)]))


def threshold_mask(vv: NDArray[np.floating], threshold: float) -> NDArray[np.uint8]:
    """Call wet what lies below `threshold` after a 5×5 mean; shapes as for `otsu_mask`."""
    return _below(local_mean(vv), threshold)


def _below(values: NDArray[np.floating], threshold: float) -> NDArray[np.uint8]:
    mask = np.where(values < threshold, WET, DRY)
    return np.where(np.isfinite(values), mask, UNKNOWN).astype(np.uint8)


def local_mean(vv: NDArray[np.floating]) -> NDArray[np.float64]:
    """Average (H, W) over 5×5 pixels, of which only those inside and with data count.

    What is no data itself stays NaN.
    """
    valid = np.isfinite(vv)
    filled = np.where(valid, vv, 0.0).astype(np.float64)
    total = ndimage.uniform_filter(filled, WINDOW, mode="constant")
    share = ndimage.uniform_filter(valid.astype(np.float64), WINDOW, mode="constant")
    mean: NDArray[np.float64] = np.full(vv.shape, np.nan)
    np.divide(total, share, out=mean, where=valid)
    return mean


def fit_threshold(
    patches: Iterable[tuple[NDArray[np.floating], NDArray[np.uint8]]],
) -> float:
    """Return the one threshold on the 5×5 mean of VV with the highest pooled IoU.

    Two histograms hold all that is needed of the patches, which are seen one at a time; the IoU of
    each multiple of 1/128 then follows from their running sums.

    Args:
        patches: Pairs of VV (H, W), NaN no data, and the mask (H, W), 1 wet, 255 unknown, all
            other codes dry.

    Raises:
        InputError: No pixel of the patches is wet, so that there is nothing to fit to.
    """
    bins = round((HIGHEST - LOWEST) / STEP)
    histograms = np.zeros((2, bins), np.int64)
    for vv, truth in patches:
        smooth = local_mean(vv)
        known = (truth != UNKNOWN) & np.isfinite(smooth)
        place = (np.floor(smooth[known] / STEP) - LOWEST / STEP).clip(0, bins - 1).astype(np.int64)
        wet = truth[known] == WET
        for kind, chosen in ((DRY, ~wet), (WET, wet)):
            histograms[kind] += np.bincount(place[chosen], minlength=bins)
    alarms, hits = histograms.cumsum(axis=1)
    if not hits[-1]:
        raise InputError(
            "no training patch has a wet pixel, so the threshold baseline cannot be fitted; "
            "ingest a labelled event with water in it"
        )
    iou = hits / (hits[-1] + alarms)
    return LOWEST + STEP * (int(np.argmax(iou)) + 1)
