"""The columns that are judged: those of the patch index, and those that are derived from them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from sarflood.patches.labels import LABEL_STATISTICS
from sarflood.patches.statistics import BAND_STATISTICS, CLASS_MEANS

# Without one pixel that has data these are NaN; the others may be NaN of right.
ALWAYS_FINITE = ("min", "p02", "mean", "p98", "max")

DUPLICATE_OF = "duplicate_of"
SAME_IMAGE_AS = "same_image_as"
SAME_PLACE_AS = "same_place_as"
SAME_MASK_AS = "same_mask_as"
NOT_FINITE = "bands_not_finite"
MIXED_CRS = "mixed_crs"
MIXED_DTYPE = "mixed_dtype"
MIXED_GEOREFERENCE = "mixed_georeference"
MIXED_SPACING = "mixed_spacing"
SPACING = "spacing_m"
WET_MINUS_DRY = "wet_minus_dry"
EVENT_WET_MINUS_DRY = "event_wet_minus_dry"
EVENT_WET_SHARE = "event_wet_share"
EVENT_EDGE_CONTRAST = "event_edge_contrast"
EVENT_VV_MINUS_VH = "event_vv_minus_vh"
FOREIGN_MASK = "foreign_mask"

# A class with less of the labelled pixels than this may be anything: a pier, a ship, a puddle.
TELLING_SHARE = 0.01
# Events whose masks follow the radar so well (their median edge contrast) that a single mask which
# follows no edge is foreign: its contrast is about 0, and its edge strength about 1. Flooded
# vegetation, which is bright, has a contrast below 0 too, but an edge strength above 2.5.
WELL_DRAWN, FOREIGN_CONTRAST, FOREIGN_STRENGTH = 3.0, 0.4, 1.8
_METRES_A_DEGREE = 111_320.0

_PLAIN = (
    "id",
    "event",
    "sha256",
    "image_sha256",
    "mask_sha256",
    "grid",
    "row",
    "col",
    "crs",
    "transform",
    "height",
    "width",
    "dtype",
    "valid_share",
    "wet_share",
)


def required_columns(bands: tuple[str, ...]) -> list[str]:
    """List the columns of the patch index that a judgement needs."""
    names = (*BAND_STATISTICS, *CLASS_MEANS)
    return [*_PLAIN, *LABEL_STATISTICS, *(f"{band}_{name}" for band in bands for name in names)]


def disorder_column(band: str) -> str:
    """Name the column that says how far a band's mean lies outside its minimum and maximum."""
    return f"{band}_mean_outside"


def label_band(bands: tuple[str, ...]) -> str:
    """Return the band in which wet pixels are compared with dry ones: VV, where it is there."""
    return "vv" if "vv" in bands else bands[0]


def with_derived_columns(table: pd.DataFrame, bands: tuple[str, ...]) -> pd.DataFrame:
    """Return the required columns of `table` and, a row a patch, those derived from them.

    - `duplicate_of`, `same_image_as`: the id of the first patch with the same pixels and mask, or
      with the same pixels and another mask; empty where there is none.
    - `same_place_as`: that of the first patch on the same row and column of the same grid.
    - `same_mask_as`: that of another patch with the same mask and other pixels.
    - `bands_not_finite`: the bands with NaN or infinite statistics, as `vv, vh`; empty where none.
    - `mixed_crs`, `mixed_dtype`, `mixed_georeference`, `mixed_spacing`: what the grid's or the
      event's patches do not agree on; empty where they do.
    - `spacing_m`: the larger pixel spacing in metres (degrees count as on the equator); NaN without
      a georeference.
    - `<band>_mean_outside`: by how much the mean is below the minimum or above the maximum, in the
      band's units; 0 or less is right.
    - `wet_minus_dry`: mean of the wet less mean of the dry pixels; NaN where one kind is missing.
    - `event_wet_minus_dry`, `event_edge_contrast`: the medians over those patches of the same event
      in which both classes have 1 % of the labelled pixels or more; NaN where there is none.
    - `event_wet_share`, `event_vv_minus_vh`: the mean, and the median of VV less VH (with both
      bands alone), over the event.
    - `foreign_mask`: says so where a mask follows no edge of the radar image, or is inverted, and
      its event's others are right.
    """
    judged = table[required_columns(bands)].reset_index(drop=True)
    judged[DUPLICATE_OF] = _first_with(judged, ["sha256"])
    same_image = _first_with(judged, ["image_sha256"])
    judged[SAME_IMAGE_AS] = same_image.where(judged[DUPLICATE_OF] == "", "")
    in_grid = judged["grid"].notna()
    judged[SAME_PLACE_AS] = _first_with(judged, ["event", "grid", "row", "col"], in_grid)
    judged[SAME_MASK_AS] = _same_mask(judged)
    judged[NOT_FINITE] = _not_finite(judged, bands)
    judged[SPACING] = _spacing_m(judged)
    judged[MIXED_CRS] = _mixed(judged["crs"], judged["grid"].fillna(judged["id"]))
    judged[MIXED_DTYPE] = _mixed(judged["dtype"], judged["event"])
    georeferenced = judged["crs"].notna().map({True: "georeferenced", False: "not georeferenced"})
    judged[MIXED_GEOREFERENCE] = _mixed(georeferenced, judged["event"])
    spacing = judged.groupby("event", dropna=False)[SPACING]
    wide = spacing.transform("max") > 1.5 * spacing.transform("min")
    judged[MIXED_SPACING] = np.where(wide, "pixel spacings differ", "")
    for band in bands:
        low, mean, high = (judged[f"{band}_{name}"] for name in ("min", "mean", "max"))
        judged[disorder_column(band)] = np.maximum(low - mean, mean - high)
    return _with_labels(judged, bands)


def _with_labels(judged: pd.DataFrame, bands: tuple[str, ...]) -> pd.DataFrame:
    """Add the columns about masks, and what an event's patches say together."""
    band, event = label_band(bands), judged["event"]
    judged[WET_MINUS_DRY] = judged[f"{band}_wet_mean"] - judged[f"{band}_dry_mean"]
    telling = judged["wet_share"].between(TELLING_SHARE, 1 - TELLING_SHARE)
    for source, target in (
        (WET_MINUS_DRY, EVENT_WET_MINUS_DRY),
        ("edge_contrast", EVENT_EDGE_CONTRAST),
    ):
        values = judged[source].where(telling)
        judged[target] = values.groupby(event, dropna=False).transform("median")
    judged[EVENT_WET_SHARE] = judged["wet_share"].groupby(event, dropna=False).transform("mean")
    if {"vv", "vh"} <= set(bands):
        above = judged["vv_mean"] - judged["vh_mean"]
        judged[EVENT_VV_MINUS_VH] = above.groupby(event, dropna=False).transform("median")
    odd = (judged[EVENT_EDGE_CONTRAST] >= WELL_DRAWN) & telling
    odd &= judged["edge_contrast"] < FOREIGN_CONTRAST
    foreign = (judged["edge_strength"] < FOREIGN_STRENGTH) | _swapped(judged, band, telling)
    judged[FOREIGN_MASK] = np.where(odd & foreign, "does not follow the radar", "")
    return judged


def _swapped(judged: pd.DataFrame, band: str, telling: pd.Series) -> pd.Series:
    """Say where dry pixels look as wet ones do in the event, and wet ones as dry ones do."""
    wet, dry = judged[f"{band}_wet_mean"], judged[f"{band}_dry_mean"]
    usual = [
        kind.where(telling).groupby(judged["event"], dropna=False).transform("median")
        for kind in (wet, dry)
    ]
    middle = (usual[0] + usual[1]) / 2
    return (dry < middle) & (middle < wet)


def _first_with(judged: pd.DataFrame, keys: list[str], among: pd.Series | None = None) -> pd.Series:
    """Return the id of an earlier patch with the same values in `keys`, empty where none is."""
    rows = judged if among is None else judged[among]
    first = rows.groupby(keys, dropna=False, sort=False)["id"].transform("first")
    found = first.where(rows.duplicated(keys), "")
    return found.reindex(judged.index, fill_value="")


def _same_mask(judged: pd.DataFrame) -> pd.Series:
    """Return the id of another patch with the same mask; equal images are doubles, not copies."""
    telling = judged["mask_sha256"].notna() & judged["wet_share"].between(
        TELLING_SHARE, 1 - TELLING_SHARE
    )
    rows = judged[telling].drop_duplicates(["mask_sha256", "image_sha256"])
    rows = rows[rows.duplicated("mask_sha256", keep=False)]
    masks = rows.groupby("mask_sha256", sort=False)["id"]
    first, last = masks.transform("first"), masks.transform("last")
    return first.where(first != rows["id"], last).reindex(judged.index, fill_value="")


def _mixed(values: pd.Series, groups: pd.Series) -> pd.Series:
    """Return the values, as a text, of those groups that have more than one."""
    several = values.groupby(groups, dropna=False).transform("nunique") > 1
    return values.astype(object).where(several, "").fillna("none").astype(str)


def _spacing_m(judged: pd.DataFrame) -> pd.Series:
    """Return the larger side of a pixel in metres, from the affine transform."""
    texts = judged["transform"].dropna()
    sides = {text: _side(json.loads(text)) for text in texts.unique()}
    side = judged["transform"].map(sides).astype(float)
    degrees = judged["crs"].isin(["EPSG:4326", "OGC:CRS84"])
    return side * np.where(degrees, _METRES_A_DEGREE, 1.0)


def _side(transform: list[float]) -> float:
    a, b, _, d, e, _ = transform
    return max(float(np.hypot(a, d)), float(np.hypot(b, e)))


def _not_finite(judged: pd.DataFrame, bands: tuple[str, ...]) -> pd.Series:
    names = pd.Series("", index=judged.index, dtype=object)
    for band in bands:
        always = judged[[f"{band}_{name}" for name in ALWAYS_FINITE]].to_numpy(float)
        classes = judged[[f"{band}_{name}" for name in CLASS_MEANS]].to_numpy(float)
        wrong = ~np.isfinite(always).all(axis=1) | np.isinf(classes).any(axis=1)
        names = names.where(~wrong, names + f", {band}")
    return names.str.removeprefix(", ")
