"""Reading a source's patches: decoded, checked, described at several places, written in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sarflood.ingest.quarantine import Keep, Refusal
from sarflood.patches.store import Described, PatchWriter, describe
from sarflood.raster.decibel import to_db
from sarflood.raster.units import not_backscatter, units_of
from sarflood.sources.event import Event
from sarflood.sources.reader import BadSourceError, Facts, Item, RawPatch, Reader
from sarflood.sources.scene import rows_apart
from sarflood.workspace import check_seen, seen_here

EMPTY = "too few pixels have data in all bands"
_LOOK_AHEAD = 3  # patches or chips that wait to be written
_UNITS_STEP = 4  # every so many rows and columns tell the units of a patch
_UNITS_PIXELS = 100  # fewer do not tell

In = TypeVar("In")
Out = TypeVar("Out")
Progress = Callable[[int, int, int], object]  # items done, items in all, patches so far


_Piece = tuple[list[Described | str], str | None]  # patches, names of empty ones; what ended it


@dataclass(frozen=True)
class Workers:
    """Other processes that read and describe; they see the source under the same paths.

    Attributes:
        pool: Takes work for them, such as that of `distributed.Client.get_executor`.
        waiting: So many pieces may be at work or wait to be written.
    """

    pool: Executor
    waiting: int


@dataclass(frozen=True)
class Reading:
    """How the patches of one source are read and described.

    Attributes:
        reader: Of the source's layout.
        facts: What the layout says of the source.
        event: The manifest that the patches are stored under.
        min_valid_share: Patches with less data are empty: noted, not stored.
    """

    reader: Reader
    facts: Facts
    event: Event
    min_valid_share: float

    def into(
        self,
        writer: PatchWriter,
        items: list[Item],
        on_progress: Progress | None,
        workers: Workers | None = None,
    ) -> list[Refusal]:
        """Write all readable patches of the items in order; return what could not be read.

        Memory is for a few patches or chips a thread. An item that turns out damaged half-way has
        its first patches written all the same: its refusal is of the whole item.

        Args:
            writer: Of the event's folder.
            items: Of the source.
            on_progress: Is told the items done, those in all, and the patches so far.
            workers: Who reads and describes; by default threads of this process.

        Raises:
            InputError: A worker does not see the source's files.
        """
        refusals: list[Refusal] = []
        patches = 0
        with ThreadPoolExecutor(_threads(), thread_name_prefix="ingest") as pool:
            read = self._by_workers(workers, items) if workers else self._by_threads(pool, items)
            try:
                for done, (item, found) in enumerate(read, start=1):
                    for patch in _usable(item, found, refusals):
                        writer.write(patch)
                        patches += 1
                        if on_progress:
                            on_progress(done - 1, len(items), patches)
                    if on_progress:
                        on_progress(done, len(items), patches)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return refusals

    def _by_threads(
        self, pool: Executor, items: list[Item]
    ) -> Iterator[tuple[Item, Iterator[Described | str]]]:
        """Read chips whole, each in a thread; a scene by windows, described in threads."""
        waiting = _LOOK_AHEAD + _threads()
        if self.reader.by_windows:
            for item in items:
                describe_one = partial(self._described, item=item)
                yield item, _ahead(pool, waiting, describe_one, self.reader.read(item))
        else:
            for item, piece in zip(items, _ahead(pool, waiting, self._read, items), strict=True):
                yield item, _told(piece)

    def _by_workers(
        self, workers: Workers, items: list[Item]
    ) -> Iterator[tuple[Item, Iterator[Described | str]]]:
        """Let workers read chips, and scenes row by row: only paths go there, patches come back."""
        pieces = (
            (number, piece, seen_here(item.files))
            for number, item in enumerate(items)
            for piece in (rows_apart(item) if self.reader.by_windows else (item,))
        )
        read = _ahead(workers.pool, workers.waiting, self._read_there, pieces)
        for number, parts in groupby(read, itemgetter(0)):
            yield items[number], chain.from_iterable(_told(piece) for _, piece in parts)

    def _read_there(self, numbered: tuple[int, Item, tuple[Path, ...]]) -> tuple[int, _Piece]:
        """Read a piece in another process, maybe on another machine."""
        number, piece, seen = numbered
        check_seen(seen)
        return number, self._read(piece)

    def _read(self, item: Item) -> _Piece:
        """Read a chip, or a row of a scene, whole; may run in any thread or process."""
        found: list[Described | str] = []
        try:
            found += (self._described(patch, item) for patch in self.reader.read(item))
        except BadSourceError as error:
            return found, str(error)
        return found, None

    def _described(self, patch: RawPatch, item: Item) -> Described | str:
        """Return the patch as it is stored, or the name of an empty one."""
        valid = np.count_nonzero(np.isfinite(patch.image).all(axis=0))
        if valid < self.min_valid_share * patch.height * patch.width or not valid:
            return patch.name
        self._check_units(patch, item)
        if self.facts.units == "linear":
            patch = replace(patch, image=to_db(patch.image))
        return describe(patch, self.event, item.name)

    def _check_units(self, patch: RawPatch, item: Item) -> None:
        """Refuse a patch whose values are of other units than the source's."""
        sample: NDArray[np.float32] = patch.image[:, ::_UNITS_STEP, ::_UNITS_STEP]
        sample = sample[np.isfinite(sample)]
        if self.facts.units == "uint8" or sample.size < _UNITS_PIXELS:
            return
        units = units_of(sample)
        file = item.files[0]
        if units is None:
            raise BadSourceError(f"{file}: values of {patch.name} {not_backscatter(sample)}")
        if units != self.facts.units:
            raise BadSourceError(
                f"{file}: {patch.name} is in {units} (median {np.median(sample):.4g}), the source "
                f"in {self.facts.units}; convert one of them"
            )


def _told(piece: _Piece) -> Iterator[Described | str]:
    """Give what was read of a piece, then raise what ended it."""
    found, problem = piece
    yield from found
    if problem:
        raise BadSourceError(problem)


def _usable(
    item: Item, patches: Iterator[Described | str], refusals: list[Refusal]
) -> Iterator[Described]:
    """Give an item's patches; what cannot be used of it is added to `refusals`."""
    usable, empty = 0, []
    try:
        for patch in patches:
            if isinstance(patch, str):
                empty.append(patch)
            else:
                usable += 1
                yield patch
    except BadSourceError as error:
        refusals.append(Refusal(item, None, (str(error),)))
    keep: Keep = "nothing" if usable else "files"
    refusals += [Refusal(item, name, (EMPTY,), keep) for name in empty]


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _ahead(
    pool: Executor, at_once: int, work: Callable[[In], Out], inputs: Iterable[In]
) -> Iterator[Out]:
    """Work on inputs in a pool; give the outputs in order, with a bounded number waiting."""
    source = iter(inputs)
    waiting: deque[Future[Out]] = deque(pool.submit(work, item) for item in islice(source, at_once))
    while waiting:
        output = waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(source, 1))
        yield output
