"""Backscatter of a simulated landscape, as Sentinel-1 would see it before and after a flood."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from sarflood.raster.patch import UNKNOWN
from sarflood.sources.landscape import Cover, Flags, Landscape, Terrain
from sarflood.sources.noise import Field, hash_grid

LOOKS = 4.4  # equivalent number of looks of Sentinel-1 IW GRD in high resolution
RESOLUTION_DB = 1 / 64  # of the stored values: far below the speckle, and the files halve


class _Surface(IntEnum):
    FARMLAND = 0
    FOREST = 1
    BUILT = 2
    WET_FIELD = 3
    WATER = 4
    FLOODED_FOREST = 5  # bright by double bounce between water and trunks
    SHADOW = 6  # of the radar: nothing but the noise floor


# Mean backscatter in dB, VV and VH, about the middle of what is reported for C band.
_MEAN_DB = {
    _Surface.FARMLAND: (-10.5, -17.0),
    _Surface.FOREST: (-8.0, -13.5),
    _Surface.BUILT: (-2.5, -10.0),
    _Surface.WET_FIELD: (-16.3, -22.8),
    _Surface.WATER: (-19.5, -26.5),
    _Surface.FLOODED_FOREST: (-4.5, -12.5),
    _Surface.SHADOW: (-21.0, -27.0),
}
_WIND_DB = (6.0, 3.0)  # how much wind brightens water at most
_PARCEL_DB = 3.5  # range between fields
_CHANGE_DB = 1.6  # range of what a field changes between the dates
_SLOPE_DB = 13.0  # brightening a unit of slope that faces the radar
_SHADOW_SLOPE = -0.28  # steeper than it is for Sentinel-1, as this relief is smooth
_SWATH_PIXELS, _SWATH_DB = 25_000, -3.5  # the trend with incidence over an IW swath


@dataclass(frozen=True)
class Simulated:
    """What was simulated of a window.

    Attributes:
        after: (2, H, W) float32, VV and VH in dB after the flood; NaN where the swath ends.
        before: The same before the flood, without no data.
        mask: (H, W) uint8, 1 newly flooded, 0 not, 255 no data.
    """

    after: Field
    before: Field
    mask: NDArray[np.uint8]


def simulate_window(place: Landscape, row: int, col: int, height: int, width: int) -> Simulated:
    """Simulate the window of a landscape's scene that begins at `row` and `col`.

    A pixel is the same whatever window it is simulated in.
    """
    rows, cols = np.arange(row, row + height), np.arange(col, col + width)
    ground, cover = place.terrain(rows, cols), place.cover(rows, cols)
    flooded = place.flooded(rows, cols, ground)
    never = np.zeros_like(flooded)
    after = _mean_db(ground, cover, flooded, cover.wet_field, place.wind(rows, cols, 1))
    before = _mean_db(ground, cover, never, never, place.wind(rows, cols, 0))
    farmland = ~(cover.forest | cover.built | ground.river)
    after += _CHANGE_DB * (cover.change - np.float32(0.5)) * (farmland & ~flooded)
    trend = (np.float32(_SWATH_DB / _SWATH_PIXELS) * cols).astype(np.float32)
    # Four independent draws of speckle from the 64 random bits of a pixel.
    bits = hash_grid(rows[:, None], cols, place.seed + 99).astype("<u8").view("<u2")
    speckle = _speckle_table()[bits.reshape(height, width, 4)].transpose(2, 0, 1)
    after = _rounded(after + trend + speckle[:2])
    before = _rounded(before + trend + speckle[2:])
    outside = place.outside_swath(rows, cols)
    after[:, outside] = np.nan
    return Simulated(after, before, np.where(outside, UNKNOWN, flooded).astype(np.uint8))


def _mean_db(ground: Terrain, cover: Cover, flooded: Flags, wet_field: Flags, wind: Field) -> Field:
    """Return the backscatter without speckle and trend, (2, H, W) in dB."""
    surface = np.where(cover.forest, np.uint8(_Surface.FOREST), np.uint8(_Surface.FARMLAND))
    surface[wet_field] = _Surface.WET_FIELD
    surface[cover.built] = _Surface.BUILT
    surface[ground.slope < _SHADOW_SLOPE] = _Surface.SHADOW
    land = surface != _Surface.SHADOW
    surface[flooded & ~cover.forest] = _Surface.WATER
    surface[flooded & cover.forest] = _Surface.FLOODED_FOREST
    surface[ground.river] = _Surface.WATER
    water = surface == _Surface.WATER
    relief = np.clip(np.float32(_SLOPE_DB) * ground.slope, -5, 5) * (land & ~water)
    relief += _PARCEL_DB * (cover.parcel - np.float32(0.5)) * (surface == _Surface.FARMLAND)
    wind = wind * water
    bands = []
    for means, wind_db in zip(zip(*_MEAN_DB.values(), strict=True), _WIND_DB, strict=True):
        bands.append(np.array(means, np.float32)[surface] + relief + np.float32(wind_db) * wind)
    return np.stack(bands)


def _rounded(values: Field) -> Field:
    rounded: Field = np.rint(values * np.float32(1 / RESOLUTION_DB)) * np.float32(RESOLUTION_DB)
    return rounded


@cache
def _speckle_table() -> Field:
    """Return speckle in dB at 2¹⁶ even steps of probability.

    Multi-look intensity is gamma-distributed with the mean 1 and the shape `LOOKS`.
    """
    steps = (np.arange(2**16) + 0.5) / 2**16
    table: Field = (10 * np.log10(gammaincinv(LOOKS, steps) / LOOKS)).astype(np.float32)
    return table
