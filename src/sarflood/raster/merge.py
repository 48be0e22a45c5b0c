"""Outlines along pixels' edges that meet at rows of pixels, merged into one.

An overlay, as GEOS has it for any polygons, takes many times as long here, and memory for each
edge: but for the rows where they meet, all edges are those of the merged outline already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

Whole = NDArray[np.int64]


def merged(areas: Sequence[Sequence[Polygon]], seams: Sequence[int]) -> list[Polygon]:
    """Merge the parts of each area.

    Args:
        areas: Of each the parts: outlines along the edges of pixels, whose corners are whole
            numbers. Parts of an area do not overlap, and together are connected by edges of pixels.
        seams: The rows at which parts may meet: no other edges are compared.

    Returns:
        Of each its outline, with no corner in the middle of a straight edge.
    """
    if not areas:
        return []
    starts, ends, owners = _without_seams(*_edges(areas), np.unique(seams))
    following = _following(starts, ends, owners)
    order, first = _rings(following)
    starts, owners = starts[order], owners[order]
    step = ends[order] - starts
    last = np.append(first[1:], len(order)) - 1
    before = np.arange(-1, len(order) - 1)
    before[first] = last
    turns = (step[:, 0] == 0) != (step[before, 0] == 0)
    # Twice the area, by the shoelace formula: an outline is positive, holes are not.
    across = starts[:, 0] * step[:, 1] - starts[:, 1] * step[:, 0]
    is_hole = np.add.reduceat(across, first) < 0
    counts = np.add.reduceat(turns, first, dtype=np.int64)
    corners = starts[turns]
    rings = np.split(corners, np.cumsum(counts)[:-1])
    of_area = owners[first]
    closed = [
        np.concatenate((rings[number], rings[number][:1]))
        for number in np.lexsort((is_hole, of_area))  # outlines come before their holes
    ]
    ring_ends = np.cumsum([0, *map(len, closed)])
    area_ends = np.cumsum([0, *np.bincount(of_area, minlength=len(areas))])
    found: list[Polygon] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        np.concatenate(closed).astype(np.float64),
        (ring_ends, area_ends),
    ).tolist()
    return found


def _edges(areas: Sequence[Sequence[Polygon]]) -> tuple[Whole, Whole, Whole]:
    """Return the edges of all parts, wet on their left (x to the right, y up).

    Returns:
        (E, 2) where each begins, (E, 2) where it ends, and (E,) of which area it is.
    """
    parts = np.array([part for area in areas for part in area], dtype=object)
    of_area = np.repeat(np.arange(len(areas)), [len(area) for area in areas])
    _, corners, (rings, polygons) = shapely.to_ragged_array(shapely.orient_polygons(parts))
    whole = np.rint(corners).astype(np.int64)
    inside = np.ones(len(whole) - 1, np.bool_)
    inside[rings[1:-1] - 1] = False  # from the end of a ring to the beginning of the next
    of_ring = np.repeat(of_area, np.diff(polygons))
    owners = np.repeat(of_ring, np.diff(rings))
    return whole[:-1][inside], whole[1:][inside], owners[:-1][inside]


def _without_seams(
    starts: Whole, ends: Whole, owners: Whole, seams: Whole
) -> tuple[Whole, Whole, Whole]:
    """Take out what two parts of an area have in common: edges there run both ways."""
    at_seam = (starts[:, 1] == ends[:, 1]) & np.isin(starts[:, 1], seams)
    left = np.minimum(starts[at_seam, 0], ends[at_seam, 0])
    right = np.maximum(starts[at_seam, 0], ends[at_seam, 0])
    sign = np.sign(ends[at_seam, 0] - starts[at_seam, 0])
    # How many run to the right, less those to the left, changes at an edge's two ends.
    rows = np.tile(np.stack((owners[at_seam], starts[at_seam, 1])), 2)
    places, changes = np.concatenate((left, right)), np.concatenate((sign, -sign))
    order = np.lexsort((places, rows[1], rows[0]))
    rows, places = rows[:, order], places[order]
    level = np.cumsum(changes[order])
    kept = np.flatnonzero((level[:-1] != 0) & (places[1:] > places[:-1]))
    to_right = level[kept] > 0
    one, other = places[kept], places[kept + 1]
    of_area, row = rows[:, kept]
    kept_starts = np.stack((np.where(to_right, one, other), row), axis=1)
    kept_ends = np.stack((np.where(to_right, other, one), row), axis=1)
    return (
        np.concatenate((starts[~at_seam], kept_starts)),
        np.concatenate((ends[~at_seam], kept_ends)),
        np.concatenate((owners[~at_seam], of_area)),
    )


def _following(starts: Whole, ends: Whole, owners: Whole) -> Whole:
    """Return for each edge which one goes on from its end.

    Where two areas of dry pixels touch at a corner, each is gone round by itself: to the right.
    """
    base = np.array([starts.min(axis=0), ends.min(axis=0)]).min(axis=0)
    size = np.array([starts.max(axis=0), ends.max(axis=0)]).max(axis=0) - base + 1

    def keys(points: Whole) -> Whole:
        x, y = (points - base).T
        numbers: Whole = (owners * size[1] + y) * size[0] + x
        return numbers

    leaving = keys(starts)
    order = np.argsort(leaving, kind="stable")
    arriving = keys(ends)
    place = np.searchsorted(leaving, arriving, sorter=order)
    chosen: Whole = order[place]
    second = order[np.minimum(place + 1, len(order) - 1)]
    several = (leaving[second] == arriving) & (second != chosen)
    heading, going = np.sign(ends - starts), np.sign(ends - starts)[second]
    right = heading[:, 0] * going[:, 1] - heading[:, 1] * going[:, 0] < 0
    chosen[several & right] = second[several & right]
    return chosen


def _rings(following: Whole) -> tuple[Whole, Whole]:
    """Return the edges ring by ring, in order, and where each ring begins.

    By doubling (Wyllie 1979): each edge knows how far it is to one that is twice as far, and so on.
    """
    count = len(following)
    # The lowest edge of a ring is its last.
    lowest, ahead = np.arange(count), following
    for _ in range(count.bit_length()):
        lowest = np.minimum(lowest, lowest[ahead])
        ahead = ahead[ahead]
    is_last = lowest == np.arange(count)
    ahead = np.where(is_last, np.arange(count), following)
    distance = (~is_last).astype(np.int64)
    while True:
        further = distance[ahead]
        if not further.any():
            break
        distance += further
        ahead = ahead[ahead]
    order = np.lexsort((-distance, lowest))
    first = np.flatnonzero(np.diff(lowest[order], prepend=-1))
    return order, first
