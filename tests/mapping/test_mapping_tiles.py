from __future__ import annotations

import numpy as np
import pytest

from sarflood.mapping.tiles import spans, weights

LENGTHS = [1, 63, 64, 65, 1087, 1088, 1089, 2112, 2113, 5000]


@pytest.mark.parametrize("length", LENGTHS)
def test_spans_cover_everything_and_their_weights_add_up_to_one(length: int) -> None:
    total = np.zeros(length)
    for span in spans(length):
        total[span] += weights(span, length)
    assert np.allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_spans_start_where_every_pooling_starts(length: int) -> None:
    assert all(span.start % 64 == 0 for span in spans(length))


def test_tiles_that_disagree_meet_without_a_step() -> None:
    values = np.zeros(3000)
    for number, span in enumerate(spans(3000)):
        values[span] += (number % 2) * weights(span, 3000)
    assert np.abs(np.diff(values)).max() < 0.12
    assert (values[0], values.max()) == (0.0, 1.0)


def test_a_scene_is_computed_with_at_most_15_percent_more_pixels() -> None:
    down, across = (
        sum(span.stop - span.start for span in spans(length)) for length in (16_700, 25_000)
    )
    assert down * across <= 1.15 * 16_700 * 25_000
