"""The columns that are judged: those of the patch index, and those that are derived from them."""

from __future__ import annotations

import numpy as np
import pandas as pd

# Without one pixel that has data, these are NaN; the wet and dry means may be NaN of right.
ALWAYS_FINITE = ("min", "p02", "mean", "p98", "max", "std", "constant_share")
CLASS_MEANS = ("wet_mean", "dry_mean")

DUPLICATE_OF = "duplicate_of"
NOT_FINITE = "bands_not_finite"
WET_MINUS_DRY = "wet_minus_dry"
EVENT_WET_MINUS_DRY = "event_wet_minus_dry"

# A class with less of the labelled pixels than this may be anything: a pier, a ship, a puddle.
TELLING_SHARE = 0.01


def required_columns(bands: tuple[str, ...]) -> list[str]:
    """List the columns of the patch index that a judgement needs."""
    statistics = [f"{band}_{name}" for band in bands for name in (*ALWAYS_FINITE, *CLASS_MEANS)]
    return ["id", "event", "sha256", "valid_share", "wet_share", *statistics]


def disorder_column(band: str) -> str:
    """Name the column that says how far a band's mean lies outside its minimum and maximum."""
    return f"{band}_mean_outside"


def label_band(bands: tuple[str, ...]) -> str:
    """Return the band in which wet pixels are compared with dry ones: VV, where it is there."""
    return "vv" if "vv" in bands else bands[0]


def with_derived_columns(table: pd.DataFrame, bands: tuple[str, ...]) -> pd.DataFrame:
    """Return the required columns of `table` and, a row a patch, those derived from them.

    - `duplicate_of`: the id of the first patch with the same pixels and mask; empty for the first.
    - `bands_not_finite`: the bands with NaN or infinite statistics, as `vv, vh`; empty where none.
    - `<band>_mean_outside`: by how much the mean is below the minimum or above the maximum, in the
      band's units; 0 or less is right.
    - `wet_minus_dry`: mean of the wet less mean of the dry pixels; NaN where one kind is missing.
    - `event_wet_minus_dry`: the median of `wet_minus_dry` over those patches of the same event in
      which both classes have 1 % of the labelled pixels or more; NaN where there is none.
    """
    judged = table[required_columns(bands)].reset_index(drop=True)
    first = judged.groupby("sha256")["id"].transform("first")
    judged[DUPLICATE_OF] = first.where(judged["sha256"].duplicated(), "")
    judged[NOT_FINITE] = _not_finite(judged, bands)
    for band in bands:
        low, mean, high = (judged[f"{band}_{name}"] for name in ("min", "mean", "max"))
        judged[disorder_column(band)] = np.maximum(low - mean, mean - high)
    band = label_band(bands)
    judged[WET_MINUS_DRY] = judged[f"{band}_wet_mean"] - judged[f"{band}_dry_mean"]
    telling = judged["wet_share"].between(TELLING_SHARE, 1 - TELLING_SHARE)
    differences = judged[WET_MINUS_DRY].where(telling)
    events = differences.groupby(judged["event"], dropna=False)
    judged[EVENT_WET_MINUS_DRY] = events.transform("median")
    return judged


def _not_finite(judged: pd.DataFrame, bands: tuple[str, ...]) -> pd.Series:
    names = pd.Series("", index=judged.index, dtype=object)
    for band in bands:
        always = judged[[f"{band}_{name}" for name in ALWAYS_FINITE]].to_numpy(float)
        classes = judged[[f"{band}_{name}" for name in CLASS_MEANS]].to_numpy(float)
        wrong = ~np.isfinite(always).all(axis=1) | np.isinf(classes).any(axis=1)
        names = names.where(~wrong, names + f", {band}")
    return names.str.removeprefix(", ")
