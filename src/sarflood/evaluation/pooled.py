"""From a table of scored patches to the figures of a group of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sarflood.evaluation.boundary import Borders
from sarflood.evaluation.confusion import Counts
from sarflood.evaluation.intervals import bootstrap
from sarflood.params import WET_SHARES

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("", "otsu_", "fitted_threshold_")  # prefixes of the figures; the model has none
COUNTS = tuple(asdict(Counts()))
BORDERS = tuple(asdict(Borders()))
WET_SHARE_TITLES = {
    "to_1": "up to 1 %",
    "to_5": "1 to 5 %",
    "to_20": "5 to 20 %",
    "to_50": "20 to 50 %",
    "to_100": "over 50 %",
}
OUTSIDE = "outside_"  # prefix of the counts outside permanent water


def pooled_counts(patches: pd.DataFrame, prefix: str = "") -> Counts:
    """Add up a method's counts."""
    return Counts(*(int(patches[f"{prefix}{name}"].sum()) for name in COUNTS))


def figures(patches: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of a group of patches, ready for JSON.

    Args:
        patches: `Evaluation.patches`, or rows of it.

    Returns:
        Those of `plain_figures`, and for the model and each baseline: `patch_iou` and
        `patch_mean_iou`, means over the patches that have one; `boundary_f1`,
        `boundary_distance_px`, and `boundary_distance_m` where all patches have a georeference.
    """
    found = plain_figures(patches)
    for prefix in METHODS:
        one = _by_patch(_counts(patches, prefix)) | _borders(patches, prefix)
        found |= {f"{prefix}{name}": value for name, value in one.items()}
    return found


def plain_figures(patches: pd.DataFrame, kind: str = "") -> dict[str, Any]:
    """Return the figures of all pixels of a group of patches together.

    Args:
        patches: `Evaluation.patches`, or rows of it.
        kind: `outside_` for the pixels outside permanent water alone.

    Returns:
        For the model, and with a prefix for each baseline: those of `Counts.metrics`, and
        `iou_low`, `iou_high`, `f1_low`, `f1_high`, the ends of their 95 % intervals. And `patches`,
        `blocks` (of ground, which the intervals are drawn from), `pixels` (that are labelled),
        `wet_share`.
    """
    found: dict[str, Any] = {}
    counts = np.stack([_counts(patches, f"{kind}{prefix}")[:, :3] for prefix in METHODS], axis=1)
    intervals = bootstrap(counts, patches["block"].to_numpy(np.int64))
    for number, prefix in enumerate(METHODS):
        one = pooled_counts(patches, f"{kind}{prefix}").metrics()
        for name, interval in zip(("iou", "f1"), intervals, strict=True):
            one[f"{name}_low"], one[f"{name}_high"] = interval[number] or (None, None)
        found |= {f"{prefix}{name}": value for name, value in one.items()}
    return found | _size(patches, kind) | {"blocks": int(patches["block"].nunique())}


def wet_share_kinds(patches: pd.DataFrame) -> NDArray[np.str_]:
    """Return the class of each patch's wet share, by its name in `WET_SHARES`."""
    ends = np.array(list(WET_SHARES.values()))
    share = patches["wet_share"].fillna(0.0).to_numpy(np.float64)
    return np.array(list(WET_SHARES))[np.searchsorted(ends, share)]


def by_wet_share(patches: pd.DataFrame) -> dict[str, Any]:
    """Return the plain figures of the patches of each class of wet share that has some."""
    kinds = wet_share_kinds(patches)
    return {
        kind: plain_figures(patches[kinds == kind]) for kind in WET_SHARES if (kinds == kind).any()
    }


def _counts(patches: pd.DataFrame, prefix: str) -> NDArray[np.int64]:
    """Return a method's counts, (N, 4): a row a patch, in the order of `COUNTS`."""
    return patches[_columns(prefix, COUNTS)].to_numpy(np.int64)


def _columns(prefix: str, names: tuple[str, ...]) -> list[str]:
    return [f"{prefix}{name}" for name in names]


def _size(patches: pd.DataFrame, kind: str) -> dict[str, Any]:
    counts = pooled_counts(patches, kind)
    return {
        "patches": len(patches),
        "pixels": counts.pixels,
        "wet_share": counts.wet / counts.pixels if counts.pixels else None,
    }


def _by_patch(counts: NDArray[np.int64]) -> dict[str, float | None]:
    """Average over patches; a class that is neither there nor was said has no IoU in a patch."""
    tp, fp, fn, tn = counts.T.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wet, dry = tp / (tp + fp + fn), tn / (tn + fp + fn)
    return {"patch_iou": _mean(wet), "patch_mean_iou": _mean(_mean_of_classes(wet, dry))}


def _mean_of_classes(*classes: NDArray[np.float64]) -> NDArray[np.float64]:
    stacked = np.stack(classes)
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0)
    return mean


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _borders(patches: pd.DataFrame, prefix: str) -> dict[str, float | None]:
    names = [f"border_{name}" for name in BORDERS]
    table = patches[_columns(prefix, tuple(names))].to_numpy(np.float64)
    true, found, said, right, paired, distance = table.sum(axis=0).tolist()
    borders = Borders(int(true), int(found), int(said), int(right), int(paired), distance)
    metres = (table[:, -1] * patches["pixel_m"].to_numpy(np.float64))[table[:, -2] > 0]
    placed = borders.paired and np.isfinite(metres).all()
    return {
        "boundary_f1": borders.f1,
        "boundary_distance_px": borders.mean_distance,
        "boundary_distance_m": float(metres.sum()) / borders.paired if placed else None,
    }
