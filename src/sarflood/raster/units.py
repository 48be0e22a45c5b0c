"""What the numbers of a scene mean, told by their type and values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from sarflood.errors import InputError
from sarflood.raster.decibel import BEYOND_DB
from sarflood.raster.safe import read_bands

ScaleUnits = Literal["db", "linear", "uint8"]

# Medians of Sentinel-1 backscatter lie well inside: calm water -25 dB, cities -5 dB.
_DB_MEDIAN = (-45.0, 0.0)
_LINEAR_MEDIAN = (1e-5, 10.0)
_SAMPLED_TILES = 16
_TILE = 256


def tell_units(path: Path, dataset: DatasetReader, bands: list[int]) -> ScaleUnits:
    """Tell the units of a file's bands: `uint8` by their type, else by the median of a sample.

    Args:
        path: The file, for messages.
        dataset: The open file.
        bands: The 1-based indexes of its bands that are used.

    Raises:
        InputError: There is no data, or the values are no backscatter.
    """
    dtypes = {dataset.dtypes[band - 1] for band in bands}
    values = _sample(dataset, bands)
    if not values.size:
        raise InputError(f"{path}: no pixel with data")
    if dtypes == {"uint8"}:
        return "uint8"
    units = units_of(values) if dtypes <= {"float32", "float64"} else None
    if units is None:
        raise InputError(f"{path}: {', '.join(sorted(dtypes))} pixels {not_backscatter(values)}")
    return units


def units_of(values: NDArray[np.floating]) -> ScaleUnits | None:
    """Tell dB from linear power by the median of floating-point values; None where it is neither.

    Args:
        values: Valid values of one or more bands, any shape. Zeros do not count, nor what is below
            all backscatter, such as -99: many processors fill the swath's edge with either.
    """
    inside = _inside(values)
    median = float(np.median(inside)) if inside.size else 0.0
    if values.size and values.min() == 0 and values.max() == 1:
        return None  # stretched to 0 to 1
    # Power has a median above 0 even where noise removal made single pixels negative.
    units: ScaleUnits = "db" if median < 0 else "linear"
    low, high = _DB_MEDIAN if units == "db" else _LINEAR_MEDIAN
    return units if low <= median <= high else None


def _inside(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Leave out what fills a swath's edge."""
    inside: NDArray[np.floating] = values[(values != 0) & (values >= -BEYOND_DB)]
    return inside


def not_backscatter(values: NDArray[np.floating]) -> str:
    """Say of values that they are no backscatter, and what would be."""
    inside = _inside(values)
    median = float(np.median(inside)) if inside.size else 0.0
    return (
        f"with a median of {median:.4g}, {values.min():.4g} to {values.max():.4g}, are neither dB "
        "(about -30 to 0) nor linear power (about 0.001 to 1) nor uint8; calibrate the scene to "
        "sigma0 or gamma0"
    )


def _sample(dataset: DatasetReader, bands: list[int]) -> NDArray[np.float32]:
    """Return valid values of up to 16 tiles, spread over the file and always the same."""
    whole = Window(0, 0, dataset.width, dataset.height)
    windows = [
        Window(left, top, _TILE, _TILE).intersection(whole)
        for top in range(0, dataset.height, _TILE)
        for left in range(0, dataset.width, _TILE)
    ]
    taken: list[NDArray[np.float32]] = []
    for number in np.random.default_rng(0).permutation(len(windows)):
        values = read_bands(dataset, windows[number], bands)
        if np.isfinite(values).any():
            taken.append(values[np.isfinite(values)])
        if len(taken) == _SAMPLED_TILES:
            break
    return np.concatenate([np.empty(0, np.float32), *taken])
