"""The verdict on a table of patches: which ones are bad, why, and what it means for their event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sarflood.errors import SarfloodError

EXAMPLES = 5


@dataclass(frozen=True)
class ExpectationResult:
    """What became of one expectation.

    Attributes:
        name: Such as `VV not constant`.
        group: `structure`, `physics` or `labels`.
        scope: Whom a failure speaks of: `table`, `event` or `patch`.
        severity: `critical` or `warning`.
        reason: What is wrong where it failed.
        success: Whether it holds.
        unexpected_count: How many rows (for the columns: columns) go against it, also where it
            holds because a share of them is allowed.
        unexpected: The ids of these patches (for the columns: the missing ones).
    """

    name: str
    group: str
    scope: str
    severity: str
    reason: str
    success: bool
    unexpected_count: int
    unexpected: tuple[str, ...]

    @property
    def examples(self) -> tuple[str, ...]:
        """The first few of them."""
        return self.unexpected[:EXAMPLES]


@dataclass(frozen=True)
class Verdict:
    """The judgement of a table.

    Attributes:
        patches: Number of rows.
        reasons: Patch id to what is critically wrong with that patch.
        event_reasons: What is critically wrong with an event or the table as a whole.
        warnings: What a person should look at.
        expectations: Each expectation's own result.
    """

    patches: int
    reasons: dict[str, list[str]]
    event_reasons: list[str]
    warnings: list[str]
    expectations: list[ExpectationResult]

    @property
    def passed(self) -> bool:
        """Whether no critical expectation failed."""
        return all(item.success for item in self.expectations if item.severity == "critical")

    def as_metrics(self) -> dict[str, bool | int | float]:
        """Return plain figures for `metrics/validation.json`."""
        failed = [item for item in self.expectations if not item.success]
        return {
            "passed": self.passed,
            "patches": self.patches,
            "bad_patches": len(self.reasons),
            "bad_share": len(self.reasons) / self.patches,
            "expectations": len(self.expectations),
            "failed": sum(item.severity == "critical" for item in failed),
            "warnings": sum(item.severity == "warning" for item in failed),
        }


def read_verdict(outcomes: Iterable[Any], judged: pd.DataFrame) -> Verdict:
    """Turn Great Expectations' outcomes of our suite into a verdict.

    Args:
        outcomes: One `ExpectationValidationResult` an expectation, in the complete result format
            with the column `id` as index.
        judged: The table that was judged.

    Raises:
        SarfloodError: An expectation raised an exception instead of judging.
    """
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    event_reasons: list[str] = []
    warnings: list[str] = []
    results = []
    for outcome in outcomes:
        ids = _unexpected(outcome)
        result = _result(outcome, ids)
        results.append(result)
        if result.success:
            continue
        if result.severity == "warning":
            warnings.append(_with_examples(result))
        elif result.scope == "table":
            event_reasons.append(_with_examples(result))
        elif result.scope == "event":
            event_reasons.append(_with_events(result, ids, judged))
        else:
            for patch in ids:
                reasons[patch].append(result.reason)
    return Verdict(len(judged), dict(reasons), event_reasons, warnings, results)


def _unexpected(outcome: Any) -> list[str]:
    """List the ids of the patches, or the names of the missing columns, that an outcome is about.

    Raises:
        SarfloodError: The expectation raised an exception: it has judged nothing.
    """
    meta = outcome.expectation_config.meta
    raised = outcome.exception_info or {}
    # One exception, or a dictionary of them by metric.
    for item in [raised] if "raised_exception" in raised else raised.values():
        if item["raised_exception"]:
            raise SarfloodError(
                f"validation: {meta['name']!r} could not be judged: {item['exception_message']}"
            )
    if "unexpected_index_list" in outcome.result:
        rows = outcome.result["unexpected_index_list"] or []
        return list(dict.fromkeys(str(row["id"]) for row in rows if pd.notna(row["id"])))
    mismatched = outcome.result.get("details", {}).get("mismatched", {})
    return list(mismatched.get("missing", []))


def _result(outcome: Any, ids: list[str]) -> ExpectationResult:
    config = outcome.expectation_config
    return ExpectationResult(
        name=config.meta["name"],
        group=config.meta["group"],
        scope=config.meta["scope"],
        severity=config.severity.value,
        reason=config.meta["reason"],
        success=bool(outcome.success),
        unexpected_count=int(outcome.result.get("unexpected_count", len(ids))),
        unexpected=tuple(ids),
    )


def _with_examples(result: ExpectationResult) -> str:
    """Add the first few ids; a patch without an id is only counted."""
    named = ", ".join(result.examples) or "unnamed"
    more = ", …" if result.unexpected_count > len(result.examples) > 0 else ""
    return f"{result.reason} ({result.unexpected_count}: {named}{more})"


def _with_events(result: ExpectationResult, ids: list[str], judged: pd.DataFrame) -> str:
    """Name the events that failed, where the table holds more than one."""
    if judged["event"].nunique() == 1:
        return result.reason
    events = judged.loc[judged["id"].isin(ids), "event"].unique()
    return f"{', '.join(map(str, events))}: {result.reason}"
