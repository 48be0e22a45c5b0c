"""Which patches of an event are neighbours, or show the same: no part of a split may cut them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sarflood.patches.ground import footprints, overlaps
from sarflood.patches.similarity import edge_continuations
from sarflood.patches.sketch import near_duplicates

Pairs = NDArray[np.int64]  # (P, 2) positions


def related(index: pd.DataFrame, images: NDArray[np.float16], guard: int) -> Pairs:
    """List the pairs of patches of one event that show the same ground, or ground side by side.

    Args:
        index: The event's index, or rows of it.
        images: (N, C, 256, 256) of these rows; read only where there is neither grid nor CRS.
        guard: Patches of one grid count as neighbours up to this distance.

    Returns:
        Pairs of positions: on one grid within `guard` (rows and columns), with footprints in
        common, with edges that continue each other, near-duplicates.
    """
    ids = pd.Index(index["id"])
    copies = near_duplicates(index[["id", "sketch"]])
    found = [np.column_stack([ids.get_indexer(copies[name]) for name in ("first", "second")])]
    found.append(_on_grids(index, guard))
    if index["crs"].notna().any():
        outlines = footprints(index)
        found.append(np.column_stack(overlaps(outlines, outlines)))
    alone = np.flatnonzero(index["grid"].isna() & index["crs"].isna())
    if alone.size > 1:
        edges = edge_continuations(images[alone])
        found.append(alone[edges[["first", "second"]].to_numpy(np.int64)])
    pairs = np.sort(np.concatenate(found).astype(np.int64), axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def _on_grids(index: pd.DataFrame, guard: int) -> Pairs:
    """List the pairs on one grid whose rows and columns are at most `guard` apart."""
    positions = index.reset_index(drop=True).reset_index(names="place")
    positions = positions.loc[positions["grid"].notna(), ["place", "grid", "row", "col"]]
    steps = range(-guard, guard + 1)
    pairs = [np.empty((0, 2), np.int64)]
    for down in range(guard + 1):
        for right in steps:
            if (down, right) > (0, 0):
                moved = positions.assign(row=positions["row"] + down, col=positions["col"] + right)
                both = positions.merge(moved, on=["grid", "row", "col"])
                pairs.append(both[["place_x", "place_y"]].to_numpy(np.int64))
    return np.concatenate(pairs)


def groups(pairs: Pairs, count: int) -> NDArray[np.int64]:
    """Number the clusters of `count` patches that pairs join, by their first patch."""
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    numbers: NDArray[np.int64] = pd.factorize(labels)[0].astype(np.int64)
    return numbers
