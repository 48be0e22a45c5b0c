"""The decision threshold, chosen on validation patches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarflood.model.histogram import BINS, count_pixels


def count_by_probability(logits: Tensor, masks: Tensor) -> NDArray[np.int64]:
    """Count labelled pixels as `count_pixels` does, for logits and masks (N, H, W)."""
    return count_pixels(torch.sigmoid(logits.float()).cpu().numpy(), masks.cpu().numpy())


def best_threshold(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the threshold with the highest pooled IoU, and that IoU.

    Args:
        counts: (2, 256), as `count_by_probability` gives them, summed over all patches.

    Returns:
        A threshold in [1/256, 255/256]; where several are equally good, the middle one.
    """
    false_alarms, hits = (row[::-1].cumsum()[::-1][1:].astype(np.float64) for row in counts)
    iou = hits / np.maximum(false_alarms + counts[1].sum(), 1)
    best = np.flatnonzero(iou == iou.max())
    chosen = int(best[len(best) // 2])
    return (chosen + 1) / BINS, float(iou[chosen])
