"""Where a map should not be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from sarflood.mapping.aligned import Rows, aligned
from sarflood.mapping.outside import expanded
from sarflood.mapping.scene import SceneMap
from sarflood.mapping.wanted import Terrain
from sarflood.raster.areas import PixelAreas
from sarflood.raster.patch import UNKNOWN, WET
from sarflood.raster.terrain import hidden

TRUSTED, NO_DATA, OUTSIDE, HIDDEN = range(4)
SAID = "0 trusted, 1 no data, 2 outside the training's range, 3 radar shadow or layover"


@dataclass
class Excluded:
    """How much of a map should not be trusted.

    Attributes:
        outside: Pixels with data outside of the training's range.
        hidden: Pixels with data in radar shadow or layover.
        flooded_km2: Area of the wet pixels among both.
    """

    outside: int = 0
    hidden: int = 0
    flooded_km2: float = 0.0


def exclusion_strips(
    result: SceneMap, terrain: Terrain | None, excluded: Excluded
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Give the codes of `SAID` from the top down, some rows at a time.

    What is in shadow and outside the training's range, as shadow mostly is, counts as shadow.

    Args:
        result: The map.
        terrain: With its orbit; by default no shadow is looked for.
        excluded: Is added up.

    Yields:
        The first row's number, and (h, W) codes.

    Raises:
        InputError: The terrain cannot be read, or lies elsewhere.
        ValueError: It has no orbit.
    """
    areas = PixelAreas.of(result.grid)
    with ExitStack() as stack:
        heights_of = (
            stack.enter_context(aligned(terrain.dem, result.grid, Resampling.bilinear))
            if terrain
            else None
        )
        for top, mask in result.mask.strips():
            codes = np.full(mask.shape, TRUSTED, np.uint8)
            if result.outside:
                codes[expanded(result.outside, top, mask.shape)] = OUTSIDE
            if terrain and heights_of:
                if terrain.orbit is None:
                    raise ValueError("shadow falls by the orbit, which is not told")
                heights = _with_border(heights_of, top, top + len(mask), result.grid.height)
                unseen = hidden(heights, result.grid, top, terrain.orbit, terrain.incidence)
                codes[unseen] = HIDDEN
            codes[mask == UNKNOWN] = NO_DATA
            excluded.outside += int(np.count_nonzero(codes == OUTSIDE))
            excluded.hidden += int(np.count_nonzero(codes == HIDDEN))
            excluded.flooded_km2 += areas.sum((mask == WET) & (codes >= OUTSIDE), top)
            yield top, codes


def _with_border(rows_of: Rows, top: int, bottom: int, height: int) -> NDArray[np.float32]:
    """Return rows with a pixel more on each side, repeated at the edge of the scene."""
    above, below = max(0, top - 1), min(height, bottom + 1)
    rows = rows_of(above, below)
    return np.pad(rows, ((top == above, bottom == below), (1, 1)), mode="edge")
