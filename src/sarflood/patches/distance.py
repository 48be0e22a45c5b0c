"""Distances to the borders of what a mask shows, for the boundary loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from sarflood.raster.patch import UNKNOWN

MAX_DISTANCE = 127  # pixels; also where a patch has no border


def signed_distance(mask: NDArray[np.uint8], of: int) -> NDArray[np.int8]:
    """Return how far each pixel is from the border of a class, negative inside.

    As Kervadec et al. (2019), https://arxiv.org/abs/1812.07032, have it: outside the distance to
    the nearest pixel of the class, inside 1 less than that to the nearest of another one, negated,
    so that the border's own pixels have 0. Unknown pixels are neither.

    Args:
        mask: (H, W) uint8; 255 is unknown.
        of: The class.

    Returns:
        (H, W) int8 in whole pixels, -127 to 127; 0 where unknown.
    """
    inside = mask == of
    outside = ~inside & (mask != UNKNOWN)
    distance = np.zeros(mask.shape, np.float64)
    distance[outside] = _to(inside)[outside]
    distance[inside] = 1 - _to(outside)[inside]
    return np.rint(np.clip(distance, -MAX_DISTANCE, MAX_DISTANCE)).astype(np.int8)


def _to(pixels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of each pixel to the nearest of these; far where there are none."""
    if not pixels.any():
        return np.full(pixels.shape, MAX_DISTANCE + 1.0)
    distance: NDArray[np.float64] = distance_transform_edt(~pixels)
    return distance
