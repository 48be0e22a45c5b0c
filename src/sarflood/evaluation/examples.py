"""Which test patches are shown in the report, and beside a run."""

from __future__ import annotations

import pandas as pd

WORST = "worst.md"  # in `reports`: pictures of the worst of them
EACH = 2
WORTH_SHOWING = 0.01  # of a patch's labelled pixels that are wet or were called wet


def best_median_worst(patches: pd.DataFrame) -> pd.DataFrame:
    """Choose test patches by IoU: up to two each of the best, the middle and the worst.

    Patches with next to no water in truth and in prediction are passed over, for their IoU hangs on
    a few pixels; unless there are no others.

    Args:
        patches: `Evaluation.patches`.

    Returns:
        The chosen rows, best first, each at most once, with their `place`: best, median or worst.
    """
    ranked = _telling(patches).sort_values(["iou", "id"], ascending=[False, True])
    middle = max((len(ranked) - EACH) // 2, 0)
    places = {
        "best": range(EACH),
        "worst": range(len(ranked) - EACH, len(ranked)),
        "median": range(middle, middle + EACH),
    }
    chosen = {
        position: place
        for place, positions in reversed(places.items())
        for position in positions
        if 0 <= position < len(ranked)
    }
    order = sorted(chosen)
    return ranked.iloc[order].assign(place=[chosen[position] for position in order])


def worst(patches: pd.DataFrame, most: int) -> pd.DataFrame:
    """Choose the test patches with the lowest IoU, the worst first; see `best_median_worst`."""
    return _telling(patches).sort_values(["iou", "id"]).head(most)


def _telling(patches: pd.DataFrame) -> pd.DataFrame:
    share = patches[["tp", "fp", "fn"]].sum(axis=1) / patches[["tp", "fp", "fn", "tn"]].sum(axis=1)
    scored = patches[patches["iou"].notna()]
    telling = scored[share[scored.index] >= WORTH_SHOWING]
    return scored if telling.empty else telling
