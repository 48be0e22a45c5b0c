"""How an expectation of the suites is made; importing this imports Great Expectations (seconds)."""

from __future__ import annotations

from typing import Any, Literal

from great_expectations.expectations.core.expect_column_values_to_be_between import (
    ExpectColumnValuesToBeBetween,
)
from great_expectations.expectations.core.expect_column_values_to_be_in_set import (
    ExpectColumnValuesToBeInSet,
)
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

Group = Literal["structure", "physics", "labels", "leaks"]
Scope = Literal["table", "event", "patch"]
Severity = Literal["critical", "warning"]


def expect(
    kind: type[Expectation],
    name: str,
    group: Group,
    reason: str,
    *,
    scope: Scope = "patch",
    severity: Severity = "critical",
    **arguments: Any,
) -> Expectation:
    """Make one expectation; Data Docs show its description, quarantine its reason.

    Args:
        kind: The class of Great Expectations.
        name: A few words, unique in the suite.
        group: Under which heading it belongs.
        reason: One clause that says what is wrong where it fails.
        scope: Whom a failure speaks of.
        severity: Whether a failure refuses or is shown.
        arguments: Those of `kind`.
    """
    consequence = "Refused" if severity == "critical" else "A warning"
    return kind(
        severity=FailureSeverity(severity),
        description=f"{name[0].upper()}{name[1:]}. {consequence} if {reason}.",
        meta={"name": name, "group": group, "scope": scope, "reason": reason},
        **arguments,
    )


def between(
    name: str,
    group: Group,
    reason: str,
    column: str,
    low: float | None,
    high: float | None,
    **more: Any,
) -> Expectation:
    """Expect the values of a column from `low` to `high`; NaN says nothing and holds."""
    return expect(
        ExpectColumnValuesToBeBetween,
        name,
        group,
        reason,
        column=column,
        min_value=low,
        max_value=high,
        **more,
    )


def empty(name: str, group: Group, reason: str, column: str, **more: Any) -> Expectation:
    """Expect a column of texts, such as the id of a double, to be empty."""
    return expect(
        ExpectColumnValuesToBeInSet, name, group, reason, column=column, value_set=[""], **more
    )


def percent(share: float) -> str:
    """Say a share as percent."""
    return f"{100 * share:.3g}%"
