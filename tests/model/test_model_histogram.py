from __future__ import annotations

import numpy as np

from sarflood.model.histogram import count_pixels


def test_pixels_are_counted_by_class_and_probability() -> None:
    probabilities = np.array([[0.0, 0.5, 1.0, 0.5, np.nan, 0.7]], np.float32)
    masks = np.array([[0, 0, 1, 1, 1, 255]], np.uint8)
    counts = count_pixels(probabilities, masks)
    assert counts.shape == (2, 256)
    assert counts.sum() == 4
    assert (counts[0, 0], counts[0, 128], counts[1, 128], counts[1, 255]) == (1, 1, 1, 1)
