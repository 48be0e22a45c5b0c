"""Where a side-looking radar sees no ground, or several places at once."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sarflood.raster.areas import ELLIPSOID
from sarflood.raster.grid import Grid

Orbit = Literal["ascending", "descending"]
_ORBITS: tuple[Orbit, ...] = get_args(Orbit)
# Degrees from north to where Sentinel-1 looks: to the right of its heading at the equator, which is
# −12° or −168°.
_LOOKS = {"ascending": 78.0, "descending": -78.0}
_COLUMNS = 1024  # the directions of the grid are taken as constant within so many


def orbit_of(said: str) -> Orbit | None:
    """Return the orbit that a text names, in upper or lower case; None where it names none."""
    return next((orbit for orbit in _ORBITS if orbit == said.strip().lower()), None)


def hidden(
    heights: NDArray[np.float32], grid: Grid, top: int, orbit: Orbit, incidence: float
) -> NDArray[np.bool_]:
    """Say where terrain is in radar shadow or layover, by its local slope alone.

    Ground that falls away from the sensor by more than 90° − θ is in shadow; ground that rises away
    from it by more than θ is laid over (Kropatsch and Strobl 1990, The Generation of SAR Layover
    and Shadow Maps from Digital Elevation Models, https://doi.org/10.1109/36.45752). It is an
    approximation: the shadow that a slope casts on the ground behind it, and the ground that a
    slope is laid over, are not marked, and θ is taken as the same in all of the scene.

    Args:
        heights: (h + 2, W + 2) metres, with a pixel around what is asked for; NaN is unknown, and
            there nothing is hidden.
        grid: Of the scene.
        top: The first row asked for.
        orbit: Which way the satellite flew; it looks to the right.
        incidence: θ in degrees: between the radar's line of sight and the vertical.

    Returns:
        (h, W) bool.
    """
    height, width = heights.shape[0] - 2, heights.shape[1] - 2
    result = np.empty((height, width), np.bool_)
    facing = np.float32(np.tan(np.radians(incidence)))
    for left in range(0, width, _COLUMNS):
        right = min(left + _COLUMNS, width)
        part = heights[:, left : right + 2]
        along, down = _away(grid, (left + right) / 2, top + height / 2, _LOOKS[orbit])
        # Metres of height for each metre away from the sensor, by central differences.
        rise = (part[1:-1, 2:] - part[1:-1, :-2]) * np.float32(along / 2)
        rise += (part[2:, 1:-1] - part[:-2, 1:-1]) * np.float32(down / 2)
        result[:, left:right] = (rise > facing) | (rise < -1 / facing)
    return result


def _away(grid: Grid, col: float, row: float, look: float) -> tuple[float, float]:
    """Return the columns and rows that a metre away from the sensor leads over."""
    lon, lat = grid.lon_lat(
        np.array([0.0, 1.0, 0.0]) + col - 0.5, np.array([0.0, 0.0, 1.0]) + row - 0.5
    )
    azimuth, _, metres = ELLIPSOID.inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])
    steps = metres * np.array([np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))])
    direction = np.array([np.sin(np.radians(look)), np.cos(np.radians(look))])
    along, down = np.linalg.solve(steps, direction)
    return float(along), float(down)
