"""The gate: named checks of a candidate, each with what was seen and what is asked for.

It refuses what it cannot judge: a figure, a report, or a champion's answers that are missing fail
their check.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sarflood.evaluation.intervals import Difference, iou_difference
from sarflood.evaluation.pooled import figures, wet_share_kinds
from sarflood.mapping.recorded import MAX_DIFFERENT, MAX_DIFFERENT_ROUNDED
from sarflood.params import ChampionParams, GateParams, Limits, ServingParams, ShadowParams
from sarflood.serving.compared import Compared

if TYPE_CHECKING:
    import pandas as pd  # half a second, for who only reads a verdict

Figures = Mapping[str, Any]
TITLES = {
    "iou": "IoU",
    "f1": "F1",
    "mean_iou": "mean IoU of wet and dry",
    "patch_iou": "IoU of a patch",
    "patch_mean_iou": "mean IoU of a patch",
    "area_error": "area error",
    "boundary_f1": "boundary F1",
    "boundary_distance_px": "boundary distance in pixels",
    "boundary_distance_m": "boundary distance in metres",
    "ece": "calibration error",
}
_VERSUS = "IoU above champion"
_EITHER_WAY = "area_error"  # too much and too little are as bad
_COUNTS = ["tp", "fp", "fn"]
SHADOW_REQUESTS = "shadow: requests"


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What is looked at.
        observed: The figure; None where it is missing, and then the check never passes.
        passed: Whether it lies where it must.
        min: It must be at least this; None where there is no lower limit.
        max: It must be at most this.
        low: Low end of the figure's interval, where there is one.
        high: High end.
        note: What a person should know beside the numbers.
    """

    name: str
    observed: float | None
    passed: bool
    min: float | None = None
    max: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    def needs(self) -> str:
        """Say what is asked for."""
        limits = (("at least", self.min), ("at most", self.max))
        return ", ".join(f"{word} {limit:.4g}" for word, limit in limits if limit is not None)

    def seen(self) -> str:
        """Say what was seen, with its interval."""
        if self.observed is None:
            return "missing"
        interval = "" if self.low is None else f" ({self.low:.4f} to {self.high:.4f})"
        return f"{self.observed:.4f}{interval}"

    def sentence(self) -> str:
        """Say in a clause what was seen and what is asked for."""
        note = f" ({self.note})" if self.note else ""
        return f"{self.name}: {self.seen()}, needs {self.needs()}{note}"

    def row(self) -> dict[str, str]:
        """Return a row of a table for people."""
        return {
            "check": self.name,
            "observed": self.seen(),
            "needed": self.needs(),
            "verdict": "passed" if self.passed else "refused",
            "note": self.note,
        }


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

    def with_checks(self, *checks: Check) -> Verdict:
        """Return the verdict with more checks."""
        return replace(self, checks=(*self.checks, *checks))

    def as_metrics(self) -> dict[str, Any]:
        """Return what `metrics/gate.json` holds."""
        return {
            "passed": self.passed,
            "candidate": self.candidate,
            "champion": self.champion,
            "checks": [asdict(check) for check in self.checks],
        }


def read_checks(verdict: Figures) -> list[Check]:
    """Return the checks of `metrics/gate.json`."""
    return [Check(**check) for check in verdict["checks"]]


def comparison(verdict: Figures, evaluation: Figures) -> list[dict[str, Any]]:
    """Return candidate and champion side by side for people: all test patches, then each event.

    Args:
        verdict: `metrics/gate.json`.
        evaluation: `metrics/evaluation.json` of the candidate.

    Returns:
        Rows with `test patches of`, the IoU of `candidate` and `champion` (None where events were
        judged together, or there is none), `difference`, its interval as `surely` (one-sided, by
        `gate.champion.confidence`), `verdict` and `note`; none without a champion.
    """
    events = {f"event {name}": row for name, row in evaluation["events"].items()}
    events |= {f"new: {name}": row for name, row in evaluation["events"].items()}
    scored = {"all test patches": evaluation["test"], **events}
    start = f"{_VERSUS} {verdict['champion']}"
    rows = []
    for check in read_checks(verdict):
        if not check.name.startswith(start):
            continue
        of = check.name.removeprefix(start).removeprefix(", ") or "all test patches"
        ours, above = _number(scored.get(of), "iou"), check.observed
        rows.append(
            {
                "test patches of": of,
                "candidate": ours,
                "champion": None if ours is None or above is None else ours - above,
                "difference": above,
                "surely": "–" if check.low is None else f"{check.low:+.4f} to {check.high:+.4f}",
                "verdict": "passed" if check.passed else "refused",
                "note": check.note,
            }
        )
    return rows


@dataclass(frozen=True)
class Scored:
    """A model scored on today's test patches.

    Attributes:
        metrics: `Evaluation.metrics`.
        patches: `Evaluation.test_patches`.
        trained_on: The SHA-256 of the index of each event that it was trained on.
    """

    metrics: Figures
    patches: pd.DataFrame
    trained_on: Mapping[str, str]


@dataclass(frozen=True)
class Champion:
    """The version in production; `scored` says why where it could not be scored."""

    version: str
    scored: Scored | str


def judge(
    *,
    candidate: str,
    scored: Scored,
    reports: Mapping[str, Figures],
    champion: Champion | None,
    regions: Mapping[str, str],
    params: GateParams,
) -> Verdict:
    """Judge a candidate by what is known before it is a bundle.

    Args:
        candidate: Names the candidate, by the hash of its weights.
        scored: The candidate.
        reports: By name, the reports on the data that must say `passed`.
        champion: The champion, scored by the same code on the same patches; None for a first model.
        regions: The region of each event.
        params: What is asked for.
    """
    checks = [
        _limited(name, float(report.get("passed") is True), minimum=1.0)
        for name, report in reports.items()
    ]
    checks += _limits("all test patches", scored.metrics.get("test"), params.overall)
    events = scored.metrics.get("events") or {}
    for event in sorted(events):
        checks += _event(event, events[event], params)
    if not events:
        checks += _limits("each event", None, params.event)
    for name, limits in params.slices.items():
        rows = scored.patches[_slice(name, scored.patches, regions)]
        checks += _limits(f"slice {name}", figures(rows) if len(rows) else None, limits)
    if champion is not None:
        checks += _against(champion, scored, params.champion)
    return Verdict(candidate, champion.version if champion else None, tuple(checks))


def judge_bundle(answered: Figures | str, params: ServingParams) -> list[Check]:
    """Judge how a bundle started and answered.

    Args:
        answered: What `check_bundle` says; or why it refused.
        params: What is asked for.
    """
    if isinstance(answered, str):
        return [replace(_limited("bundle: starts and answers", None, minimum=1.0), note=answered)]
    different = MAX_DIFFERENT_ROUNDED if answered["rounded"] else MAX_DIFFERENT
    return [
        _limited("bundle: ready, seconds", answered["ready_s"], maximum=params.ready_within_s),
        _limited("bundle: a patch, seconds", answered["patch_s"], maximum=params.patch_within_s),
        _limited("bundle: memory, GiB", answered["memory_gib"], maximum=params.max_memory_gib),
        _limited("bundle: pixels as evaluated", answered["equal_share"], minimum=1 - different),
    ]


def judge_shadow(found: Sequence[Compared], params: ShadowParams) -> list[Check]:
    """Judge how a candidate answered copies of what the champion was asked.

    Args:
        found: The pairs of answers; one that is none has no pixel equal.
        params: What is asked for.
    """
    equal = float(np.mean([item.equal for item in found])) if found else None
    return [
        _limited(SHADOW_REQUESTS, float(len(found)), minimum=float(params.requests)),
        _limited("shadow: pixels as the champion's", equal, minimum=params.least_equal),
    ]


def _event(event: str, row: Figures, params: GateParams) -> list[Check]:
    """Ask for the figures of an event, or, where its test patches are dry, for no false alarms."""
    if row.get("wet_share") == 0:
        least = 1 - params.max_dry_false_alarms
        return [_limited(f"dry kept dry, event {event}", _number(row, "accuracy"), minimum=least)]
    return _limits(f"event {event}", row, params.event)


def _limits(of: str, row: Figures | None, limits: Limits) -> list[Check]:
    checks = []
    for figure, limit in limits.items():
        name = f"{TITLES.get(figure, figure)}, {of}"
        value, low, high = (_number(row, f"{figure}{end}") for end in ("", "_low", "_high"))
        check = _limited(
            name, value, minimum=limit.min, maximum=limit.max, size=figure == _EITHER_WAY
        )
        checks.append(replace(check, low=low, high=high) if low is not None else check)
    return checks


def _limited(
    name: str,
    observed: float | None,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    size: bool = False,
) -> Check:
    """Hold a figure, or with `size` its amount, against its limits."""
    judged = abs(observed) if observed is not None and size else observed
    passed = (
        judged is not None
        and (minimum is not None or maximum is not None)
        and (minimum is None or judged >= minimum)
        and (maximum is None or judged <= maximum)
    )
    return Check(name, observed, passed, minimum, maximum)


def _number(row: Any, name: str) -> float | None:
    """Return a figure; None where it is missing, not a number, or not finite."""
    value = row.get(name) if isinstance(row, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _slice(name: str, patches: pd.DataFrame, regions: Mapping[str, str]) -> NDArray[np.bool_]:
    kind, _, which = name.partition(" ")
    if kind == "wet":
        return np.asarray(wet_share_kinds(patches) == which)
    chosen = [event for event, region in regions.items() if region == which]
    return patches["event"].isin(chosen).to_numpy(bool)


def _against(champion: Champion, scored: Scored, params: ChampionParams) -> Iterator[Check]:
    """Compare with the champion: overall, on each event, on the new events, and by its data."""
    versus = f"{_VERSUS} {champion.version}"
    other = champion.scored
    if isinstance(other, Scored) and _ids(scored) != _ids(other):
        other = "the two were not scored on the same test patches"
    if isinstance(other, str):
        yield Check(versus, None, passed=False, min=-params.margin, note=other)
        return
    tables = [table[_COUNTS].to_numpy(np.int64) for table in (scored.patches, other.patches)]
    counts = np.stack(tables, axis=1)
    blocks = scored.patches["block"].to_numpy(np.int64)
    events = scored.patches["event"].to_numpy(str)
    wet = counts[:, 0, [0, 2]].sum(axis=1) > 0
    groups = {"all test patches": np.ones(len(events), bool)}
    groups |= {f"event {event}": events == event for event in np.unique(events)}
    for name, rows in groups.items():
        if wet[rows].any():  # what is dry is judged by its false alarms
            found = iou_difference(counts[rows], blocks[rows], params.confidence)
            yield _no_worse(f"{versus}, {name}", found, params)
    new = sorted(scored.trained_on.keys() - other.trained_on.keys())
    rows = np.isin(events, new)
    if new and (wet[rows].any() or not rows.any()):
        name = f"{versus}, new: {', '.join(new)}"
        yield _gain(name, iou_difference(counts[rows], blocks[rows], params.confidence), params)
    lost = sorted(
        event
        for event, index in other.trained_on.items()
        if scored.trained_on.get(event) != index and event not in params.may_forget
    )
    name = f"events of champion {champion.version} without which it was trained"
    yield replace(_limited(name, len(lost), maximum=0), note=", ".join(lost))


def _ids(scored: Scored) -> list[str]:
    found: list[str] = scored.patches["id"].tolist()
    return found


def _no_worse(name: str, found: Difference, params: ChampionParams) -> Check:
    """Refuse what is worse by more than the margin, with the confidence asked for."""
    check = Check(name, found.value, False, min=-params.margin, low=found.low, high=found.high)
    if found.value is None:
        return check
    if found.low is None or found.high is None:
        note = "a single block of ground, so without an interval"
        return replace(check, passed=found.value >= -params.margin, note=note)
    if found.high < -params.margin:
        note = f"worse with {params.confidence:.0%} confidence"
    elif found.low > 0:
        note = "better"
    elif found.high < 0:
        note = "worse, but not surely by more than the margin"
    else:
        note = "no difference"
    return replace(check, passed=found.high >= -params.margin, note=note)


def _gain(name: str, found: Difference, params: ChampionParams) -> Check:
    """Ask for a gain with the confidence asked for."""
    check = Check(name, found.value, False, min=params.min_gain, low=found.low, high=found.high)
    if found.value is None:
        return replace(check, note="no test patch of it; a larger event has some")
    if found.low is None:
        return replace(check, note="a single block of ground proves nothing")
    if found.low > params.min_gain:
        return replace(check, passed=True)
    return replace(check, note=f"no gain with {params.confidence:.0%} confidence")
