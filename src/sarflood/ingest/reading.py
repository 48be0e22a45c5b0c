"""Reading a source's patches: decoded, checked, described by several threads, written in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sarflood.ingest.quarantine import Keep, Refusal
from sarflood.patches.store import Described, PatchWriter, describe
from sarflood.raster.decibel import to_db
from sarflood.raster.units import not_backscatter, units_of
from sarflood.sources.event import Event
from sarflood.sources.reader import BadSourceError, Facts, Item, RawPatch, Reader

EMPTY = "too few pixels have data in all bands"
_LOOK_AHEAD = 3  # patches or chips that wait to be written
_UNITS_STEP = 4  # every so many rows and columns tell the units of a patch
_UNITS_PIXELS = 100  # fewer do not tell

In = TypeVar("In")
Out = TypeVar("Out")
Progress = Callable[[int, int, int], object]  # items done, items in all, patches so far


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
        self, writer: PatchWriter, items: list[Item], on_progress: Progress | None
    ) -> list[Refusal]:
        """Write all readable patches of the items in order; return what could not be read.

        Memory is for a few patches or chips a thread. An item that turns out damaged half-way has
        its first patches written all the same: its refusal is of the whole item.
        """
        refusals: list[Refusal] = []
        patches = 0
        with ThreadPoolExecutor(_threads(), thread_name_prefix="ingest") as pool:
            try:
                for done, item in enumerate(_ahead(pool, self._begin, items), start=1):
                    for patch in self._patches(pool, refusals, *item):
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

    def _begin(self, item: Item) -> tuple[Item, list[Described | str] | None, str | None]:
        """Read a chip whole, in a thread; a scene is left to be read by windows."""
        if self.reader.by_windows:
            return item, None, None
        found: list[Described | str] = []
        try:
            found += (self._described(patch, item) for patch in self.reader.read(item))
        except BadSourceError as error:
            return item, found, str(error)
        return item, found, None

    def _patches(
        self,
        pool: ThreadPoolExecutor,
        refusals: list[Refusal],
        item: Item,
        found: list[Described | str] | None,
        problem: str | None,
    ) -> Iterator[Described]:
        """Give an item's patches; what cannot be used of it is added to `refusals`."""
        usable, empty = 0, []
        patches: Iterator[Described | str]
        if found is None:
            patches = _ahead(
                pool, lambda patch: self._described(patch, item), self.reader.read(item)
            )
        else:
            patches = iter(found)
        try:
            for patch in patches:
                if isinstance(patch, str):
                    empty.append(patch)
                else:
                    usable += 1
                    yield patch
        except BadSourceError as error:
            problem = str(error)
        if problem:
            refusals.append(Refusal(item, None, (problem,)))
        keep: Keep = "nothing" if usable else "files"
        refusals += [Refusal(item, name, (EMPTY,), keep) for name in empty]

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


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[In], Out], inputs: Iterable[In]
) -> Iterator[Out]:
    """Work on inputs in threads; give the outputs in order, with a bounded number waiting."""
    source = iter(inputs)
    waiting: deque[Future[Out]] = deque(
        pool.submit(work, item) for item in islice(source, _LOOK_AHEAD + _threads())
    )
    while waiting:
        output = waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(source, 1))
        yield output
