"""The expectations on the per-patch statistics, in three groups: structure, physics, labels.

Limits that no setting moves are for what cannot be, such as more than 12 for banding. They stand
well outside of what 1,057 patches of ETCI 2021, OMBRIA, STAC Overflow and Sen1Floods11 show; that
range is given beside each.

Importing this module imports Great Expectations, which takes seconds: import it where it is used.
"""

from __future__ import annotations

from great_expectations.expectations.core.expect_column_pair_values_a_to_be_greater_than_b import (
    ExpectColumnPairValuesAToBeGreaterThanB,
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

from sarflood.params import ValidationParams
from sarflood.raster.patch import PATCH
from sarflood.validation import columns
from sarflood.validation.columns import TELLING_SHARE, disorder_column, required_columns
from sarflood.validation.expect import Group, between, empty, expect, percent

PHYSICS: Group = "physics"
ROUNDING = 1e-3  # in dB or grey levels: what float16 and a mean of equal values may differ by
MIN_SHARE_VH_BELOW_VV = 0.9
SWAPPED_DB = -1.0  # VV − VH over an event: 5 to 8 dB as it should be
SPACING_M = (2.0, 120.0)  # Sentinel-1 IW is 10 to 40 m; other modes and resampled data are wider
DTYPES = ("uint8", "float32", "float64")
MIN_LEVELS = 32  # seen: 116 and more
STRIPES = (6.0, 12.0)  # seen: up to 5; a warning above the first, refused above the second
LOOKS = (1.5, 30.0)  # seen: 3 to 9; a filtered scene has more
MIN_LOOKS = 0.7  # a single look has 1
MAX_EDGE_SHARE = 0.25  # seen: up to 0.07
MIN_EDGE_CONTRAST = 0.5  # seen: medians of events 1.9 to 6.2; masks of other places: about 0


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
        physics += _vh_below_vv()
    return [
        *_structure(bands),
        _valid_share(params),
        *physics,
        *(_labels(params) if labelled else []),
    ]


def _structure(bands: tuple[str, ...]) -> list[Expectation]:
    group: Group = "structure"
    rules = [
        expect(
            ExpectTableColumnsToMatchSet,
            "columns",
            group,
            "columns of the patch index are missing: ingest the event again",
            scope="table",
            column_set=required_columns(bands),
            exact_match=False,
        ),
        expect(
            ExpectColumnValuesToNotBeNull,
            "id present",
            group,
            "a patch has no id",
            scope="table",
            column="id",
        ),
        expect(
            ExpectColumnValuesToBeUnique,
            "id unique",
            group,
            "another patch has the same id",
            column="id",
        ),
        expect(
            ExpectColumnValuesToBeInSet,
            "pixel type",
            group,
            f"the source's pixels are none of {', '.join(DTYPES)}",
            column="dtype",
            value_set=list(DTYPES),
        ),
    ]
    rules += [
        empty(name, group, reason, column)
        for name, reason, column in (
            (
                "no duplicate",
                "an earlier patch has exactly the same pixels and mask",
                columns.DUPLICATE_OF,
            ),
            (
                "one mask an image",
                "an earlier patch has exactly the same pixels with another mask",
                columns.SAME_IMAGE_AS,
            ),
            (
                "own place in the grid",
                "an earlier patch stands on the same row and column of the grid",
                columns.SAME_PLACE_AS,
            ),
            (
                "statistics finite",
                "the statistics of a band are NaN or infinite: no pixel has data in all bands",
                columns.NOT_FINITE,
            ),
        )
    ]
    rules += [
        between(f"{side} in pixels", group, f"its {side} is not 1 to {PATCH}", side, 1, PATCH)
        for side in ("height", "width")
    ]
    rules += [
        between(f"{axis} of the grid", group, f"its {axis} in the grid is negative", axis, 0, None)
        for axis in ("row", "col")
    ]
    return (
        rules
        + [
            empty(name, group, reason, column, scope="event", severity=severity)
            for name, severity, reason, column in (
                (
                    "one CRS a grid",
                    "critical",
                    "patches of one grid are in different CRS",
                    columns.MIXED_CRS,
                ),
                (
                    "one pixel type an event",
                    "warning",
                    "the source's files have pixels of different types",
                    columns.MIXED_DTYPE,
                ),
                (
                    "georeferenced or not",
                    "warning",
                    "some patches have a georeference, others have none",
                    columns.MIXED_GEOREFERENCE,
                ),
                (
                    "one pixel spacing an event",
                    "warning",
                    "the pixel spacing differs by more than half within the event",
                    columns.MIXED_SPACING,
                ),
            )
        ]
        + [
            between(
                "pixel spacing",
                group,
                f"the pixel spacing is not {SPACING_M[0]:g} to {SPACING_M[1]:g} m: "
                "the georeference looks wrong",
                columns.SPACING,
                *SPACING_M,
                severity="warning",
            )
        ]
    )


def _valid_share(params: ValidationParams) -> Expectation:
    return between(
        "valid share",
        "physics",
        f"less than {percent(params.min_valid_share)} of the pixels have data",
        "valid_share",
        params.min_valid_share,
        1.0,
    )


def _band(band: str, units: str, params: ValidationParams) -> list[Expectation]:
    name, group = band_name(band), PHYSICS
    if units == "db":
        (low, high), min_std, unit = params.db_range, params.min_std_db, "dB"
    else:
        (low, high), min_std, unit = (0.0, 255.0), params.min_std_uint8, "grey levels"
    rules = [
        between(
            f"{name} not constant",
            group,
            f"more than {percent(params.max_constant_share)} of the valid pixels hold one and the "
            f"same {name} value",
            f"{band}_constant_share",
            None,
            params.max_constant_share,
        ),
        between(
            f"{name} not saturated",
            group,
            f"more than {percent(params.max_saturated_share)} of the {name} values stand at the "
            "ends of the scale",
            f"{band}_saturated_share",
            None,
            params.max_saturated_share,
        ),
        between(
            f"{name} speckle",
            group,
            f"the standard deviation of {name}, in {unit}, is below {min_std:g}: "
            "less than speckle alone gives",
            f"{band}_std",
            min_std,
            None,
        ),
        between(
            f"{name} levels",
            group,
            f"{name} has fewer than {MIN_LEVELS} different values: this is a drawing or a class "
            "map, not radar",
            f"{band}_levels",
            MIN_LEVELS,
            None,
        ),
        between(
            f"{name} mean in range",
            group,
            f"the mean of {name} lies outside {low:g} to {high:g} {unit}",
            f"{band}_mean",
            low,
            high,
        ),
        between(
            f"{name} mean between extremes",
            group,
            f"the mean of {name} lies outside its own minimum and maximum",
            disorder_column(band),
            None,
            ROUNDING,
        ),
        between(
            f"{name} without banding",
            group,
            f"whole rows or columns of {name} stand out from their neighbours: banding",
            f"{band}_stripes",
            None,
            STRIPES[1],
        ),
        between(
            f"{name} hardly striped",
            group,
            f"rows or columns of {name} stand out more than is usual: faint banding",
            f"{band}_stripes",
            None,
            STRIPES[0],
            severity="warning",
        ),
    ]
    return rules + (_decibel(band) if units == "db" else [])


def _decibel(band: str) -> list[Expectation]:
    name, group = band_name(band), PHYSICS
    return [
        # Power and amplitude are never negative; a patch in dB always has pixels below 0 dB.
        between(
            f"{name} in dB",
            group,
            f"hardly any {name} value is below 0 dB: "
            "this looks like linear power or amplitude, not dB",
            f"{band}_p02",
            None,
            0.0,
            strict_max=True,
        ),
        between(
            f"{name} looks like radar",
            group,
            f"{name} varies more than a single look of radar does: this is noise or not in dB",
            f"{band}_enl",
            MIN_LOOKS,
            None,
        ),
        between(
            f"{name} looks",
            group,
            f"the equivalent number of looks of {name} is not {LOOKS[0]:g} to {LOOKS[1]:g}: "
            "filtered, resampled or not Sentinel-1",
            f"{band}_enl",
            *LOOKS,
            severity="warning",
        ),
    ]


def _vh_below_vv() -> list[Expectation]:
    return [
        expect(
            ExpectColumnPairValuesAToBeGreaterThanB,
            "VH below VV",
            "physics",
            f"in more than {percent(1 - MIN_SHARE_VH_BELOW_VV)} of the patches VH is stronger than "
            "VV: the bands may be swapped",
            severity="warning",
            column_A="vv_mean",
            column_B="vh_mean",
            or_equal=True,
            ignore_row_if="either_value_is_missing",
            mostly=MIN_SHARE_VH_BELOW_VV,
        ),
        between(
            "bands not swapped",
            "physics",
            f"in most patches of the event VH is more than {-SWAPPED_DB:g} dB stronger than VV: "
            "the bands are swapped",
            columns.EVENT_VV_MINUS_VH,
            SWAPPED_DB,
            None,
            scope="event",
        ),
    ]


def _labels(params: ValidationParams) -> list[Expectation]:
    group: Group = "labels"
    return [
        between(
            "wet share",
            group,
            "the wet share of the labelled pixels is not between 0 and 1",
            "wet_share",
            0.0,
            1.0,
        ),
        between(
            "both classes in the event",
            group,
            "every labelled pixel of the event is wet: nothing shows what dry ground looks like",
            columns.EVENT_WET_SHARE,
            None,
            1.0 - 1e-6,
            scope="event",
            severity="warning",
        ),
        between(
            "wet darker than dry",
            group,
            f"in more than {percent(params.max_wet_brighter_share)} of the patches the wet pixels "
            "are brighter than the dry ones",
            columns.WET_MINUS_DRY,
            None,
            0.0,
            severity="warning",
            mostly=1.0 - params.max_wet_brighter_share,
        ),
        between(
            "masks not inverted",
            group,
            f"in most patches of the event with {percent(TELLING_SHARE)} or more of both wet and "
            "dry pixels the wet ones are brighter: the masks look inverted",
            columns.EVENT_WET_MINUS_DRY,
            None,
            0.0,
            scope="event",
        ),
        between(
            "mask in one piece",
            group,
            f"more than {percent(MAX_EDGE_SHARE)} of the neighbouring pixels have different "
            "labels: a pattern or noise, not water",
            "mask_edge_share",
            None,
            MAX_EDGE_SHARE,
        ),
        between(
            "mask edges follow radar edges",
            group,
            "the backscatter hardly falls across the edges of the mask",
            "edge_contrast",
            MIN_EDGE_CONTRAST,
            None,
            severity="warning",
            mostly=1.0 - params.max_wet_brighter_share,
        ),
        between(
            "masks belong to their images",
            group,
            "in most patches of the event the backscatter hardly falls across the edges of the "
            "mask: the masks are shifted or of other patches",
            columns.EVENT_EDGE_CONTRAST,
            MIN_EDGE_CONTRAST,
            None,
            scope="event",
        ),
        empty(
            "mask belongs to its image",
            group,
            "the mask does not follow the radar image, though the others of the event do: it is "
            "shifted, inverted or of another patch",
            columns.FOREIGN_MASK,
        ),
        empty(
            "own mask",
            group,
            "another image has exactly the same mask: one of them is a copy",
            columns.SAME_MASK_AS,
        ),
        between(
            "no label blocks",
            group,
            f"rectangles of one label that leave no trace in the radar image take more than "
            f"{percent(params.max_block_share)} of it",
            "block_share",
            None,
            params.max_block_share,
        ),
    ]


def band_name(band: str) -> str:
    """Say a band as people do: `vv_pre` is `VV before the event`."""
    return (
        f"{band.removesuffix('_pre').upper()} before the event" if "_pre" in band else band.upper()
    )
