"""The scale of a scene, for a model that wants it: of the whole, or around each pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from sarflood.mapping.bands import SceneBands
from sarflood.model.inputs import BLOCK, Scaling, block_moments, local_scaling
from sarflood.model.package import FloodModel
from sarflood.raster.patch import PATCH

_SCALING_PATCHES = 300  # of a scene tell its scale
_COLUMNS = 32 * BLOCK  # are summed up at a time


class SceneScale:
    """Says how a window of a scene is scaled.

    A window gets the same statistics as it would within any other window, so tiles show no seams.
    """

    def __init__(self, model: FloodModel, bands: SceneBands) -> None:
        kind = model.manifest.input.normalisation
        self._whole = model.scaling_of(_spread(bands)) if kind == "event" else None
        self._moments: NDArray[np.float64] | None = None
        if kind in ("local", "both"):
            blocks = (-(-bands.height // BLOCK), -(-bands.width // BLOCK))
            self._moments = np.zeros((3, 1, len(model.manifest.bands), *blocks))

    def see(self, top: int, image: NDArray[np.floating]) -> None:
        """Take in rows of the scene.

        Args:
            top: The first row; a multiple of 128.
            image: (C, h, W) with h a multiple of 128, or up to the scene's last row.
        """
        if self._moments is None:
            return
        for start in range(0, image.shape[1], BLOCK):
            for left in range(0, image.shape[2], _COLUMNS):
                part = image[None, :, start : start + BLOCK, left : left + _COLUMNS]
                found, column = block_moments(part)[..., 0, :], left // BLOCK
                row = (top + start) // BLOCK
                self._moments[..., row, column : column + found.shape[-1]] = found

    def of(self, window: Window) -> Scaling | None:
        """Return the scale of a window; the rows up to 256 pixels around it must have been seen."""
        if self._moments is None:
            return self._whole
        rows = np.arange(window.row_off, window.row_off + window.height)
        cols = np.arange(window.col_off, window.col_off + window.width)
        return local_scaling(self._moments, rows, cols)


def _spread(bands: SceneBands) -> NDArray[np.float32]:
    """Read patches that are spread over the scene; those at its border are padded."""
    windows = spread_windows(bands.height, bands.width)
    return np.stack([_padded(bands.read(window)) for window in windows])


def spread_windows(height: int, width: int) -> list[Window]:
    """Return the windows of patches all over a scene, in the order of the file.

    Drawn at random, always alike: every so many of them would often be the same few columns.
    """
    windows = [
        Window(left, top, min(PATCH, width - left), min(PATCH, height - top))
        for top in range(0, height, PATCH)
        for left in range(0, width, PATCH)
    ]
    drawn = np.random.default_rng(0).permutation(len(windows))[:_SCALING_PATCHES]
    return [windows[number] for number in sorted(drawn.tolist())]


def _padded(image: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.full((len(image), PATCH, PATCH), np.nan, np.float32)
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded
