"""The filters against their equations, written down pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sarflood.model.speckle import LOOKS, SpeckleFilter, despeckle

Side = Callable[[int, int], bool]


def run(decibel: np.ndarray, kind: SpeckleFilter) -> np.ndarray:
    filtered: np.ndarray = despeckle(torch.from_numpy(decibel)[None, None], kind)[0, 0].numpy()
    return filtered


def scene(seed: int = 0, size: int = 24) -> np.ndarray:
    """Two fields with a slanting edge between them, and a hole without data."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices((size, size))
    level = np.where(rows + 2 * cols > 1.4 * size, -7.0, -18.0)
    decibel = level + 10 * np.log10(rng.gamma(LOOKS, 1 / LOOKS, (size, size)))
    decibel[5:8, 15:19] = np.nan
    result: np.ndarray = decibel.astype(np.float32)
    return result


def estimate(pixel: float, values: np.ndarray) -> float:
    """Lee's estimate of a pixel from the intensities of its window."""
    mean, variance, speckle = values.mean(), values.var(), 1 / LOOKS
    signal = max((variance - mean**2 * speckle) / (1 + speckle), 0.0)
    return float(mean + (signal / variance if variance > 0 else 0.0) * (pixel - mean))


def window(power: np.ndarray, row: int, col: int, keep: Side | None = None) -> np.ndarray:
    """The valid intensities of the 7×7 window, or of the part of it that `keep` chooses."""
    found = []
    for down in range(-3, 4):
        for right in range(-3, 4):
            y, x = row + down, col + right
            inside = 0 <= y < power.shape[0] and 0 <= x < power.shape[1]
            if keep and not keep(down, right):
                continue
            if inside and np.isfinite(power[y, x]):
                found.append(power[y, x])
    return np.array(found)


def sub_mean(power: np.ndarray, row: int, col: int) -> float:
    row, col = (
        int(np.clip(at, 0, size - 1)) for at, size in zip((row, col), power.shape, strict=True)
    )
    block = power[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
    block = block[np.isfinite(block)]
    return float(block.mean()) if block.size else 0.0


def half(power: np.ndarray, row: int, col: int) -> Side:
    """Choose the half window: the strongest edge of the sub-window means, the nearer side."""
    means = [[sub_mean(power, row + 2 * i, col + 2 * j) for j in (-1, 0, 1)] for i in (-1, 0, 1)]
    (a, b, c), (d, e, f), (g, h, i) = means
    strengths = [
        abs(c + f + i - a - d - g),
        abs(f + h + i - a - b - d),
        abs(g + h + i - a - b - c),
        abs(d + g + h - b - c - f),
    ]
    sides: list[tuple[tuple[float, Side], tuple[float, Side]]] = [
        ((d, lambda _, x: x <= 0), (f, lambda _, x: x >= 0)),
        ((a, lambda y, x: y + x <= 0), (i, lambda y, x: y + x >= 0)),
        ((b, lambda y, _: y <= 0), (h, lambda y, _: y >= 0)),
        ((c, lambda y, x: y <= x), (g, lambda y, x: y >= x)),
    ]
    one, other = sides[int(np.argmax(strengths))]
    return other[1] if abs(other[0] - e) < abs(one[0] - e) else one[1]


@pytest.mark.parametrize("kind", ["lee", "refined_lee"])
@pytest.mark.parametrize("seed", range(3))
def test_a_filter_is_its_equations(kind: SpeckleFilter, seed: int) -> None:
    decibel = scene(seed)
    power = 10 ** (decibel.astype(np.float64) / 10)
    expected = np.full_like(power, np.nan)
    for row, col in np.argwhere(np.isfinite(power)):
        keep = half(power, row, col) if kind == "refined_lee" else None
        expected[row, col] = estimate(power[row, col], window(power, row, col, keep))
    np.testing.assert_allclose(run(decibel, kind), 10 * np.log10(expected), atol=0.02)


@pytest.mark.parametrize("kind", ["lee", "refined_lee"])
def test_even_ground_keeps_its_mean_and_loses_its_speckle(kind: SpeckleFilter) -> None:
    rng = np.random.default_rng(1)
    power = rng.gamma(LOOKS, 1 / LOOKS, (200, 200)) * 0.05
    filtered = 10 ** (run((10 * np.log10(power)).astype(np.float32), kind) / 10)
    assert filtered.mean() == pytest.approx(power.mean(), rel=0.02)
    looks = filtered.mean() ** 2 / filtered.var()
    assert looks > 4 * LOOKS


def test_the_refined_filter_keeps_edges_better() -> None:
    rng = np.random.default_rng(2)
    truth = np.where(np.indices((120, 120))[1] < 60, -20.0, -8.0)
    noisy = (truth + 10 * np.log10(rng.gamma(LOOKS, 1 / LOOKS, truth.shape))).astype(np.float32)
    near = np.s_[5:-5, 57:63]
    errors = {
        kind: float(np.abs(run(noisy, kind) - truth)[near].mean())
        for kind in ("lee", "refined_lee")
    }
    assert errors["refined_lee"] < errors["lee"]


@pytest.mark.parametrize("kind", ["none", "lee", "refined_lee"])
def test_no_data_stays_and_does_not_spread(kind: SpeckleFilter) -> None:
    decibel = scene()
    filtered = run(decibel, kind)
    np.testing.assert_array_equal(np.isnan(filtered), np.isnan(decibel))
    if kind == "none":
        np.testing.assert_array_equal(filtered, decibel)
