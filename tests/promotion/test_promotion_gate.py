from __future__ import annotations

from typing import Any

import pytest

from sarflood.params import GateParams
from sarflood.promotion.gate import Verdict, judge

PARAMS = GateParams(
    min_iou=0.7, min_event_iou=0.6, max_dry_false_alarms=0.01, max_champion_drop=0.01
)
VALID = {"passed": True}


def figures(iou: float | None, **events: float | None) -> dict[str, Any]:
    return {
        "test": {"iou": iou},
        "events": {event: {"iou": value, "wet_share": 0.1} for event, value in events.items()},
    }


def verdict(evaluation: dict[str, Any], **changed: Any) -> Verdict:
    asked: dict[str, Any] = {
        "candidate": "abc",
        "evaluation": evaluation,
        "validation": VALID,
        "champion": None,
        "champion_evaluation": None,
        "params": PARAMS,
    }
    return judge(**{**asked, **changed})


def failed(result: Verdict) -> list[str]:
    return [check.name for check in result.checks if not check.passed]


def test_a_first_model_needs_the_absolute_checks_alone() -> None:
    result = verdict(figures(0.71, a=0.61))
    assert result.passed
    assert result.as_metrics()["passed"] is True
    assert result.as_metrics()["checks"][1] == {
        "name": "IoU, all test patches",
        "observed": 0.71,
        "threshold": 0.7,
        "passed": True,
    }


def test_too_low_overall_or_on_one_event_refuses() -> None:
    assert failed(verdict(figures(0.69, a=0.9))) == ["IoU, all test patches"]
    assert failed(verdict(figures(0.8, a=0.9, b=0.59))) == ["IoU, event b"]


@pytest.mark.parametrize(
    "evaluation",
    [
        {},
        figures(None, a=0.9),
        figures(float("nan"), a=0.9),
        figures(0.9),
        figures(0.9, a=None),
        {"test": {"iou": "0.9"}, "events": {"a": {"iou": 0.9}}},
        {"test": None, "events": {"a": {"iou": 0.9}}},
    ],
)
def test_a_missing_figure_refuses(evaluation: dict[str, Any]) -> None:
    assert not verdict(evaluation).passed


@pytest.mark.parametrize("validation", [{}, {"passed": False}, {"passed": "yes"}])
def test_data_that_were_not_validated_refuse(validation: dict[str, Any]) -> None:
    assert failed(verdict(figures(0.9, a=0.9), validation=validation)) == ["data validated"]


@pytest.mark.parametrize(("champion", "passed"), [(0.80, True), (0.81, True), (0.82, False)])
def test_the_champion_may_be_better_by_the_margin_only(champion: float, passed: bool) -> None:
    result = verdict(
        figures(0.8, a=0.9), champion="v0.1.0", champion_evaluation=figures(champion, a=0.9)
    )
    assert result.passed is passed


@pytest.mark.parametrize("evaluation", [None, {}, figures(None)])
def test_a_champion_that_cannot_be_evaluated_refuses(evaluation: dict[str, Any] | None) -> None:
    result = verdict(figures(0.99, a=0.99), champion="v0.1.0", champion_evaluation=evaluation)
    assert failed(result) == ["IoU against champion v0.1.0"]
    assert result.checks[-1].refusal() == (
        "IoU against champion v0.1.0: missing, needs at least 1.0000"
    )


@pytest.mark.parametrize(("accuracy", "passed"), [(0.999, True), (0.98, False), (None, False)])
def test_a_dry_event_is_judged_by_its_false_alarms(accuracy: float | None, passed: bool) -> None:
    evaluation = figures(0.9, a=0.9)
    evaluation["events"]["dry"] = {"iou": None, "wet_share": 0, "accuracy": accuracy}
    assert verdict(evaluation).passed is passed
