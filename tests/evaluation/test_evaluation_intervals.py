from __future__ import annotations

import numpy as np
import pytest

from sarflood.evaluation.intervals import bootstrap


def counts_of(ious: np.ndarray) -> np.ndarray:
    """Patches of 1000 pixels that are wet or were called so, one method."""
    hits = (ious * 1000).astype(np.int64)
    return np.stack([hits, 1000 - hits, np.zeros_like(hits)], axis=-1)[:, None]


def test_the_interval_is_that_of_the_mean_of_independent_blocks() -> None:
    """All patches are as large, so the pooled IoU is the mean: 1.96 standard errors each way."""
    ious = np.random.default_rng(0).uniform(0.4, 0.8, 200)
    ((low, high),), _ = bootstrap(counts_of(ious), np.arange(200))  # type: ignore[misc]
    error = 1.96 * ious.std() / np.sqrt(200)
    assert low == pytest.approx(ious.mean() - error, abs=0.2 * error)
    assert high == pytest.approx(ious.mean() + error, abs=0.2 * error)


def test_patches_that_fail_together_leave_less_to_be_sure_of() -> None:
    blocks = np.repeat(np.arange(20), 10)
    ious = np.random.default_rng(0).uniform(0.4, 0.8, 20)[blocks]
    widths = [
        high - low
        for numbers in (blocks, np.arange(200))
        for low, high in filter(None, bootstrap(counts_of(ious), numbers)[0])
    ]
    assert widths[0] > 2 * widths[1]


def test_f1_lies_above_iou_and_methods_are_drawn_alike() -> None:
    ious = np.random.default_rng(1).uniform(0.2, 0.9, 50)
    counts = np.concatenate([counts_of(ious), counts_of(ious)], axis=1)
    iou, f1 = bootstrap(counts, np.arange(50))
    assert iou[0] == iou[1]
    low, f1_low = iou[0], f1[0]
    assert low is not None
    assert f1_low is not None
    assert f1_low[0] == pytest.approx(2 * low[0] / (1 + low[0]))


@pytest.mark.parametrize(
    ("counts", "blocks"),
    [
        (np.ones((3, 1, 3), np.int64), np.zeros(3, np.int64)),
        (np.zeros((3, 1, 3), np.int64), np.arange(3)),
        (np.zeros((0, 1, 3), np.int64), np.zeros(0, np.int64)),
    ],
    ids=["one block", "nothing wet", "no patch"],
)
def test_where_nothing_can_be_drawn_there_is_no_interval(
    counts: np.ndarray, blocks: np.ndarray
) -> None:
    assert bootstrap(counts, blocks) == ([None], [None])
