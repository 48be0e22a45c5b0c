"""The expectations on the per-patch statistics, in three groups: structure, physics, labels.

Importing this module imports Great Expectations, which takes seconds: import it where it is used.
"""

from __future__ import annotations

from typing import Any, Literal

from great_expectations.expectations.core.expect_column_pair_values_a_to_be_greater_than_b import (
    ExpectColumnPairValuesAToBeGreaterThanB,
)
from great_expectations.expectations.core.expect_column_values_to_be_between import (
    ExpectColumnValuesToBeBetween,
)
from great_expectations.expectations.core.expect_column_values_to_be_in_set import (
    ExpectColumnValuesToBeInSet,
)
from great_expectations.expectations.core.expect_column_values_to_be_unique import (
    ExpectColumnValuesToBeUnique,
)
from great_expectations.expectations.core.expect_column_values_to_not_be_null import (
    ExpectColumnValuesToNotBeNull,
)
from great_expectations.expectations.core.expect_table_columns_to_match_set import (
    ExpectTableColumnsToMatchSet,
)
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from sarflood.params import ValidationParams
from sarflood.validation.columns import (
    DUPLICATE_OF,
    EVENT_WET_MINUS_DRY,
    NOT_FINITE,
    TELLING_SHARE,
    WET_MINUS_DRY,
    disorder_column,
    required_columns,
)

Group = Literal["structure", "physics", "labels"]
Scope = Literal["table", "event", "patch"]
Severity = Literal["critical", "warning"]

ROUNDING = 1e-3  # in dB or grey levels: what float16 and a mean of equal values may differ by
MIN_SHARE_VH_BELOW_VV = 0.9


def build_suite(
    bands: tuple[str, ...], units: str, params: ValidationParams, labelled: bool
) -> list[Expectation]:
    """List the expectations on a table with the columns of `with_derived_columns`.

    The meta of each one holds `name`, `group`, `scope` (whom a failure speaks of: the `table`, an
    `event`, a `patch`) and `reason`, one clause that says what is wrong where it fails.

    Args:
        bands: The band names, such as `("vv", "vh")`.
        units: `db` or `uint8`.
        params: The limits.
        labelled: Whether there are masks to judge.
    """
    physics = [rule for band in bands for rule in _band(band, units, params)]
    if units == "db" and {"vv", "vh"} <= set(bands):
        physics.append(_vh_below_vv())
    return [
        *_structure(bands),
        _valid_share(params),
        *physics,
        *(_labels(params) if labelled else []),
    ]


def _structure(bands: tuple[str, ...]) -> list[Expectation]:
    return [
        _expect(
            ExpectTableColumnsToMatchSet,
            "columns",
            "structure",
            "columns of the patch index are missing",
            scope="table",
            column_set=required_columns(bands),
            exact_match=False,
        ),
        _expect(
            ExpectColumnValuesToNotBeNull,
            "id present",
            "structure",
            "a patch has no id",
            scope="table",
            column="id",
        ),
        _expect(
            ExpectColumnValuesToBeUnique,
            "id unique",
            "structure",
            "another patch has the same id",
            column="id",
        ),
        _expect(
            ExpectColumnValuesToBeInSet,
            "no duplicate",
            "structure",
            "an earlier patch has exactly the same pixels and mask",
            column=DUPLICATE_OF,
            value_set=[""],
        ),
        _expect(
            ExpectColumnValuesToBeInSet,
            "statistics finite",
            "structure",
            "the statistics of a band are NaN or infinite: no pixel has data in all bands",
            column=NOT_FINITE,
            value_set=[""],
        ),
    ]


def _valid_share(params: ValidationParams) -> Expectation:
    return _expect(
        ExpectColumnValuesToBeBetween,
        "valid share",
        "physics",
        f"less than {_percent(params.min_valid_share)} of the pixels have data",
        column="valid_share",
        min_value=params.min_valid_share,
        max_value=1.0,
    )


def _band(band: str, units: str, params: ValidationParams) -> list[Expectation]:
    name = band_name(band)
    if units == "db":
        (low, high), min_std, unit = params.db_range, params.min_std_db, "dB"
    else:
        (low, high), min_std, unit = (0.0, 255.0), params.min_std_uint8, "grey levels"
    rules = [
        _expect(
            ExpectColumnValuesToBeBetween,
            f"{name} not constant",
            "physics",
            f"more than {_percent(params.max_constant_share)} of the valid pixels hold one and the "
            f"same {name} value",
            column=f"{band}_constant_share",
            max_value=params.max_constant_share,
        ),
        _expect(
            ExpectColumnValuesToBeBetween,
            f"{name} speckle",
            "physics",
            f"the standard deviation of {name}, in {unit}, is below {min_std:g}: "
            "less than speckle alone gives",
            column=f"{band}_std",
            min_value=min_std,
        ),
        _expect(
            ExpectColumnValuesToBeBetween,
            f"{name} mean in range",
            "physics",
            f"the mean of {name} lies outside {low:g} to {high:g} {unit}",
            column=f"{band}_mean",
            min_value=low,
            max_value=high,
        ),
        _expect(
            ExpectColumnValuesToBeBetween,
            f"{name} mean between extremes",
            "physics",
            f"the mean of {name} lies outside its own minimum and maximum",
            column=disorder_column(band),
            max_value=ROUNDING,
        ),
    ]
    return [*rules, _below_0_db(band)] if units == "db" else rules


def _below_0_db(band: str) -> Expectation:
    """Power and amplitude are never negative; a patch in dB always has pixels below 0 dB."""
    return _expect(
        ExpectColumnValuesToBeBetween,
        f"{band_name(band)} in dB",
        "physics",
        f"hardly any {band_name(band)} value is below 0 dB: "
        "this looks like linear power or amplitude, not dB",
        column=f"{band}_p02",
        max_value=0.0,
        strict_max=True,
    )


def _vh_below_vv() -> Expectation:
    return _expect(
        ExpectColumnPairValuesAToBeGreaterThanB,
        "VH below VV",
        "physics",
        f"in more than {_percent(1 - MIN_SHARE_VH_BELOW_VV)} of the patches VH is stronger than "
        "VV: the bands may be swapped",
        severity="warning",
        column_A="vv_mean",
        column_B="vh_mean",
        or_equal=True,
        ignore_row_if="either_value_is_missing",
        mostly=MIN_SHARE_VH_BELOW_VV,
    )


def _labels(params: ValidationParams) -> list[Expectation]:
    return [
        _expect(
            ExpectColumnValuesToBeBetween,
            "wet share",
            "labels",
            "the wet share of the labelled pixels is not between 0 and 1",
            column="wet_share",
            min_value=0.0,
            max_value=1.0,
        ),
        _expect(
            ExpectColumnValuesToBeBetween,
            "wet darker than dry",
            "labels",
            f"in more than {_percent(params.max_wet_brighter_share)} of the patches the wet pixels "
            "are brighter than the dry ones",
            severity="warning",
            column=WET_MINUS_DRY,
            max_value=0.0,
            mostly=1.0 - params.max_wet_brighter_share,
        ),
        _expect(
            ExpectColumnValuesToBeBetween,
            "masks not inverted",
            "labels",
            f"in most patches of the event with {_percent(TELLING_SHARE)} or more of both wet and "
            "dry pixels the wet ones are brighter: the masks look inverted",
            scope="event",
            column=EVENT_WET_MINUS_DRY,
            max_value=0.0,
        ),
    ]


def band_name(band: str) -> str:
    """Say a band as people do: `vv_pre` is `VV before the event`."""
    return (
        f"{band.removesuffix('_pre').upper()} before the event" if "_pre" in band else band.upper()
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _expect(
    kind: type[Expectation],
    name: str,
    group: Group,
    reason: str,
    *,
    scope: Scope = "patch",
    severity: Severity = "critical",
    **arguments: Any,
) -> Expectation:
    """Make one expectation; Data Docs show its description, quarantine its reason."""
    consequence = "Refused" if severity == "critical" else "A warning"
    return kind(
        severity=FailureSeverity(severity),
        description=f"{name[0].upper()}{name[1:]}. {consequence} if {reason}.",
        meta={"name": name, "group": group, "scope": scope, "reason": reason},
        **arguments,
    )
