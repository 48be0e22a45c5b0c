"""Land cover of four classes, each with backscatter of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tiny import write_scene

CLASSES = ("other", "water", "forest", "crops")
# VV and VH in dB, by class; water is the darkest in both.
LEVELS = np.array([[-12.0, -20.0, -6.0, -8.0], [-16.0, -26.0, -10.0, -21.0]], np.float32)


def land_cover(size: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Blobs of each class with speckle of four looks: (2, H, W) dB and (H, W) codes."""
    random = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(random.normal(size=(4, size, size)), (0, 15, 15), mode="wrap")
    mask = fields.argmax(axis=0).astype(np.uint8)
    looks = random.gamma(4.0, 1 / 4.0, (2, size, size))
    return (LEVELS[:, mask] + 10 * np.log10(looks)).astype(np.float32), mask


def write_land_cover(folder: Path, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Write a scene with its mask as a source; return the mask."""
    folder.mkdir()
    image, mask = land_cover(size, seed)
    mask[:5, :5] = 255
    write_scene(folder / "scene.tif", image, ("VV", "VH"))
    write_scene(folder / "mask.tif", mask[None], nodata=255)
    return mask
