"""A scene answered strip by strip: read once and ahead, a row of tiles at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
    """What a map's time went into, so far; strips are read and written beside the network."""

    all: float = 0.0
    waiting_for_pixels: float = 0.0
    network: float = 0.0
    waiting_for_files: float = 0.0


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

    def answer(self, first: int = 0, last: int | None = None) -> Generator[Strip]:
        """Answer the strips from number `first` up to, but not with, `last`."""
        rows = spans(self.bands.height)[first:last]
        if not rows:
            return
        started, before = time.monotonic(), self.seconds.all
        scale = SceneScale(self.model, self.bands)
        for number, (span, image) in enumerate(self._images(rows, scale), start=first):
            answer = self._strip(number, span, image, scale)
            strip = Strip(number, span, answer, image[0], self._outside(image))
            self.seconds.all = before + time.monotonic() - started
            yield strip

    def _images(
        self, rows: list[slice], scale: SceneScale
    ) -> Iterator[tuple[slice, NDArray[np.float16]]]:
        """Read strips (C, h, W), while those before are answered."""
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
                done = min(span.start - known, kept.shape[1])  # cut off before there is a copy
                kept = np.concatenate((kept[:, done:], piece), axis=1)
                del piece
                kept, known = kept[:, span.start - known - done :], span.start
                yield span, kept[:, : span.stop - span.start]

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

    def _strip(
        self, number: int, rows: slice, image: NDArray[np.float16], scale: SceneScale
    ) -> NDArray[np.float32]:
        """Return (h, W) probabilities, blended across and weighed for the strips around."""
        height, width = self.bands.height, self.bands.width
        blended = np.zeros(image.shape[1:], np.float32)
        across = spans(width)
        for position, cols in enumerate(across):
            answer = self._tile(rows, cols, image[:, :, cols], scale)
            answer *= weights(cols, width)
            blended[:, cols] += answer
            if self.on_progress:
                done = number * len(across) + position + 1
                self.on_progress(done / (len(across) * len(self)))
        blended *= weights(rows, height)[:, None]
        return blended

    def _tile(
        self, rows: slice, cols: slice, image: NDArray[np.float16], scale: SceneScale
    ) -> NDArray[np.float32]:
        """Return the (h, w) probabilities of a tile; one without data is not computed."""
        if not has_data(image[None]).any():
            return np.full(image.shape[1:], np.nan, np.float32)
        started = time.monotonic()
        window = Window.from_slices(rows, cols)
        answers = self.model.probabilities(image[None], scale.of(window))
        self.seconds.network += time.monotonic() - started
        if self.sight:
            # What the next tiles hold as well is theirs. Answers are not blended yet, which
            # matters little to their mean.
            down, along = (
                min(span.stop - span.start, STEP) if span.stop < whole else span.stop - span.start
                for span, whole in ((rows, self.bands.height), (cols, self.bands.width))
            )
            self.sight.add(image[None, :, :down, :along], answers[:, :down, :along])
        answer: NDArray[np.float32] = answers[0]
        return answer


def _ahead(rows: slice, height: int) -> int:
    """Return how far the scene must be read for a strip."""
    end: int = min(rows.start + STEP + _AHEAD, height)
    return end
