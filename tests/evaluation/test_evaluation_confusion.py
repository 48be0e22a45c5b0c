from __future__ import annotations

import json

import numpy as np
import pytest

from sarflood.evaluation.confusion import Counts, count


def test_pixels_are_counted_by_what_was_said_and_what_is_true() -> None:
    truth = np.array([[1, 1, 1, 0, 0, 0, 0, 255]], np.uint8)
    predicted = np.array([[1, 1, 0, 1, 0, 0, 0, 1]], np.uint8)
    assert count(predicted, truth) == Counts(tp=2, fp=1, fn=1, tn=3)


def test_unknown_on_either_side_is_not_counted() -> None:
    truth = np.array([255, 255, 1, 0], np.uint8)
    predicted = np.array([1, 0, 255, 255], np.uint8)
    assert count(predicted, truth) == Counts()


def test_metrics_are_those_of_a_count_by_hand() -> None:
    assert Counts(tp=30, fp=10, fn=20, tn=140).metrics() == {
        "iou": pytest.approx(30 / 60),
        "f1": pytest.approx(60 / 90),
        "precision": pytest.approx(30 / 40),
        "recall": pytest.approx(30 / 50),
        "accuracy": pytest.approx(170 / 200),
        "mean_iou": pytest.approx((30 / 60 + 140 / 170) / 2),
        "area_error": pytest.approx((40 - 50) / 50),
    }


@pytest.mark.parametrize(
    ("counts", "defined"),
    [
        (Counts(), {}),
        (Counts(tn=9), {"accuracy": 1.0, "mean_iou": 1.0}),
        (
            Counts(fp=2, tn=6),
            {"iou": 0.0, "f1": 0.0, "precision": 0.0, "accuracy": 0.75, "mean_iou": 0.375},
        ),
        (
            Counts(fn=2, tn=6),
            {
                "iou": 0.0,
                "f1": 0.0,
                "recall": 0.0,
                "accuracy": 0.75,
                "mean_iou": 0.375,
                "area_error": -1.0,
            },
        ),
        (
            Counts(tp=5),
            {
                "iou": 1,
                "f1": 1,
                "precision": 1,
                "recall": 1,
                "accuracy": 1,
                "mean_iou": 1,
                "area_error": 0,
            },
        ),
    ],
)
def test_a_figure_without_a_denominator_is_null(counts: Counts, defined: dict[str, float]) -> None:
    metrics = counts.metrics()
    assert {name: value for name, value in metrics.items() if value is not None} == defined
    json.dumps(metrics, allow_nan=False)


def test_pooling_adds_pixels_and_not_figures() -> None:
    large, small = Counts(tp=90, fp=10), Counts(fn=10)
    assert (large + small).iou == pytest.approx(90 / 110)
