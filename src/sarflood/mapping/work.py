"""The rasters of a map while it is made, strip by strip, so that a killed run can go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sarflood.errors import SarfloodError
from sarflood.files import replacing, write_json
from sarflood.mapping.layers import Layer
from sarflood.mapping.outside import CELL
from sarflood.mapping.strips import Seconds, Strip
from sarflood.mapping.tiles import OVERLAP, STEP
from sarflood.model.package import FloodModel
from sarflood.raster.patch import UNKNOWN

_LOOK_AT_PIXELS = 2048
_ROWS = 128  # are turned into percents at a time


@dataclass(frozen=True)
class Done:
    """How far a run has come.

    Attributes:
        strips: The number of the next strip.
        seconds: What the time went into.
        engine: What computed the strips; None where there is none.
    """

    strips: int
    seconds: Seconds
    engine: str | None


class Work:
    """A folder with a map's rasters.

    Attributes:
        mask: uint8: 0 dry, 1 wet, 255 no data.
        percent: uint8, the probability of "wet" in percent; 255 no data.
        backscatter: float32, every `step`-th pixel of the first band, to look at; NaN no data.
        step: Pixels of the scene between two of `backscatter`.
        outside: uint8, whether a cell of 16×16 pixels lies outside of the training's range.
    """

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._shape = folder, shape
        self.step = 1
        # Strips start at multiples of 1024, so a power of two meets them in step.
        while max(shape) / self.step > _LOOK_AT_PIXELS and self.step < STEP:
            self.step *= 2
        small = (-(-shape[0] // self.step), -(-shape[1] // self.step))
        self.mask = Layer(folder / "mask", shape, np.uint8)
        self.percent = Layer(folder / "percent", shape, np.uint8)
        self.backscatter = Layer(folder / "backscatter", small, np.float32)
        cells = (-(-shape[0] // CELL), -(-shape[1] // CELL))
        self.outside = Layer(folder / "outside", cells, np.uint8)

    def done(self, first: int = 0) -> Done:
        """Return how far an earlier run from `first` on has come."""
        state = self._state(first)
        try:
            found = json.loads(state.read_text(encoding="utf-8"))
            return Done(int(found["strips"]), Seconds(**found["seconds"]), str(found["engine"]))
        except FileNotFoundError:
            return Done(first, Seconds(), None)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SarfloodError(f"{state}: cannot be read ({error}); remove it") from error

    def put(self, strip: Strip, model: FloodModel, seconds: Seconds, first: int = 0) -> None:
        """Take in a strip.

        Args:
            strip: The strip; those from `first` up to the one above it were taken in before.
            model: Says what is wet.
            seconds: What the time went into so far.
            first: What is above this strip is made elsewhere: the rows that both have wait for
                `join`.

        Raises:
            SarfloodError: It cannot be written, such as on a full disk.
        """
        try:
            self._put(strip, model, seconds, first)
        except OSError as error:
            raise SarfloodError(f"{self._folder}: cannot be written: {error.strerror}") from error

    def _put(self, strip: Strip, model: FloodModel, seconds: Seconds, first: int) -> None:
        values, top, number = strip.probability, strip.rows.start, strip.number
        skipped = 0
        if number > first:
            values[:OVERLAP] += np.load(self._tail(number), allow_pickle=False)
        elif number:
            self._save(self._head(number), values[:OVERLAP])
            skipped = OVERLAP
        kept = len(values) if strip.rows.stop == self._shape[0] else STEP
        self._write(top + skipped, values[skipped:kept], model)
        self.backscatter.write(
            top // self.step, strip.backscatter[: kept : self.step, :: self.step]
        )
        if strip.outside is not None:
            self.outside.write(top // CELL, strip.outside[: -(-kept // CELL)])
        if kept < len(values):  # kept to the end: another run may begin a part with the next strip
            self._save(self._tail(number + 1), values[STEP:])
        done = Done(number + 1, seconds, model.engine_name)
        write_json(self._state(first), asdict(done))

    def join(self, number: int, model: FloodModel) -> None:
        """Blend the rows that strip `number`, a first one, shares with the one above it."""
        head, tail = (
            np.load(path, allow_pickle=False) for path in (self._head(number), self._tail(number))
        )
        self._write(number * STEP, head + tail, model)

    def _write(self, top: int, values: NDArray[np.float32], model: FloodModel) -> None:
        """Write rows of probabilities: their mask, and their percents."""
        mask = model.masks(values)
        self.mask.write(top, mask)
        percent = np.empty(mask.shape, np.uint8)
        for start in range(0, len(values), _ROWS):
            rows = slice(start, start + _ROWS)
            with np.errstate(invalid="ignore"):
                percent[rows] = np.rint(values[rows] * 100)
        percent[mask == UNKNOWN] = UNKNOWN
        self.percent.write(top, percent)

    def _head(self, number: int) -> Path:
        return self._folder / f"head-{number}.npy"

    def _tail(self, number: int) -> Path:
        return self._folder / f"tail-{number}.npy"

    def _state(self, first: int) -> Path:
        return self._folder / f"progress-{first}.json"

    @staticmethod
    def _save(path: Path, values: NDArray[np.float32]) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, values, allow_pickle=False)
