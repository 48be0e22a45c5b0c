"""Recorded patches with their masks: what a bundle must answer before it may serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sarflood.errors import InputError, SarfloodError
from sarflood.mapping.arrays import DAMAGED
from sarflood.raster.patch import UNKNOWN, WET

# Sums of another order, as on another processor, may tip a pixel at the threshold.
MAX_DIFFERENT = 0.001
# An engine that rounds, to 8 bits or to bfloat16, tips more of them; it must not cost quality.
MAX_DIFFERENT_ROUNDED = 0.01
MAX_IOU_CHANGE = 0.005
RECORDED = "recorded.npz"  # of a package


@dataclass(frozen=True)
class Recorded:
    """What `recorded.npz` holds.

    Attributes:
        images: (K, C, 256, 256) float16, NaN no data.
        masks: (K, 256, 256) uint8, what the model answered when it was evaluated.
        truth: (K, 256, 256) uint8, what is there: 1 is wet, 255 unknown.
    """

    images: NDArray[np.float16]
    masks: NDArray[np.uint8]
    truth: NDArray[np.uint8]


@dataclass(frozen=True)
class Likeness:
    """How answers compare with those recorded.

    Attributes:
        equal_share: The share of the pixels that are as recorded.
        iou_change: By how much the IoU with the truth is larger than that of the recorded masks.
    """

    equal_share: float
    iou_change: float


def read_recorded(path: Path) -> Recorded:
    """Read `recorded.npz`.

    Raises:
        InputError: The file is missing or damaged, or holds no patches.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = Recorded(arrays["images"], arrays["masks"], arrays["truth"])
    except DAMAGED as error:
        raise InputError(
            f"{path}: no recorded patches ({error}); evaluate the model again"
        ) from error
    images, masks = found.images, found.masks
    wanted = (len(images), *images.shape[2:])
    if images.ndim != 4 or not len(images) or not masks.shape == found.truth.shape == wanted:
        raise InputError(f"{path}: images {images.shape} and masks {masks.shape} do not fit")
    return found


def check_answers(
    answered: NDArray[np.uint8], recorded: Recorded, who: str, *, rounded: bool = False
) -> Likeness:
    """Compare answers with those recorded.

    Args:
        answered: Masks of the recorded images.
        recorded: What was recorded.
        who: Begins the message.
        rounded: They come from an engine that computes less exactly than the evaluation did.

    Raises:
        SarfloodError: More than 0.1 % of the pixels differ; of one that rounds, more than 1 %, or
            the IoU changes by more than 0.005.
    """
    if answered.shape != recorded.masks.shape:
        raise SarfloodError(f"{who}: answered {answered.shape}, recorded is {recorded.masks.shape}")
    found = Likeness(
        equal_share=float((answered == recorded.masks).mean()),
        iou_change=_iou(answered, recorded.truth) - _iou(recorded.masks, recorded.truth),
    )
    most = MAX_DIFFERENT_ROUNDED if rounded else MAX_DIFFERENT
    if found.equal_share < 1 - most:
        cause = "" if rounded else "; weights or code are not those of the version"
        raise SarfloodError(
            f"{who}: {1 - found.equal_share:.2%} of the pixels are not as recorded when the model "
            f"was evaluated (at most {most:.1%}){cause}"
        )
    if rounded and abs(found.iou_change) > MAX_IOU_CHANGE:
        raise SarfloodError(
            f"{who}: the IoU changes by {found.iou_change:+.4f} (at most {MAX_IOU_CHANGE})"
        )
    return found


def _iou(masks: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    known = (masks != UNKNOWN) & (truth != UNKNOWN)
    said, true = (masks == WET) & known, (truth == WET) & known
    return float((said & true).sum() / max(1, (said | true).sum()))
