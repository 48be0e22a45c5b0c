"""Which loss suits the training masks, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from sarflood.params import LossName, Ramp
from sarflood.raster.patch import UNKNOWN, WET, is_dry

BALANCED = 0.3  # from this wet share on, and below its counterpart, classes are balanced
THIN = 0.3  # border pixels for each wet one; a strip of 7 pixels has about that
MOSTLY_DRY = 0.5  # share of the patches without water
_BOUNDARY: Ramp = (0.0, 0.5)  # the boundary term needs a network that finds the water already


class MaskFigures(BaseModel):
    """What a loss depends on in masks.

    Attributes:
        patches: Their number.
        wet_share: Of all labelled pixels.
        dry_patches: Share of the patches without a wet pixel.
        object_pixels: Area of the connected water that the median wet pixel is part of, within its
            patch; 0 without water.
        border_share: Wet pixels with a dry one beside them (one of 4), for each wet pixel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patches: int
    wet_share: float
    dry_patches: float
    object_pixels: int
    border_share: float


@dataclass(frozen=True)
class Advice:
    """A loss, and why.

    Attributes:
        terms: As in `loss.terms`.
        reason: A sentence.
        figures: What it was decided on.
    """

    terms: dict[LossName, Ramp]
    reason: str
    figures: MaskFigures


def look_at(masks: NDArray[np.uint8]) -> MaskFigures:
    """Measure (N, H, W) masks; 1 wet, 255 unknown, all other codes dry."""
    labelled = wet = border = dry = 0
    areas: list[NDArray[np.int64]] = []
    for mask in masks:
        water = mask == WET
        labelled += int((mask != UNKNOWN).sum())
        dry += not water.any()
        wet += int(water.sum())
        beside = ndimage.binary_dilation(is_dry(mask))
        border += int((water & beside).sum())
        areas.append(np.bincount(ndimage.label(water)[0].ravel())[1:])
    sizes = np.sort(np.concatenate(areas)) if areas else np.empty(0, np.int64)
    middle = np.searchsorted(sizes.cumsum(), wet / 2)
    return MaskFigures(
        patches=len(masks),
        wet_share=wet / max(labelled, 1),
        dry_patches=dry / max(len(masks), 1),
        object_pixels=int(sizes[middle]) if sizes.size else 0,
        border_share=border / max(wet, 1),
    )


def advise(masks: NDArray[np.uint8]) -> Advice:
    """Choose a loss for (N, H, W) training masks; 1 wet, 255 unknown, all else dry.

    Thin water asks for borders in their place; a balanced split for plain cross-entropy; of a
    minority the overlap counts, steadied by cross-entropy where many patches have no water at all.
    """
    found = look_at(masks)
    wet = f"{found.wet_share:.1%} of the pixels are wet"
    if found.border_share >= THIN:
        return Advice(
            {"cross_entropy": (1.0, 1.0), "dice": (1.0, 1.0), "boundary": _BOUNDARY},
            f"water is thin: {found.border_share:.0%} of the wet pixels are border, so borders "
            "decide; the boundary term grows as the network learns where water is",
            found,
        )
    if BALANCED <= found.wet_share <= 1 - BALANCED:
        return Advice(
            {"cross_entropy": (1.0, 1.0)},
            f"the classes are balanced ({wet}), so that each pixel may count alike",
            found,
        )
    if found.dry_patches < MOSTLY_DRY and found.wet_share < BALANCED:
        return Advice(
            {"dice": (1.0, 1.0)},
            f"water is a minority ({wet}) that most patches have, so that its overlap counts",
            found,
        )
    return Advice(
        {"cross_entropy": (1.0, 1.0), "dice": (1.0, 1.0)},
        f"{wet}, and {found.dry_patches:.0%} of the patches have none: overlap counts, and "
        "cross-entropy keeps training steady where a batch is all dry",
        found,
    )
