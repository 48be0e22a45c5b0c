"""From a scene to its flood map: the one path from pixels to a mask, in CLI and service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from sarflood.mapping.bands import Files, open_scene, scene_grid
from sarflood.mapping.layers import Layer
from sarflood.mapping.strips import Seconds, Strips
from sarflood.mapping.work import Done, Work
from sarflood.model.package import FloodModel, ModelManifest
from sarflood.monitoring.sight import Sight
from sarflood.raster.areas import PixelAreas
from sarflood.raster.cache import block_cache
from sarflood.raster.grid import Grid
from sarflood.raster.patch import UNKNOWN, WET
from sarflood.raster.safe import MAX_MEGAPIXELS

CACHE_BYTES = 1 << 27  # of GDAL; each block is read once, and written once


@dataclass(frozen=True)
class SceneMap:
    """The flood map of a scene; its rasters lie in a folder.

    Attributes:
        mask: (H, W) uint8: 0 dry, 1 wet, 255 no data.
        percent: (H, W) uint8, the probability of "wet" in percent; 255 no data.
        crs: The coordinate reference system.
        transform: Pixel (column, row) to CRS coordinates.
        backscatter: (h, w) float32, every `backscatter_step`-th pixel of the model's first band, to
            look at; NaN is no data.
        backscatter_step: Pixels of the scene between two of `backscatter`.
        manifest: The model that made it.
        valid: Pixels with data.
        wet: Wet pixels.
        flooded_km2: Area of the wet pixels on the WGS 84 ellipsoid.
        valid_km2: That of the pixels with data.
        seconds: How long it took to answer, in all and for what; several machines' added up.
        engine: What computed the network; where machines differed, all that did.
        outside: Whether a cell of 16×16 pixels lies outside of the training's range; None where
            that is not known.
    """

    mask: Layer
    percent: Layer
    crs: CRS
    transform: Affine
    backscatter: NDArray[np.float32]
    backscatter_step: int
    manifest: ModelManifest
    valid: int
    wet: int
    flooded_km2: float
    valid_km2: float
    seconds: dict[str, float]
    engine: str
    outside: Layer | None = None

    @property
    def grid(self) -> Grid:
        """Where the pixels lie."""
        return Grid(*self.mask.shape, self.crs, self.transform)

    @property
    def valid_share(self) -> float:
        """Share of the pixels with data."""
        return self.valid / (self.mask.shape[0] * self.mask.shape[1])

    @property
    def flooded_share(self) -> float:
        """Share of the pixels with data that are wet; 0 where there are none."""
        return self.wet / max(1, self.valid)


def map_scene(
    model: FloodModel,
    scene: Files,
    pre: Files | None = None,
    *,
    folder: Path,
    on_progress: Callable[[float], object] | None = None,
    max_megapixels: int = MAX_MEGAPIXELS,
    sight: Sight | None = None,
) -> SceneMap:
    """Map a georeferenced scene.

    It is read and answered a row of tiles at a time; where tiles overlap their probabilities are
    blended, so that no seams show. A pixel without data in any band has none in the map. Memory
    grows with the width of the scene alone.

    Args:
        model: The model.
        scene: A GeoTIFF with the model's bands, in dB, linear power or 8-bit grey levels; or one
            for each polarisation, by `vv` and `vh`.
        pre: The scene from before the event, on any grid, for a model that compares the two and if
            `scene` does not hold its bands itself.
        folder: For the map's rasters. What a run of the same model on the same scene, that was
            killed, has left there is gone on with.
        on_progress: Is told the share that is done, up to 1.
        max_megapixels: A larger scene is refused from its header.
        sight: Gathers the scene's statistics.

    Raises:
        InputError: The files do not fit the model or each other, have no georeference, or are
            damaged; says what came and what is needed.
        SarfloodError: The rasters cannot be written.
    """
    answer_strips(
        model,
        scene,
        pre,
        folder=folder,
        on_progress=on_progress,
        max_megapixels=max_megapixels,
        sight=sight,
    )
    return finished(model, scene, pre, folder=folder, max_megapixels=max_megapixels)


def answer_strips(
    model: FloodModel,
    scene: Files,
    pre: Files | None,
    *,
    folder: Path,
    first: int = 0,
    last: int | None = None,
    on_progress: Callable[[float], object] | None = None,
    max_megapixels: int = MAX_MEGAPIXELS,
    sight: Sight | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Map the strips of a scene from number `first` up to, but not with, `last`; see `map_scene`.

    Other processes may map the rest into the same folder at the same time. What lies outside of
    `ranges`, between which each band's training lay, is noted. PyTorch has one thread from then on
    where the model has an engine of its own: its idle threads spin in the engine's way.
    """
    if model.engine is not None:
        torch.set_num_threads(1)
    with (
        block_cache(CACHE_BYTES),
        open_scene(model.manifest, scene, pre, max_megapixels=max_megapixels) as bands,
        ThreadPoolExecutor(1) as writer,
    ):
        work = Work(folder, (bands.height, bands.width))
        done = work.done(first)
        if done.engine != model.engine_name:  # what another has begun is not gone on with
            done = Done(first, Seconds(), None)
        strips = Strips(model, bands, on_progress, sight, done.seconds, ranges)
        writing: Future[None] | None = None
        with closing(strips.answer(done.strips, last)) as answers:
            for strip in answers:
                if writing:
                    started = time.monotonic()
                    writing.result()
                    done.seconds.waiting_for_files += time.monotonic() - started
                writing = writer.submit(work.put, strip, model, replace(done.seconds), first)
        if writing:
            writing.result()


def finished(
    model: FloodModel,
    scene: Files,
    pre: Files | None,
    *,
    folder: Path,
    firsts: Iterable[int] = (0,),
    max_megapixels: int = MAX_MEGAPIXELS,
    knows_outside: bool = False,
) -> SceneMap:
    """Return the map whose strips are all in `folder`.

    Args:
        model: The model.
        scene: The scene; only its header is read.
        pre: As for `map_scene`.
        folder: With the map's rasters.
        firsts: The strips that `answer_strips` has begun with.
        max_megapixels: As for `map_scene`.
        knows_outside: Whether `answer_strips` was told between which values the training lay.
    """
    grid = scene_grid(model.manifest, scene, pre, max_megapixels=max_megapixels)
    work = Work(folder, (grid.height, grid.width))
    engines: set[str] = set()
    seconds = asdict(Seconds())
    for number in firsts:
        if number:
            work.join(number, model)
        done = work.done(number)
        engines |= {done.engine} if done.engine else set()
        for name, spent in asdict(done.seconds).items():
            seconds[name] += spent
    valid = wet = 0
    valid_km2, flooded_km2 = 0.0, 0.0
    areas = PixelAreas.of(grid)
    for top, mask in work.mask.strips():
        is_valid, is_wet = mask != UNKNOWN, mask == WET
        valid += int(np.count_nonzero(is_valid))
        wet += int(np.count_nonzero(is_wet))
        valid_km2 += areas.sum(is_valid, top)
        flooded_km2 += areas.sum(is_wet, top)
    return SceneMap(
        mask=work.mask,
        percent=work.percent,
        crs=grid.crs,
        transform=grid.transform,
        backscatter=work.backscatter.whole(),
        backscatter_step=work.step,
        manifest=model.manifest,
        valid=valid,
        wet=wet,
        flooded_km2=flooded_km2,
        valid_km2=valid_km2,
        seconds={name: round(spent, 3) for name, spent in seconds.items()},
        engine=", ".join(sorted(engines)),
        outside=work.outside if knows_outside else None,
    )
