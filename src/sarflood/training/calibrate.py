"""The temperature and the decision threshold, chosen on validation patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from torch import Tensor

from sarflood.raster.patch import DRY, WET, is_dry

LIMIT, STEP = 16.0, 1 / 64  # logits beyond the limit count as it
BINS = round(2 * LIMIT / STEP)
_TEMPERATURES = (0.1, 10.0)
_SURE = 1 / 256  # thresholds are at least this far from 0 and 1


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities and masks.

    Attributes:
        temperature: What logits are divided by.
        threshold: The probability from which on a pixel is wet.
        iou: The pooled IoU that it gives on the pixels it was chosen on.
    """

    temperature: float
    threshold: float
    iou: float


def count_logits(logits: Tensor, masks: Tensor) -> NDArray[np.int64]:
    """Count labelled pixels, dry and wet, by logit.

    Args:
        logits: (N, H, W) float.
        masks: (N, H, W) uint8, 1 wet, 255 unknown (not counted), all other codes dry.

    Returns:
        (2, 2048); row 0 dry, row 1 wet; column k has logits in [k, k + 1) / 64 − 16.
    """
    places = ((logits.float() + LIMIT) / STEP).clamp(0, BINS - 1).long()
    kinds = (is_dry(masks), masks == WET)
    counted = [torch.bincount(places[kind], minlength=BINS) for kind in kinds]
    return torch.stack(counted).cpu().numpy()


def calibrate(counts: NDArray[np.int64]) -> Calibration:
    """Choose the temperature with the least cross-entropy, and the threshold with the highest IoU.

    Guo et al. (2017), On Calibration of Modern Neural Networks, section 4.2,
    https://arxiv.org/abs/1706.04599. Of thresholds that are equally good the middle one is chosen.

    Args:
        counts: As `count_logits` gives them, summed over all patches.
    """
    edges = np.arange(counts.shape[1]) * STEP - LIMIT
    middles = edges + STEP / 2

    def cross_entropy(logarithm: float) -> float:
        logits = middles / np.exp(logarithm)
        return float(counts[DRY] @ np.logaddexp(0, logits) + counts[WET] @ np.logaddexp(0, -logits))

    found = minimize_scalar(cross_entropy, bounds=np.log(_TEMPERATURES), method="bounded")
    temperature = float(np.exp(found.x))
    probabilities = expit(edges / temperature)
    false_alarms, hits = counts[:, ::-1].cumsum(axis=1)[:, ::-1].astype(np.float64)
    iou = hits / np.maximum(false_alarms + counts[WET].sum(), 1)
    iou[(probabilities < _SURE) | (probabilities > 1 - _SURE)] = -1
    best = np.flatnonzero(iou == iou.max())
    chosen = int(best[len(best) // 2])
    return Calibration(temperature, float(probabilities[chosen]), float(iou[chosen]))
