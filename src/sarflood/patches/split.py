"""Training, validation and test patches that stand apart in space.

Patches of one grid are split by whole strips of it, never tile by tile, with unused patches between
the strips. Patches without a grid are taken in the order of their source, in which neighbours in
number are mostly neighbours in place, and split by runs of that order. An event is split by
its own index alone, so a new event never moves a patch of another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.params import SplitParams
from sarflood.sources.event import Event

MAX_STARTS = 60
MANY_PLACES = 20  # scenes or chips, from which on they are kept whole
UNLIKE_COST = 1.0  # of a strip whose wet share is twice that of the event, or none of it
DRY = 1e-3  # wet shares below this are all the same
LOST_COST = 1.0  # of having no patch left for training


@dataclass(frozen=True)
class _Strip:
    """Positions `start` to `end` (excluded) along an axis."""

    start: int
    end: int

    def apart_from(self, other: _Strip, guard: int) -> bool:
        return self.end + guard <= other.start or other.end + guard <= self.start


def split_event(event: Event, index: pd.DataFrame, params: SplitParams) -> pd.Series:
    """Assign each patch of an event.

    Args:
        event: The manifest.
        index: The event's index, a row a patch.
        params: Shares and guard distance.

    Returns:
        One of `train`, `val`, `test`, `guard` (unused, between the others), `unlabelled` or
        `held_out` for each row. An event too small to be kept apart is all `train`.
    """
    split = pd.Series("unlabelled", index=index.index, dtype="object", name="split")
    labelled = index["wet_share"].notna()
    if event.hold_out:
        split[labelled] = "held_out"
    elif labelled.any():
        split[labelled] = _by_strips(index[labelled], params)
    return split


def _by_strips(index: pd.DataFrame, params: SplitParams) -> NDArray[np.str_]:
    """Choose the axis and the two strips that cost least; see `_cost`."""
    wet = (index["wet_share"] * index["valid_share"]).to_numpy()
    best_cost, best = np.inf, np.full(len(index), "train", dtype="<U5")
    for positions in _axes(index):
        for test, val in _strips(positions, params):
            assigned = _assign(positions, test, val, params.guard_patches)
            cost = _cost(assigned, wet)
            if cost < best_cost:
                best_cost, best = cost, assigned
    return best


def _axes(index: pd.DataFrame) -> list[NDArray[np.int64]]:
    """Return the axes along which neighbours are known.

    The rows and the columns of a few large grids, cut at the same ones in all of them, so that
    scenes of one place are cut alike; and the order of many small grids, or of single patches.
    """
    place = index["grid"].fillna(index["item"])
    order = pd.factorize(place)[0].astype(np.int64)
    if index["grid"].isna().any() or place.nunique() >= MANY_PLACES:
        return [order]
    axes = (index["row"].to_numpy(np.int64), index["col"].to_numpy(np.int64))
    return [axis - axis.min() for axis in axes]


def _strips(positions: NDArray[np.int64], params: SplitParams) -> list[tuple[_Strip, _Strip]]:
    """List the pairs of test and validation strips that are apart and take half at most."""
    before = np.concatenate([[0], np.cumsum(np.bincount(positions))])  # patches before a position
    tests = _strips_of(before, params.test_share)
    vals = _strips_of(before, params.val_share)
    half = before[-1] / 2
    pairs = []
    for test, val in product(tests, vals):
        used = before[[test.end, val.end]] - before[[test.start, val.start]]
        if test.apart_from(val, params.guard_patches) and before[-1] - used.sum() >= half:
            pairs.append((test, val))
    return pairs


def _strips_of(before: NDArray[np.int64], share: float) -> list[_Strip]:
    """List strips that hold about `share` of the patches, by at most `MAX_STARTS` starts."""
    wanted = share * before[-1]
    strips = []
    for start in range(0, len(before) - 1, max(1, (len(before) - 1) // MAX_STARTS)):
        off = np.abs(before[start + 1 :] - before[start] - wanted)
        end = start + 1 + int(off.argmin())
        if off.min() <= wanted / 2:
            strips.append(_Strip(start, end))
    return strips


def _assign(
    positions: NDArray[np.int64], test: _Strip, val: _Strip, guard: int
) -> NDArray[np.str_]:
    assigned = np.full(len(positions), "train", dtype="<U5")
    for strip in (test, val):
        near = (positions >= strip.start - guard) & (positions < strip.end + guard)
        assigned[near] = "guard"
    for name, strip in (("test", test), ("val", val)):
        assigned[(positions >= strip.start) & (positions < strip.end)] = name
    return assigned


def _cost(assigned: NDArray[np.str_], wet: NDArray[np.float64]) -> float:
    """Rate a split: each part should be as wet as the event, and much be left for training."""
    lost = float((assigned != "train").mean())
    if lost == 1:
        return np.inf
    unlike = sum(
        abs(np.log2((wet[assigned == name].mean() + DRY) / (wet.mean() + DRY)))
        for name in ("train", "val", "test")
    )
    return float(UNLIKE_COST * unlike + LOST_COST * lost)
