"""Training, validation and test patches that stand apart.

Patches of a few large grids are split by whole strips of them, never tile by tile, with unused
patches between the strips. Patches of many small places, and those without a place, are joined to
groups that show the same ground or ground side by side, and split by whole groups; where nearly all
hang together, they are laid out on a grid and split by strips of that.

Events are split in the order in which they were accepted, each in the light of earlier ones: what
lies on or near the ground of an earlier event follows that one's split. So a new event never moves
a patch of another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.errors import InputError
from sarflood.params import SplitParams
from sarflood.patches.ground import footprints, overlaps
from sarflood.patches.neighbours import groups, positions, related
from sarflood.patches.sketch import near_duplicates
from sarflood.patches.store import EventPatches

MAX_STARTS = 60
MANY_PLACES = 20  # scenes or chips, from which on they are kept whole
DRAWN = 2_000_000  # groups in all orders in which they are tried
MIN_ORDERS, MAX_ORDERS = 400, 20_000
UNLIKE_COST = 1.0  # of a part whose wet share is twice that of the event, or none of it
DRY = 1e-3  # wet shares below this are all the same
LOST_COST = 1.0  # of having no patch left for training
TRAIN, VAL, TEST, GUARD = "train", "val", "test", "guard"
HELD_OUT, UNLABELLED = "held_out", "unlabelled"

Parts = NDArray[np.str_]


def split_events(events: Sequence[EventPatches], params: SplitParams) -> pd.DataFrame:
    """Assign each patch of all events.

    Args:
        events: All accepted events.
        params: Shares, guard distance, and which events are wholly for testing.

    Returns:
        `id`, `event`, `split` and `scene`, a row a patch in the order of `events`. `split` is
        `train`, `val`, `test`, `guard` (unused, between the others), `unlabelled` or `held_out`. An
        event too small to be kept apart is all `train`. `scene` names what patches of one event
        that lie side by side, or show the same, have in common.

    Raises:
        InputError: `split.leave_out` names an event that is not there or has no labels.
    """
    _check_left_out(events, params)
    left_out = [item for item in events if item.event.id in params.leave_out]
    others = sorted(
        (item for item in events if item.event.id not in params.leave_out),
        key=lambda item: (item.event.number, item.event.id),
    )
    done: list[pd.DataFrame] = []
    for item in left_out + others:
        done.append(_table(item, *_split(item, done, params)))
    order = [row for item in events for row in item.index["id"]]
    table = pd.concat(done, ignore_index=True)[["id", "event", "split", "scene"]]
    return table.set_index("id").loc[order].reset_index()


def split_held_out(
    item: EventPatches, others: Sequence[EventPatches], split: pd.DataFrame
) -> pd.DataFrame:
    """Assign the patches of an event that a split does not know, as if it were held out.

    Args:
        item: A labelled event.
        others: The events of the split.
        split: As `split_events` gives it, for `others`.

    Returns:
        `id`, `event` and `split`, a row a patch: `held_out`, `guard` (the same ground as training
        or validation patches, or a copy of one), or `unlabelled`.
    """
    parts = split.set_index("id")["split"]
    done = [
        _table(other, parts.reindex(other.index["id"]).fillna(GUARD).to_numpy(str))
        for other in others
    ]
    own = _held_out(item, item.index["wet_share"].notna().to_numpy(), done, guard=0)
    return _table(item, own)[["id", "event", "split"]]


def _check_left_out(events: Sequence[EventPatches], params: SplitParams) -> None:
    labelled = {item.event.id for item in events if item.masks is not None}
    for name in params.leave_out:
        if name not in labelled:
            raise InputError(
                f"split.leave_out names {name!r}; labelled events are {', '.join(sorted(labelled))}"
            )


def _table(
    item: EventPatches, parts: Parts, scenes: NDArray[np.int64] | None = None
) -> pd.DataFrame:
    columns = ["id", "event", "crs", "transform", "sketch"]
    table = item.index[columns].reset_index(drop=True).assign(split=parts)
    numbers = np.zeros(len(table), np.int64) if scenes is None else scenes
    return table.assign(scene=[f"{item.event.id}/{number}" for number in numbers])


def _split(
    item: EventPatches, done: list[pd.DataFrame], params: SplitParams
) -> tuple[Parts, NDArray[np.int64]]:
    """Split one event, given the tables of those before it; return its scenes, too."""
    index = item.index.reset_index(drop=True)
    labelled = index["wet_share"].notna().to_numpy()
    parts = np.full(len(index), UNLABELLED, dtype="<U10")
    scenes = np.zeros(len(index), np.int64)
    if item.event.hold_out:
        return _held_out(item, labelled, done, params.guard_patches), scenes
    if item.event.id in params.leave_out:
        parts[labelled] = TEST
        return parts, scenes
    if not labelled.any():
        return parts, scenes
    rows = np.flatnonzero(labelled)
    pairs = related(index.iloc[rows], item.images[rows], params.guard_patches)
    scenes[rows] = _scenes(index.iloc[rows], pairs)
    own = _split_alone(index.iloc[rows], item.images[rows], scenes[rows], params)
    if params.leave_out:
        own[own == TEST] = TRAIN
    earlier = _earlier_parts(index.iloc[rows], done, params.guard_patches)
    # What is held out or left out is scored alone: nothing near it may train.
    earlier[(earlier == HELD_OUT) | ((earlier == TEST) & bool(params.leave_out))] = GUARD
    inherited = earlier != ""
    own[inherited] = earlier[inherited]
    parts[rows] = _guarded(own, pairs, inherited)
    return parts, scenes


def _scenes(index: pd.DataFrame, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups of patches that are related; tiles of one grid are one, however far."""
    places = index["grid"].fillna(index["id"])
    grids = np.column_stack([np.arange(len(index)), places.map(_first_position(places))])
    return groups(np.concatenate([pairs, grids]), len(index))


def _held_out(
    item: EventPatches, labelled: NDArray[np.bool_], done: list[pd.DataFrame], guard: int
) -> Parts:
    parts = np.full(len(labelled), UNLABELLED, dtype="<U10")
    rows = np.flatnonzero(labelled)
    earlier = _earlier_parts(item.index.iloc[rows].reset_index(drop=True), done, guard)
    parts[rows] = np.where(np.isin(earlier, (TRAIN, VAL, GUARD)), GUARD, HELD_OUT)
    return parts


def _split_alone(
    index: pd.DataFrame,
    images: NDArray[np.float16],
    scenes: NDArray[np.int64],
    params: SplitParams,
) -> Parts:
    wet = (index["wet_share"] * index["valid_share"]).to_numpy()
    if index["grid"].notna().all() and index["grid"].nunique() < MANY_PLACES:
        return _by_strips(index[["row", "col"]].to_numpy(np.int64), wet, params)
    parts = _by_groups(scenes, wet, index, params)
    if TEST in parts:
        return parts
    return _by_strips(positions(index, images, params.guard_patches), wet, params)


def _first_position(places: pd.Series) -> dict[str, int]:
    return {place: number for number, place in reversed(list(enumerate(places)))}


def _by_groups(
    group: NDArray[np.int64], wet: NDArray[np.float64], index: pd.DataFrame, params: SplitParams
) -> Parts:
    """Fill test, then validation, with whole groups in many drawn orders; keep the cheapest.

    Where no order fills both, all is for training.
    """
    sizes = np.bincount(group)
    random = np.random.default_rng(crc32(str(index["id"].iloc[0]).encode()))
    number = min(max(DRAWN // len(sizes), MIN_ORDERS), MAX_ORDERS)
    orders = random.permuted(np.tile(np.arange(len(sizes)), (number, 1)), axis=1)
    dealt = np.full(orders.shape, TRAIN, dtype="<U10")
    off = np.zeros(len(orders))
    for part, share in ((TEST, params.test_share), (VAL, params.val_share)):
        wanted = share * len(group)
        off += np.abs(_fill(dealt, part, orders, sizes, wanted) / wanted - 1)
    wet_sums = np.bincount(group, wet).astype(np.float64)
    costs = _cost(dealt, sizes, wet_sums) + off
    best = int(costs.argmin())
    if not np.isfinite(costs[best]):
        return np.full(len(group), TRAIN, dtype="<U10")
    parts: Parts = dealt[best, group]
    return parts


def _fill(
    dealt: Parts, part: str, orders: NDArray[np.int64], sizes: NDArray[np.int64], wanted: float
) -> NDArray[np.int64]:
    """Deal groups to a part in each order until it has `wanted` patches, or a quarter more.

    Args:
        dealt: (D, G) the parts of the groups; those of `train` are free. Changed.
        part: To which.
        orders: (D, G) groups in the order in which they are tried.
        sizes: (G,) patches.
        wanted: Patches.

    Returns:
        (D,) the patches that the part got.
    """
    filled = np.zeros(len(orders), np.int64)
    every = np.arange(len(orders))
    for tried in orders.T:
        free = dealt[every, tried] == TRAIN
        fits = free & (filled < wanted) & (filled + sizes[tried] <= 1.25 * wanted)
        dealt[every[fits], tried[fits]] = part
        filled += np.where(fits, sizes[tried], 0)
    return filled


def _earlier_parts(index: pd.DataFrame, done: list[pd.DataFrame], guard: int) -> Parts:
    """Return the part of what earlier events have on the same ground and near it, or as a copy.

    Returns:
        (N,) that part; `guard` where there are several, or only unused patches on the same ground;
        empty where there is nothing.
    """
    parts = np.full(len(index), "", dtype="<U10")
    if not done:
        return parts
    before = pd.concat(done, ignore_index=True)
    kinds = before["split"].to_numpy()
    near, neighbour = overlaps(footprints(index, guard), footprints(before, guard))
    copies = near_duplicates(index[["id", "sketch"]], before[["id", "sketch"]])
    near = np.concatenate([near, pd.Index(index["id"]).get_indexer(copies["first"])])
    neighbour = np.concatenate([neighbour, pd.Index(before["id"]).get_indexer(copies["second"])])
    seen = pd.DataFrame({"own": near, "part": kinds[neighbour]})
    found = seen[~seen["part"].isin([UNLABELLED, GUARD])].groupby("own")["part"]
    first = found.first().where(found.nunique() == 1, GUARD)
    parts[first.index.to_numpy(np.int64)] = first.to_numpy(str)
    own, other = overlaps(footprints(index), footprints(before))
    unused = pd.Series(kinds[other] == GUARD).groupby(own).all()
    parts[unused.index[unused].to_numpy(np.int64)] = GUARD
    return parts


def _guarded(parts: Parts, pairs: NDArray[np.int64], fixed: NDArray[np.bool_]) -> Parts:
    """Leave out the patches that are related to one of another part.

    What follows an earlier event stays, else test stays before validation before training.
    """
    rank = np.select([parts == TEST, parts == VAL, parts == TRAIN], [3, 2, 1], 0) + 10 * fixed
    result = parts.copy()
    for one, other in pairs:
        kinds = {result[one], result[other]}
        if len(kinds) == 2 and kinds <= {TRAIN, VAL, TEST}:
            result[one if rank[one] < rank[other] else other] = GUARD
    return result


@dataclass(frozen=True)
class _Strip:
    """Positions `start` to `end` (excluded) along an axis."""

    start: int
    end: int

    def apart_from(self, other: _Strip, guard: int) -> bool:
        return self.end + guard <= other.start or other.end + guard <= self.start


def _by_strips(places: NDArray[np.int64], wet: NDArray[np.float64], params: SplitParams) -> Parts:
    """Choose the axis and the two strips that cost least; see `_cost`.

    The strips are cut at the same rows or columns in all grids, so that scenes of one place are cut
    alike.

    Args:
        places: (N, 2) rows and columns.
        wet: (N,) the wet share of each patch.
        params: Shares and guard distance.
    """
    best_cost, best = np.inf, np.full(len(places), TRAIN, dtype="<U10")
    each = np.ones(len(places), np.int64)
    for along in (places - places.min(axis=0)).T:
        for test, val in _strips(along, params):
            assigned = _assign(along, test, val, params.guard_patches)
            cost = _cost(assigned[None], each, wet).item()
            if cost < best_cost:
                best_cost, best = cost, assigned
    return best


def _strips(along: NDArray[np.int64], params: SplitParams) -> list[tuple[_Strip, _Strip]]:
    """List the pairs of test and validation strips that are apart and take half at most."""
    before = np.concatenate([[0], np.cumsum(np.bincount(along))])  # patches before a position
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


def _assign(along: NDArray[np.int64], test: _Strip, val: _Strip, guard: int) -> Parts:
    assigned = np.full(len(along), TRAIN, dtype="<U10")
    for strip in (test, val):
        near = (along >= strip.start - guard) & (along < strip.end + guard)
        assigned[near] = GUARD
    for name, strip in ((TEST, test), (VAL, val)):
        assigned[(along >= strip.start) & (along < strip.end)] = name
    return assigned


def _cost(
    assigned: Parts, patches: NDArray[np.int64], wet: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rate splits: each part should be as wet as the event, and much be left for training.

    Args:
        assigned: (D, G) the part of each group of patches, in D splits.
        patches: (G,) how many.
        wet: (G,) the sum of their wet shares.

    Returns:
        (D,) costs; infinite where a part has no patch.
    """
    whole = patches.sum()
    mean = wet.sum() / whole
    lost = (assigned != TRAIN) @ patches / whole
    cost: NDArray[np.float64] = LOST_COST * lost
    for part in (TRAIN, VAL, TEST):
        chosen = assigned == part
        count = chosen @ patches
        means = (chosen @ wet) / np.maximum(count, 1)
        unlike = np.abs(np.log2((means + DRY) / (mean + DRY)))
        cost += np.where(count > 0, UNLIKE_COST * unlike, np.inf)
    return cost
