"""Outlines of the wet areas of a mask that comes strip by strip."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy.ndimage import label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from shapely.geometry import Polygon

from sarflood.errors import InputError
from sarflood.raster.merge import merged
from sarflood.raster.patch import WET

# The first concurrent calls of two threads can deadlock in GDAL 3.11 and newer.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class WetArea:
    """One 4-connected group of wet pixels.

    Attributes:
        outline: Along the pixels' edges, in pixels (column, row) of the mask; holes are kept.
        pixels: How many.
        mean_percent: Their mean probability in percent.
    """

    outline: Polygon
    pixels: int
    mean_percent: float


@dataclass
class _Group:
    """The parts of an area that have come so far."""

    parts: list[Polygon] = field(default_factory=list)
    pixels: int = 0
    percent: int = 0

    def add(self, other: _Group) -> None:
        self.parts += other.parts
        self.pixels += other.pixels
        self.percent += other.percent


def count_areas(masks: Iterable[NDArray[np.uint8]]) -> int:
    """Return how many wet areas a mask has, without their outlines.

    Args:
        masks: (h, W), 1 is wet, from the top down without a gap.
    """
    total = waiting = 0  # areas that have ended, and those that reach the last row so far
    above: NDArray[np.int32] | None = None
    for mask in masks:
        numbers, found = label(mask == WET, output=np.int32)
        if above is None:
            above = np.zeros(mask.shape[1], np.int32)
        count, area_of = _connected(waiting, found, above, numbers[0])
        reaching, above = _reaching(area_of[waiting:], numbers[-1])
        total += count - len(reaching)
        waiting = len(reaching)
    return total + waiting


def wet_areas(
    strips: Iterable[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]],
    at_most: int | None = None,
) -> Iterator[WetArea]:
    """Outline the wet areas of a mask; the outcome is that of the whole mask in one piece.

    Memory is for one strip and for the outlines that it may still touch.

    Args:
        strips: From the top down, without a gap: number of the first row, mask (h, W) with 1 wet,
            and percent (h, W), the probabilities.
        at_most: How many areas there may be, and parts of them in one strip.

    Yields:
        Areas, each as soon as its last row has come.

    Raises:
        InputError: There are more than `at_most`.
    """
    count = 0
    seams: list[int] = []
    waiting: list[_Group] = []  # what reaches the last row so far
    above: NDArray[np.int32] | None = None  # which of them each pixel of that row is, from 1
    for top, mask, percent in strips:
        numbers, found = _outlined(mask == WET, percent, top, at_most)
        if above is None:
            above = np.zeros(mask.shape[1], np.int32)
        groups, group_of = _joined(waiting, found, above, numbers[0])
        reaching, above = _reaching(group_of, numbers[-1])
        goes_on = set(reaching.tolist())
        count += len(groups) - len(goes_on)
        _check_count(count, at_most)
        seams.append(top)
        yield from _areas([each for at, each in enumerate(groups) if at not in goes_on], seams)
        waiting = [groups[number] for number in reaching]
    _check_count(count + len(waiting), at_most)
    yield from _areas(waiting, seams)


def _areas(groups: list[_Group], seams: list[int]) -> Iterator[WetArea]:
    """Give the areas that groups are, once all their parts have come."""
    joined = iter(merged([group.parts for group in groups if len(group.parts) > 1], seams))
    for group in groups:
        outline = next(joined) if len(group.parts) > 1 else group.parts[0]
        yield WetArea(outline, group.pixels, group.percent / group.pixels)


def _joined(
    waiting: list[_Group],
    found: list[_Group],
    above: NDArray[np.int32],
    first: NDArray[np.int32],
) -> tuple[list[_Group], NDArray[np.int32]]:
    """Join the groups of a strip with those that end right above them.

    Returns:
        All groups, and for each of `found` which of them it is part of.
    """
    count, group_of = _connected(len(waiting), len(found), above, first)
    groups = [_Group() for _ in range(count)]
    for item, number in zip((*waiting, *found), group_of, strict=True):
        groups[number].add(item)
    return groups, group_of[len(waiting) :]


def _connected(
    waiting: int, found: int, above: NDArray[np.int32], first: NDArray[np.int32]
) -> tuple[int, NDArray[np.int32]]:
    """Say which groups are one: those that end right above a strip, then those of the strip.

    Returns:
        How many there are, and (waiting + found,) which of these each group is part of.
    """
    size = waiting + found
    touching = (above > 0) & (first > 0)
    upper, lower = above[touching] - 1, first[touching] - 1 + waiting
    links = coo_matrix((np.ones(len(upper), np.bool_), (upper, lower)), (size, size))
    count, group_of = connected_components(links, directed=False)
    return count, group_of


def _reaching(
    group_of: NDArray[np.int32], last: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the groups that reach the last row of a strip, and which each of its pixels is."""
    reaching, places = np.unique(group_of[last[last > 0] - 1], return_inverse=True)
    above = np.zeros(len(last), np.int32)
    above[last > 0] = places + 1
    return reaching, above


def _check_count(count: int, at_most: int | None) -> None:
    if at_most is not None and count > at_most:
        raise InputError(
            f"the map: more than {at_most} wet areas, which are not outlined; ask for image/tiff"
        )


def _outlined(
    wet: NDArray[np.bool_], percent: NDArray[np.uint8], top: int, at_most: int | None
) -> tuple[NDArray[np.int32], list[_Group]]:
    """Return the groups of a strip: (h, W) their numbers from 1, and each with its outline."""
    groups, count = label(wet, output=np.int32)
    _check_count(count, at_most)  # each takes some memory
    if not count:
        return groups, []
    flat, inside = groups.ravel(), wet.ravel()
    numbers = flat[inside]
    pixels = np.bincount(numbers, minlength=count + 1)
    sums = np.bincount(numbers, percent.ravel()[inside], count + 1)
    found = [
        _Group([], int(number), round(total))
        for number, total in zip(pixels[1:], sums[1:], strict=True)
    ]
    corners, rings, polygons, owners = array("d"), [0], [0], []
    with _ONE_AT_A_TIME:
        for outline, number in shapes(groups, wet, 4, Affine.translation(0, top)):
            for ring in outline["coordinates"]:
                corners.extend(chain.from_iterable(ring))
                rings.append(len(corners) // 2)
            polygons.append(len(rings) - 1)
            owners.append(int(number) - 1)
    # All at once: one by one they take seven times as long.
    outlines = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        np.frombuffer(corners).reshape(-1, 2),
        (np.array(rings), np.array(polygons)),
    )
    for owner, outline in zip(owners, outlines, strict=True):
        found[owner].parts.append(outline)
    return groups, found
