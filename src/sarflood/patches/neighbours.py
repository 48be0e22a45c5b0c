"""Which patches of an event are neighbours, or show the same: no part of a split may cut them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sarflood.patches.ground import footprints, overlaps
from sarflood.patches.ground import positions as ground_positions
from sarflood.patches.similarity import edge_continuations
from sarflood.patches.sketch import near_duplicates

Pairs = NDArray[np.int64]  # (P, 2) positions


def related(index: pd.DataFrame, images: NDArray[np.float16], guard: int) -> Pairs:
    """List the pairs of patches of one event that show the same ground, or ground side by side.

    Args:
        index: The event's index, or rows of it.
        images: (N, C, 256, 256) of these rows; read only where there is neither grid nor CRS.
        guard: In patches: what is nearer counts as neighbours.

    Returns:
        Pairs of positions: on one grid within `guard` (rows and columns), on ground nearer than
        `guard` patches, with edges that continue each other, near-duplicates.
    """
    ids = pd.Index(index["id"])
    copies = near_duplicates(index[["id", "sketch"]])
    found = [np.column_stack([ids.get_indexer(copies[name]) for name in ("first", "second")])]
    found.append(_on_grids(index, guard))
    if index["crs"].notna().any():
        outlines = footprints(index, guard)
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


def positions(index: pd.DataFrame, images: NDArray[np.float16], guard: int) -> NDArray[np.int64]:
    """Lay the patches of one event out on one grid, as far as their neighbours are known.

    Args:
        index: The event's index, or rows of it.
        images: (N, C, 256, 256) of these rows; read only where there is neither grid nor CRS.
        guard: Patches that stay free between those of which nothing says how they lie to each
            other.

    Returns:
        (N, 2) rows and columns from 0: of the ground where there is a georeference, else of the
        source's own grids, else as edges continue each other; these kinds, grids and clusters of
        patches stand side by side.
    """
    places = np.zeros((len(index), 2), np.int64)
    georeferenced = index["crs"].notna().to_numpy()
    on_grid = index["grid"].notna().to_numpy() & ~georeferenced
    alone = ~georeferenced & ~on_grid
    clusters: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    if georeferenced.any():
        clusters.append((np.flatnonzero(georeferenced), ground_positions(index[georeferenced])))
    for _, rows in index.reset_index(drop=True)[on_grid].groupby("grid"):
        clusters.append((rows.index.to_numpy(), rows[["row", "col"]].to_numpy(np.int64)))
    if alone.any():
        members = np.flatnonzero(alone)
        clusters += [(members[part], there) for part, there in _laid_out(images[members])]
    free = 0
    for members, there in clusters:
        places[members] = there - there.min(axis=0)
        places[members, 1] += free
        free = int(places[members, 1].max()) + 1 + guard
    return places


def _laid_out(
    images: NDArray[np.float16],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give the clusters of patches that edges join, with the rows and columns in each."""
    edges = edge_continuations(images)
    steps: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for one, other, down, right in edges[["first", "second", "down", "right"]].to_numpy(np.int64):
        steps[one].append((other, down, right))
        steps[other].append((one, -down, -right))
    seen: dict[int, tuple[int, int]] = {}
    for start in range(len(images)):
        if start in seen:
            continue
        cluster, seen[start] = [start], (0, 0)
        for patch in cluster:  # grows as its neighbours are found
            row, col = seen[patch]
            for other, down, right in steps[patch]:
                if other not in seen:
                    seen[other] = (row + down, col + right)
                    cluster.append(other)
        yield np.array(cluster), np.array([seen[patch] for patch in cluster])


def groups(pairs: Pairs, count: int) -> NDArray[np.int64]:
    """Number the clusters of `count` patches that pairs join, by their first patch."""
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    numbers: NDArray[np.int64] = pd.factorize(labels)[0].astype(np.int64)
    return numbers
