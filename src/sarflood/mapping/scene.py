"""From a scene to its flood map: the one path from pixels to a mask, in CLI and service."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from sarflood.mapping.bands import SceneBands, open_scene
from sarflood.mapping.scales import scene_scaling
from sarflood.mapping.tiles import OVERLAP, TILE, blended_rows
from sarflood.model.package import FloodModel, ModelManifest
from sarflood.monitoring.sight import Sight
from sarflood.raster.areas import area_km2
from sarflood.raster.patch import UNKNOWN, WET
from sarflood.raster.safe import MAX_MEGAPIXELS

_PREVIEW_PIXELS = 2048


@dataclass(frozen=True)
class SceneMap:
    """The flood map of a scene.

    Attributes:
        probability: (H, W) float32, the probability of "wet"; NaN is no data.
        mask: (H, W) uint8: 0 dry, 1 wet, 255 no data.
        crs: The coordinate reference system.
        transform: Pixel (column, row) to CRS coordinates.
        backscatter: (h, w) float32, every `backscatter_step`-th pixel of the model's first band, to
            look at; NaN is no data.
        backscatter_step: Pixels of the scene between two of `backscatter`.
        manifest: The model that made it.
        flooded_km2: Area of the wet pixels on the WGS 84 ellipsoid.
        seconds: How long it took.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.uint8]
    crs: CRS
    transform: Affine
    backscatter: NDArray[np.float32]
    backscatter_step: int
    manifest: ModelManifest
    flooded_km2: float
    seconds: float

    @property
    def valid_share(self) -> float:
        """Share of the pixels with data."""
        return float((self.mask != UNKNOWN).mean())

    @property
    def flooded_share(self) -> float:
        """Share of the pixels with data that are wet; 0 where there are none."""
        return float((self.mask == WET).sum() / max(1, (self.mask != UNKNOWN).sum()))


def map_scene(
    model: FloodModel,
    scene: Path,
    pre: Path | None = None,
    *,
    on_progress: Callable[[float], object] | None = None,
    max_megapixels: int = MAX_MEGAPIXELS,
    sight: Sight | None = None,
) -> SceneMap:
    """Map a georeferenced scene.

    It is read tile by tile; where tiles overlap their probabilities are blended, so that no seams
    show. A pixel without data in any band has none in the map.

    Args:
        model: The model.
        scene: A GeoTIFF with the model's bands, in dB, linear power or 8-bit grey levels.
        pre: The scene from before the event on the same grid, for a model that compares the two
            and if `scene` does not hold its bands itself.
        on_progress: Is told the share that is done, up to 1.
        max_megapixels: A larger scene is refused from its header.
        sight: Gathers the scene's statistics.

    Raises:
        InputError: The files do not fit the model or each other, have no georeference, or are
            damaged; says what came and what is needed.
    """
    started = time.monotonic()
    with open_scene(model.manifest, scene, pre, max_megapixels=max_megapixels) as bands:
        probability = np.empty((bands.height, bands.width), np.float32)
        answer = _Answer(model, bands, sight)
        for rows, values in blended_rows(bands.height, bands.width, answer, on_progress):
            probability[rows] = values
        crs, transform = bands.crs, bands.transform
    mask = model.masks(probability)
    return SceneMap(
        probability=probability,
        mask=mask,
        crs=crs,
        transform=transform,
        backscatter=answer.backscatter,
        backscatter_step=answer.step,
        manifest=model.manifest,
        flooded_km2=area_km2(mask == WET, crs, transform),
        seconds=time.monotonic() - started,
    )


class _Answer:
    """Answers windows of a scene by the model and keeps a thinned first band on the way."""

    def __init__(self, model: FloodModel, bands: SceneBands, sight: Sight | None) -> None:
        self._model, self._bands, self._sight = model, bands, sight
        self.step = 1
        # Tiles start at multiples of 64, so a power of two up to that meets them in step.
        while max(bands.height, bands.width) / self.step > _PREVIEW_PIXELS and self.step < 64:
            self.step *= 2
        shape = (-(-bands.height // self.step), -(-bands.width // self.step))
        self.backscatter: NDArray[np.float32] = np.full(shape, np.nan, np.float32)
        self._scaling = scene_scaling(model, bands)

    def __call__(self, window: Window) -> NDArray[np.float32]:
        """Return the (h, w) probabilities of a window; a tile without data is not computed."""
        image = self._bands.read(window)
        thinned = image[0, :: self.step, :: self.step]
        row, col = window.row_off // self.step, window.col_off // self.step
        self.backscatter[row : row + thinned.shape[0], col : col + thinned.shape[1]] = thinned
        if not np.isfinite(image).all(axis=0).any():
            return np.full(image.shape[1:], np.nan, np.float32)
        answers = self._model.probabilities(image[None], self._scaling(window))
        if self._sight:
            # What the next tiles hold as well is theirs; tiles start at multiples of 8. Answers are
            # not blended yet, which matters little to their mean.
            rows, cols = (
                size if start + size == whole else TILE - OVERLAP
                for start, size, whole in (
                    (window.row_off, window.height, self._bands.height),
                    (window.col_off, window.width, self._bands.width),
                )
            )
            self._sight.add(image[None, :, :rows, :cols], answers[:, :rows, :cols])
        answer: NDArray[np.float32] = answers[0]
        return answer
