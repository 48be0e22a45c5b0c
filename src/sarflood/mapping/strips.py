"""A scene answered strip by strip: read once and ahead, a row of tiles at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from sarflood.mapping.bands import SceneBands
from sarflood.mapping.outside import cells_outside
from sarflood.mapping.scales import SceneScale
from sarflood.mapping.tiles import STEP, spans, weights
from sarflood.model.inputs import has_data
from sarflood.model.package import FloodModel
from sarflood.monitoring.sight import Sight

# What is read goes on so far beyond a strip as the scale of its last rows reaches, and to where
# blocks of 512 rows end, as most files have them: none is decoded twice.
_AHEAD = 512
_CHUNK = 512  # rows that are read at a time


@dataclass
class Seconds:
    """What a map's time went into, so far."""

    all: float = 0.0
    waiting_for_pixels: float = 0.0
    network: float = 0.0


@dataclass(frozen=True)
class Strip:
    """A row of tiles, answered.

    Attributes:
        number: Which, from 0.
        rows: Those of the scene that it has: 1088, of which the next strip has the last 64, too.
        probability: (h, W) float32, weighed for the blending with its neighbours; NaN is no data.
        backscatter: (h, W) float16, the first band.
        outside: (⌈h / 16⌉, ⌈W / 16⌉) bool, what lies outside of the training's range; None where
            that is not known.
    """

    number: int
    rows: slice
    probability: NDArray[np.float32]
    backscatter: NDArray[np.float16]
    outside: NDArray[np.bool_] | None


@dataclass
class _Image:
    """A row of tiles whose pixels are there.

    Attributes:
        number: Which, from 0.
        rows: Those of the scene that it has.
        pixels: (C, h, W).
        blended: (h, W), the answers so far; None before the first.
    """

    number: int
    rows: slice
    pixels: NDArray[np.float16]
    blended: NDArray[np.float32] | None = None


@dataclass
class Strips:
    """The strips of a scene, in order.

    Memory is for three strips, however high the scene is.

    Attributes:
        model: The model.
        bands: The scene.
        on_progress: Is told the share of the scene that is done, up to 1.
        sight: Gathers the scene's statistics.
        seconds: What the time goes into.
        ranges: Of each band, between which values the training lay, where that is known.
    """

    model: FloodModel
    bands: SceneBands
    on_progress: Callable[[float], object] | None = None
    sight: Sight | None = None
    seconds: Seconds = field(default_factory=Seconds)
    ranges: Mapping[str, tuple[float, float]] | None = None

    def __len__(self) -> int:
        return len(spans(self.bands.height))

    def answer(self, first: int = 0, last: int | None = None) -> Iterator[Strip]:
        """Answer the strips from number `first` up to, but not with, `last`."""
        rows = spans(self.bands.height)[first:last]
        if not rows:
            return
        started, before = time.monotonic(), self.seconds.all
        for strip in self._answered(rows, first):
            self.seconds.all = before + time.monotonic() - started
            yield strip

    def _answered(self, rows: list[slice], first: int) -> Iterator[Strip]:
        """Answer strips, some tiles ahead of those that are blended, so that no caller waits."""
        scale = SceneScale(self.model, self.bands)
        across = spans(self.bands.width)
        callers = self.model.callers
        ahead: deque[tuple[_Image, int, Future[NDArray[np.float32]]]] = deque()
        images = self._images(rows, scale, first)
        with ThreadPoolExecutor(callers) as pool:
            try:
                places = ((image, place) for image in images for place in range(len(across)))
                for image, position in places:
                    tile = image.pixels[:, :, across[position]]
                    window = Window.from_slices(image.rows, across[position])
                    answer = pool.submit(self._tile, tile, scale, window)
                    ahead.append((image, position, answer))
                    if len(ahead) > callers:
                        yield from self._blend(*ahead.popleft(), across)
                while ahead:
                    yield from self._blend(*ahead.popleft(), across)
            finally:
                pool.shutdown(cancel_futures=True)

    def _blend(
        self,
        image: _Image,
        position: int,
        answering: Future[NDArray[np.float32]],
        across: list[slice],
    ) -> Iterator[Strip]:
        """Take in the answer of a tile; give its strip once that is whole."""
        started = time.monotonic()
        answer = answering.result()
        self.seconds.network += time.monotonic() - started
        cols, (height, width) = across[position], (self.bands.height, self.bands.width)
        if self.sight:
            # What the next tiles hold as well is theirs. Answers are not blended yet, which
            # matters little to their mean.
            down, along = (
                min(span.stop - span.start, STEP) if span.stop < whole else span.stop - span.start
                for span, whole in ((image.rows, height), (cols, width))
            )
            seen = image.pixels[None, :, :down, cols][..., :along]
            self.sight.add(seen, answer[None, :down, :along])
        if image.blended is None:
            image.blended = np.zeros(image.pixels.shape[1:], np.float32)
        answer *= weights(cols, width)
        image.blended[:, cols] += answer
        if self.on_progress:
            done = image.number * len(across) + position + 1
            self.on_progress(done / (len(across) * len(self)))
        if position + 1 == len(across):
            image.blended *= weights(image.rows, height)[:, None]
            outside = self._outside(image.pixels)
            yield Strip(image.number, image.rows, image.blended, image.pixels[0], outside)

    def _images(self, rows: list[slice], scale: SceneScale, first: int) -> Iterator[_Image]:
        """Read strips, while those before are answered."""
        height = self.bands.height
        known = max(0, rows[0].start - _AHEAD)  # a scale reaches upwards, too
        kept = np.empty((self._bands, 0, self.bands.width), np.float16)

        def read(start: int, stop: int) -> NDArray[np.float16]:
            image = self._read(start, stop)
            scale.see(start, image)
            return image

        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(read, known, _ahead(rows[0], height))
            for position, span in enumerate(rows):
                started = time.monotonic()
                piece = reading.result()
                self.seconds.waiting_for_pixels += time.monotonic() - started
                end = known + kept.shape[1] + piece.shape[1]
                if position + 1 < len(rows):
                    reading = reader.submit(read, end, _ahead(rows[position + 1], height))
                kept = np.concatenate((kept, piece), axis=1)
                del piece
                kept, known = kept[:, span.start - known :], span.start
                yield _Image(first + position, span, kept[:, : span.stop - span.start])

    def _outside(self, image: NDArray[np.float16]) -> NDArray[np.bool_] | None:
        if self.ranges is None:
            return None
        return cells_outside(image, [self.ranges[band] for band in self.model.manifest.bands])

    @property
    def _bands(self) -> int:
        return len(self.model.manifest.bands)

    def _read(self, start: int, stop: int) -> NDArray[np.float16]:
        """Read rows (C, h, W), rounded as stored patches are."""
        image = np.empty((self._bands, stop - start, self.bands.width), np.float16)
        for top in range(start, stop, _CHUNK):
            window = Window.from_slices((top, min(top + _CHUNK, stop)), (0, self.bands.width))
            # PyTorch rounds several times faster than NumPy. Infinite is no data.
            rounded = torch.from_numpy(self.bands.read(window)).half()
            image[:, top - start : top - start + _CHUNK] = rounded.numpy()
        return image

    def _tile(
        self, tile: NDArray[np.float16], scale: SceneScale, window: Window
    ) -> NDArray[np.float32]:
        """Return the (h, w) probabilities of a tile; one without data is not computed."""
        if not has_data(tile[None]).any():
            return np.full(tile.shape[1:], np.nan, np.float32)
        answer: NDArray[np.float32] = self.model.probabilities(tile[None], scale.of(window))[0]
        return answer


def _ahead(rows: slice, height: int) -> int:
    """Return how far the scene must be read for a strip."""
    end: int = min(rows.start + STEP + _AHEAD, height)
    return end
