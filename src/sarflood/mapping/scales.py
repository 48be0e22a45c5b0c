"""The scale of a scene, for a model that wants it: of the whole, or around each pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from sarflood.mapping.bands import SceneBands
from sarflood.mapping.tiles import TILE
from sarflood.model.inputs import BLOCK, Scaling, block_moments, local_scaling
from sarflood.model.package import FloodModel
from sarflood.raster.patch import PATCH

_SCALING_PATCHES = 200  # of a scene, at most twice as many, tell its scale


def scene_scaling(model: FloodModel, bands: SceneBands) -> Callable[[Window], Scaling | None]:
    """Return what says how a window of the scene is scaled; looks at the scene first.

    A window gets the same statistics as it would within any other window, so tiles show no seams.
    """
    kind = model.manifest.input.normalisation
    if kind == "event":
        scaling = model.scaling_of(_spread(bands))
        return lambda _: scaling
    if kind in ("local", "both"):
        moments = _moments(bands, len(model.manifest.bands))
        return lambda window: local_scaling(
            moments,
            np.arange(window.row_off, window.row_off + window.height),
            np.arange(window.col_off, window.col_off + window.width),
        )
    return lambda _: None


def _windows(bands: SceneBands, edge: int) -> list[Window]:
    return [
        Window(left, top, min(edge, bands.width - left), min(edge, bands.height - top))
        for top in range(0, bands.height, edge)
        for left in range(0, bands.width, edge)
    ]


def _spread(bands: SceneBands) -> NDArray[np.float32]:
    """Read patches that are spread over the scene; those at its border are padded."""
    windows = _windows(bands, PATCH)
    step = max(1, len(windows) // _SCALING_PATCHES)
    return np.stack([_padded(bands.read(window)) for window in windows[::step]])


def _padded(image: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.full((len(image), PATCH, PATCH), np.nan, np.float32)
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded


def _moments(bands: SceneBands, count: int) -> NDArray[np.float64]:
    """Read the whole scene once, tile by tile, and keep the sums of its blocks."""
    moments = np.zeros((3, 1, count, -(-bands.height // BLOCK), -(-bands.width // BLOCK)))
    for window in _windows(bands, TILE):
        found = block_moments(bands.read(window)[None])
        top, left = window.row_off // BLOCK, window.col_off // BLOCK
        moments[..., top : top + found.shape[-2], left : left + found.shape[-1]] = found
    return moments
