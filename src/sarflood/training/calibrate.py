"""The decision threshold, chosen on validation patches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 256


def count_by_probability(logits: Tensor, masks: Tensor) -> NDArray[np.int64]:
    """Count labelled pixels by class and probability.

    Args:
        logits: (N, H, W).
        masks: (N, H, W) uint8, 0 dry, 1 wet, 255 unknown (not counted).

    Returns:
        (2, 256) counts; row 0 dry, row 1 wet; column k has probabilities in [k, k + 1) / 256.
    """
    bins = (torch.sigmoid(logits.float()) * BINS).long().clamp_(0, BINS - 1)
    known = masks < 2
    cells = bins[known] + BINS * masks[known].long()
    counts: NDArray[np.int64] = torch.bincount(cells, minlength=2 * BINS).cpu().numpy()
    return counts.reshape(2, BINS)


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
