from __future__ import annotations

import numpy as np
import pytest

from sarflood.evaluation.reliability import calibration_error, reliability
from sarflood.model.histogram import count_pixels


def drawn(power: float) -> np.ndarray:
    """Pixels that are wet with a probability's power."""
    random = np.random.default_rng(0)
    said = random.random(200_000).astype(np.float32)
    return count_pixels(said, (random.random(200_000) < said**power).astype(np.uint8))


def test_honest_probabilities_lie_on_the_diagonal() -> None:
    curve = reliability(drawn(1))
    assert curve["pixels"].sum() == 200_000
    assert len(curve) == 16
    np.testing.assert_allclose(curve["wet_share"], curve["probability"], atol=0.02)
    error = calibration_error(drawn(1))
    assert error is not None
    assert error < 0.01


def test_what_is_too_sure_is_off_by_as_much() -> None:
    assert calibration_error(drawn(2)) == pytest.approx(1 / 2 - 1 / 3, abs=0.01)


def test_classes_without_pixels_are_left_out() -> None:
    curve = reliability(count_pixels(np.full(9, 0.7, np.float32), np.ones(9, np.uint8)))
    assert curve[["probability", "wet_share", "pixels"]].to_numpy().tolist() == [
        [pytest.approx(0.7, abs=0.01), 1.0, 9]
    ]
    nothing = np.zeros((2, 256), np.int64)
    assert reliability(nothing).empty
    assert calibration_error(nothing) is None
