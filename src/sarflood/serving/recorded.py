"""Recorded patches with their masks: what a bundle must answer before it may serve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sarflood.errors import InputError, SarfloodError
from sarflood.serving.arrays import DAMAGED

# Sums of another order, as on another processor, may tip a pixel at the threshold.
MAX_DIFFERENT = 0.001
# Stands in the log of a service that found its model damaged or not the one recorded.
REFUSES = "refuses to serve"


def read_recorded(path: Path) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Read `recorded.npz`.

    Returns:
        Images (K, C, 256, 256) float16, NaN no data, and masks (K, 256, 256) uint8.

    Raises:
        InputError: The file is missing or damaged, or holds no patches.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, masks = arrays["images"], arrays["masks"]
    except DAMAGED as error:
        raise InputError(
            f"{path}: no recorded patches ({error}); evaluate the model again"
        ) from error
    if images.ndim != 4 or not len(images) or masks.shape != (len(images), *images.shape[2:]):
        raise InputError(f"{path}: images {images.shape} and masks {masks.shape} do not fit")
    return images, masks


def check_answers(answered: NDArray[np.uint8], recorded: NDArray[np.uint8], who: str) -> float:
    """Return the share of pixels that are as recorded.

    Raises:
        SarfloodError: More than 0.1 % of them differ.
    """
    if answered.shape != recorded.shape:
        raise SarfloodError(f"{who}: answered {answered.shape}, recorded is {recorded.shape}")
    equal = float((answered == recorded).mean())
    if equal < 1 - MAX_DIFFERENT:
        raise SarfloodError(
            f"{who}: {1 - equal:.2%} of the pixels are not as recorded when the model was "
            f"evaluated (at most {MAX_DIFFERENT:.1%}); weights or code are not those of the version"
        )
    return equal
