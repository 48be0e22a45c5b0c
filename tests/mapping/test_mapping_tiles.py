from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.windows import Window

from sarflood.mapping.tiles import blended_rows, spans, weights

LENGTHS = [1, 127, 128, 129, 1023, 1024, 1025, 1280, 1281, 5000]


@pytest.mark.parametrize("length", LENGTHS)
def test_spans_cover_everything_and_their_weights_add_up_to_one(length: int) -> None:
    total = np.zeros(length)
    for span in spans(length):
        total[span] += weights(span, length)
    assert np.allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_spans_start_where_every_pooling_starts(length: int) -> None:
    assert all(span.start % 64 == 0 for span in spans(length))


def test_rows_come_once_in_order_with_the_values_of_the_scene() -> None:
    scene = np.random.default_rng(0).random((2100, 1100), dtype=np.float32)
    scene[50:60, 1000:1010] = np.nan

    def predict(window: Window) -> NDArray[np.float32]:
        top, left = window.row_off, window.col_off
        return scene[top : top + window.height, left : left + window.width]

    told: list[float] = []
    strips = list(blended_rows(2100, 1100, predict, told.append))
    assert [rows.start for rows, _ in strips] == [0, *(rows.stop for rows, _ in strips[:-1])]
    together = np.concatenate([values for _, values in strips])
    assert np.allclose(together, scene, atol=1e-6, equal_nan=True)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_low_wide_scene_takes_memory_for_its_own_rows_only() -> None:
    def predict(window: Window) -> NDArray[np.float32]:
        return np.zeros((window.height, window.width), np.float32)

    tracemalloc.start()
    _, values = next(blended_rows(2, 1_000_000, predict))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values.shape == (2, 1_000_000)
    assert peak < 50e6


def test_tiles_that_disagree_meet_without_a_step() -> None:
    numbers = iter(range(4))

    def predict(window: Window) -> NDArray[np.float32]:
        return np.full((window.height, window.width), next(numbers) % 2, np.float32)

    values = np.concatenate([part for _, part in blended_rows(200, 1900, predict)])
    assert np.abs(np.diff(values, axis=1)).max() < 0.06
    assert values[0, 0] == 0.0
    assert values.max() == 1.0
