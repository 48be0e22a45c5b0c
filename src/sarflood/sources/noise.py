"""Noise that is a function of the pixel's coordinates alone, so that any window stands for itself.

Only additions, multiplications, square roots and look-ups: the same bits on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Hashes = NDArray[np.uint64]
Positions = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]

_ROW, _COL, _SEED = (
    np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xA24BAED4963EE407)
)


def hash_grid(rows: NDArray[np.integer[Any]], cols: NDArray[np.integer[Any]], seed: int) -> Hashes:
    """Hash integer coordinates (broadcast together) to 64 random bits each.

    The finaliser is that of SplitMix64 (Steele, Lea and Flood, 2014).
    """
    with np.errstate(over="ignore"):
        offset = np.uint64(seed) * _SEED
        value = rows.astype(np.uint64) * _ROW + (cols.astype(np.uint64) * _COL + offset)
        value ^= value >> np.uint64(30)
        value *= np.uint64(0xBF58476D1CE4E5B9)
        value ^= value >> np.uint64(27)
        value *= np.uint64(0x94D049BB133111EB)
        value ^= value >> np.uint64(31)
    return value


def uniform(hashes: Hashes) -> Field:
    """Turn hashes into numbers from 0 to 1."""
    return (hashes >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def value_noise(
    rows: Positions, cols: Positions, seed: int, cell: float, octaves: int = 1
) -> Field:
    """Evaluate smooth noise, about −1 to 1, at every crossing of `rows` and `cols`.

    Random values on a square lattice, joined by quintic curves; each further octave has half the
    cell and half the height (Perlin, 2002, https://doi.org/10.1145/566654.566636, for the curve).

    Args:
        rows: (H,) coordinates in pixels.
        cols: (W,) coordinates in pixels.
        seed: Another seed gives another field.
        cell: Lattice spacing of the first octave, in pixels.
        octaves: Number of octaves.

    Returns:
        (H, W) float32.
    """
    total = np.zeros((len(rows), len(cols)), np.float32)
    for octave in range(octaves):
        share = np.float32(0.5**octave)
        total += share * _one_octave(rows, cols, seed + 7919 * octave, cell * 0.5**octave)
    return total / np.float32(2.0 - 0.5 ** (octaves - 1))


def _one_octave(rows: Positions, cols: Positions, seed: int, cell: float) -> Field:
    upper, down = _lattice_position(rows, cell)
    left, across = _lattice_position(cols, cell)
    first_row, first_col = upper[0], left[0]
    lattice_rows = np.arange(first_row, upper[-1] + 2)
    lattice_cols = np.arange(first_col, left[-1] + 2)
    lattice = 2 * uniform(hash_grid(lattice_rows[:, None], lattice_cols, seed)) - 1
    above, below = lattice[upper - first_row], lattice[upper - first_row + 1]
    lines = above + down[:, None] * (below - above)
    step = np.diff(lines, axis=1, append=lines[:, -1:])
    here = left - first_col
    noise: Field = lines.take(here, axis=1)
    noise += across * step.take(here, axis=1)
    return noise


def _lattice_position(positions: Positions, cell: float) -> tuple[NDArray[np.int64], Field]:
    """Return the lattice index before each position, and the quintic weight of the one after."""
    scaled = positions.astype(np.float64) / cell
    index = np.floor(scaled)
    part = scaled - index
    weight = part * part * part * (part * (part * 6 - 15) + 10)
    return index.astype(np.int64), weight.astype(np.float32)


def smoothstep(values: Field, low: float, high: float) -> Field:
    """Rise smoothly from 0 at `low` to 1 at `high` (or fall, where `low` is above `high`)."""
    part = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    result: Field = part * part * (3 - 2 * part)
    return result
