"""Masks of separate patches, in batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sarflood.model.package import FloodModel
from sarflood.monitoring.sight import Sight

_BATCH = 16


def map_patches(
    model: FloodModel,
    images: NDArray[np.floating],
    sight: Sight | None = None,
    on_batch: Callable[[int], object] | None = None,
) -> NDArray[np.uint8]:
    """Answer patches of one event by the model.

    Args:
        model: The model.
        images: (N, C, H, W) in the model's bands and units; NaN is no data.
        sight: Gathers their statistics.
        on_batch: Is told how many patches are answered at once, before they are.

    Returns:
        (N, H, W) uint8 masks: 0 dry, 1 wet, 255 no data.
    """
    scaling = model.scaling_of(images)
    masks = np.empty((images.shape[0], *images.shape[2:]), np.uint8)
    for start in range(0, len(images), _BATCH):
        batch = slice(start, min(start + _BATCH, len(images)))
        if on_batch:
            on_batch(batch.stop - start)
        probabilities = model.probabilities(images[batch], scaling)
        masks[batch] = model.masks(probabilities)
        if sight:
            sight.add(images[batch], probabilities)
    return masks
