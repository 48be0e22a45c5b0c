"""The leak check: test and validation patches against training patches, whatever made the split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.patches.ground import footprints, overlaps
from sarflood.patches.similarity import edge_continuations
from sarflood.patches.sketch import near_duplicates
from sarflood.patches.store import EventPatches
from sarflood.validation.checkpoint import judge
from sarflood.validation.columns import TELLING_SHARE
from sarflood.validation.verdict import Verdict

SCORED = ("test", "val", "held_out")
COPY, NEAR_COPY, SAME_MASK = "copy_in_train", "near_copy_in_train", "mask_in_train"
GRID_DISTANCE, SAME_GROUND, CONTINUED = "grid_distance", "ground_in_train", "continued_in_train"
NEAR_GROUND = "near_train"
LEAKS = (COPY, NEAR_COPY, SAME_MASK, SAME_GROUND, NEAR_GROUND, CONTINUED)


def leak_table(events: Sequence[EventPatches], split: pd.DataFrame, guard: int) -> pd.DataFrame:
    """Describe how near each scored patch is to what the model is trained on.

    Args:
        events: All accepted events.
        split: `id` and `split`, a row a patch.
        guard: The patches that should stand between training and scored ones.

    Returns:
        A row a patch of `test`, `val` or `held_out`, with `id`, `event`, `split` and the id of a
        training patch (empty where there is none) that: has the same image (`copy_in_train`),
        the same pixels shifted or re-stretched (`near_copy_in_train`), the same mask
        (`mask_in_train`), covers ground in common (`ground_in_train`) or nearer than `guard`
        patches (`near_train`), continues it at an edge (`continued_in_train`, for patches without
        grid and georeference); and `grid_distance`, the rows or columns to the nearest training
        patch of its grid, NaN without one.
    """
    index = pd.concat([item.index for item in events], ignore_index=True)
    index = index.merge(split[["id", "split"]], on="id", validate="one_to_one")
    train = index[index["split"] == "train"].reset_index(drop=True)
    scored = index[index["split"].isin(SCORED)].reset_index(drop=True)
    telling = train["wet_share"].between(TELLING_SHARE, 1 - TELLING_SHARE)
    leaks = scored[["id", "event", "split"]].copy()
    leaks[COPY] = _holder(scored["image_sha256"], train["image_sha256"], train["id"])
    leaks[SAME_MASK] = _holder(
        scored["mask_sha256"], train.loc[telling, "mask_sha256"], train.loc[telling, "id"]
    )
    copies = near_duplicates(scored[["id", "sketch"]], train[["id", "sketch"]])
    leaks[NEAR_COPY] = _first(leaks["id"], copies["first"], copies["second"])
    for column, margin in ((SAME_GROUND, 0), (NEAR_GROUND, guard)):
        own, other = overlaps(footprints(scored, margin), footprints(train, margin))
        leaks[column] = _first(leaks["id"], leaks["id"][own], train["id"][other])
    leaks[GRID_DISTANCE] = _grid_distance(scored, train)
    leaks[CONTINUED] = _continued(events, leaks["id"], train["id"])
    return leaks


def _holder(wanted: pd.Series, values: pd.Series, ids: pd.Series) -> pd.Series:
    """Return the id of the first patch that has the wanted value."""
    known = pd.Series(ids.to_numpy(), index=values.to_numpy())
    known = known[known.index.notna() & ~known.index.duplicated()]
    return wanted.map(known).astype(object).fillna("")


def _first(ids: pd.Series, found: pd.Series, partners: pd.Series) -> pd.Series:
    pairs = pd.Series(partners.to_numpy(), index=found.to_numpy(), dtype=object)
    return ids.map(pairs[~pairs.index.duplicated()]).astype(object).fillna("")


def _grid_distance(scored: pd.DataFrame, train: pd.DataFrame) -> NDArray[np.float64]:
    """Return the Chebyshev distance to the nearest training patch of the same event and grid."""
    distance = np.full(len(scored), np.nan)
    places = dict(list(train[train["grid"].notna()].groupby(["event", "grid"])))
    for key, rows in scored[scored["grid"].notna()].groupby(["event", "grid"]):
        if key in places:
            there = places[key][["row", "col"]].to_numpy()
            for place, here in zip(rows.index, rows[["row", "col"]].to_numpy(), strict=True):
                distance[place] = np.abs(there - here).max(axis=1).min()
    return distance


def _continued(events: Sequence[EventPatches], scored: pd.Series, train: pd.Series) -> pd.Series:
    """Return the training patch that a scored one continues at an edge."""
    found: list[str] = []
    partners: list[str] = []
    train_ids, scored_ids = set(train), set(scored)
    for item in events:
        index = item.index.reset_index(drop=True)
        alone = np.flatnonzero(index["grid"].isna() & index["crs"].isna())
        if alone.size < 2:
            continue
        ids = index["id"].to_numpy()[alone]
        for first, second in edge_continuations(item.images[alone])[["first", "second"]].to_numpy():
            for one, other in ((ids[first], ids[second]), (ids[second], ids[first])):
                if one in scored_ids and other in train_ids:
                    found.append(one)
                    partners.append(other)
    return _first(scored, pd.Series(found, dtype=object), pd.Series(partners, dtype=object))


def check_leaks(events: Sequence[EventPatches], split: pd.DataFrame, guard: int) -> Verdict:
    """Judge a split by Great Expectations: each scored patch that leaks is named with its reason.

    Args:
        events: All accepted events.
        split: `id` and `split`, a row a patch.
        guard: `split.guard_patches`: this many patches between training and scored ones.
    """
    from sarflood.validation.expect import between, empty

    table = leak_table(events, split, guard)
    suite = [
        empty("no copy", "leaks", "a training patch has exactly the same image", COPY),
        empty(
            "no near copy",
            "leaks",
            "a training patch shows the same pixels, shifted or re-stretched",
            NEAR_COPY,
        ),
        empty("no copied mask", "leaks", "a training patch has exactly the same mask", SAME_MASK),
        empty("own ground", "leaks", "a training patch covers the same ground", SAME_GROUND),
        empty(
            "own surroundings",
            "leaks",
            f"a training patch covers ground nearer than {guard} patches",
            NEAR_GROUND,
        ),
        between(
            "guard distance",
            "leaks",
            f"a training patch of its grid stands nearer than {guard} unused patches",
            GRID_DISTANCE,
            guard + 1,
            None,
        ),
        empty("no continuation", "leaks", "a training patch continues it at an edge", CONTINUED),
    ]
    return judge(table, suite, title="split", suite_name="Leaks between parts of the split")
