"""The gate: named checks of a candidate, each with what was seen and what is asked for."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sarflood.params import GateParams

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One check; `observed` is None where the figure is missing, and then it never passes."""

    name: str
    observed: float | None
    threshold: float
    passed: bool

    def refusal(self) -> str:
        """Say in a clause what was seen and what is asked for."""
        seen = "missing" if self.observed is None else f"{self.observed:.4f}"
        return f"{self.name}: {seen}, needs at least {self.threshold:.4f}"


@dataclass(frozen=True)
class Verdict:
    """All checks of one candidate."""

    candidate: str
    champion: str | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed; a gate without checks refuses."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_metrics(self) -> dict[str, Any]:
        """Return what `metrics/gate.json` holds."""
        return {
            "passed": self.passed,
            "candidate": self.candidate,
            "champion": self.champion,
            "checks": [asdict(check) for check in self.checks],
        }


def judge(
    *,
    candidate: str,
    evaluation: Figures,
    validation: Figures,
    champion: str | None,
    champion_evaluation: Figures | None,
    params: GateParams,
) -> Verdict:
    """Judge a candidate.

    Args:
        candidate: Names the candidate, by the hash of its weights.
        evaluation: The candidate's `metrics/evaluation.json`.
        validation: `metrics/validation.json` of the data that it was trained on.
        champion: The version in production; None for a first model.
        champion_evaluation: The champion evaluated with the same code on the same test patches;
            None for a first model. A champion without it is a failed check, not a passed one.
        params: The thresholds.
    """
    test = _iou(evaluation.get("test"))
    events = evaluation.get("events") or {}
    checks = [
        _at_least("data validated", float(validation.get("passed") is True), 1.0),
        _at_least("IoU, all test patches", test, params.min_iou),
        *(_event_check(event, events[event], params) for event in sorted(events)),
    ]
    if not events:
        checks.append(_at_least("IoU, each event", None, params.min_event_iou))
    if champion is not None:
        asked = _iou((champion_evaluation or {}).get("test"))
        name = f"IoU against champion {champion}"
        floor = 1.0 if asked is None else max(asked - params.max_champion_drop, 0.0)
        checks.append(_at_least(name, None if asked is None else test, floor))
    return Verdict(candidate, champion, tuple(checks))


def _event_check(event: str, figures: Figures, params: GateParams) -> Check:
    """Ask for the IoU of an event, or, where its test patches are all dry, for no false alarms."""
    if figures.get("wet_share") == 0:
        accuracy = figures.get("accuracy")
        return _at_least(f"dry kept dry, event {event}", accuracy, 1 - params.max_dry_false_alarms)
    return _at_least(f"IoU, event {event}", _iou(figures), params.min_event_iou)


def _iou(figures: Any) -> float | None:
    value = figures.get("iou") if isinstance(figures, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _at_least(name: str, observed: float | None, threshold: float) -> Check:
    # NaN compares as False, so it fails.
    passed = observed is not None and operator.ge(observed, threshold)
    return Check(name, observed, threshold, passed)
