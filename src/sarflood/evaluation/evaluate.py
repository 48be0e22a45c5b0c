"""Score a model, and the baselines beside it, on the test patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.errors import InputError
from sarflood.evaluation.baselines import fit_threshold, otsu_mask, threshold_mask
from sarflood.evaluation.confusion import Counts, count
from sarflood.evaluation.inputs import backscatter, model_bands
from sarflood.model.package import FloodModel
from sarflood.patches.store import EventPatches
from sarflood.sources.reader import DRY, UNKNOWN, WET

BATCH = 16
BINS = 256  # of the probability, for the precision–recall curve
METHODS = ("", "otsu_", "fitted_threshold_")  # prefixes of the figures; the model has none

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: `metrics/evaluation.json`: `test` and, by id, `events`, each with the figures of
            `Counts.metrics` of the model, with the prefix `otsu_` of Otsu's threshold for each
            patch, with `fitted_threshold_` of one threshold fitted on the training patches; and
            `patches`, `pixels` (labelled), `wet_share`, `threshold` (of the model's probability);
            beside them `fitted_threshold`, the baseline's threshold in the units of VV.
        patches: A row a test patch: `id`, `event`, `position` (in the event's arrays), `tp`, `fp`,
            `fn`, `tn`, the same for each baseline, and `iou` (NaN where there is none).
        precision_recall: `threshold`, `precision`, `recall` of the model on all test pixels, for
            each of 256 thresholds at which some pixel is called wet.
    """

    metrics: dict[str, Any]
    patches: pd.DataFrame
    precision_recall: pd.DataFrame


def evaluate(
    model: FloodModel,
    events: list[EventPatches],
    split: pd.DataFrame,
    on_patches: Progress | None = None,
) -> Evaluation:
    """Score a model on the test patches of all events.

    A champion and a candidate are compared by calling this for both with the same events and split.

    Args:
        model: The model.
        events: The events, opened by memory map; those without labels are passed over.
        split: A row a patch with `id`, `event` and `split`; the rows `test` are scored, the rows
            `train` are what the fitted threshold is fitted on.
        on_patches: Is told how many of how many test patches are done.

    Raises:
        InputError: No pixel of the test patches is labelled, no training pixel is wet, or an event
            lacks a band of the model.
    """
    test = list(_rows(events, split, "test"))
    if not any((truth[row] != UNKNOWN).any() for _, truth, rows in test for row in rows):
        raise InputError(
            "no labelled pixel in any test patch: ingest a labelled event that is large enough to "
            "be split, or raise split.test_share in params.yaml"
        )
    fitted = fit_threshold(
        (backscatter(event, row), truth[row])
        for event, truth, rows in _rows(events, split, "train")
        for row in rows
    )
    total = sum(rows.size for _, _, rows in test)
    table: list[dict[str, Any]] = []
    histograms = np.zeros((2, BINS), np.int64)
    for event, truth, rows in test:
        bands = model_bands(event, model.manifest)
        for batch in np.array_split(rows, range(BATCH, rows.size, BATCH)):
            probabilities = model.probabilities(event.images[batch][:, bands])
            predicted = model.masks(probabilities)
            histograms += _histograms(probabilities, truth[batch])
            for position, mask in zip(batch, predicted, strict=True):
                table.append(_score(event, position, mask, truth[position], fitted))
            if on_patches:
                on_patches(len(table), total)
    patches = pd.DataFrame(table)
    threshold = model.manifest.threshold
    metrics = {
        "test": _figures(patches, threshold),
        "events": {
            str(event): _figures(rows, threshold)
            for event, rows in patches.groupby("event", sort=True)
        },
        "fitted_threshold": fitted,
    }
    return Evaluation(metrics, patches, _precision_recall(histograms))


def _rows(
    events: list[EventPatches], split: pd.DataFrame, part: str
) -> Iterator[tuple[EventPatches, NDArray[np.uint8], NDArray[np.int64]]]:
    """Give each labelled event with patches in `part`: the event, its masks, their positions."""
    chosen = set(split.loc[split["split"] == part, "id"])
    for patches in events:
        rows = np.flatnonzero(patches.index["id"].isin(chosen))
        if patches.masks is not None and rows.size:
            yield patches, patches.masks, rows


def _score(
    event: EventPatches,
    position: int,
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    fitted: float,
) -> dict[str, Any]:
    """Count one patch for the model and the baselines, all on the same labelled pixels."""
    vv = backscatter(event, position)
    masks = (predicted, otsu_mask(vv), threshold_mask(vv, fitted))
    row: dict[str, Any] = {
        "id": event.index["id"].iloc[position],
        "event": event.event.id,
        "position": int(position),
    }
    for prefix, mask in zip(METHODS, masks, strict=True):
        counts = count(mask, truth)
        row |= {f"{prefix}{name}": value for name, value in asdict(counts).items()}
    iou = count(predicted, truth).iou
    return row | {"iou": np.nan if iou is None else iou}


def _pooled(patches: pd.DataFrame, prefix: str) -> Counts:
    return Counts(*(int(patches[f"{prefix}{name}"].sum()) for name in ("tp", "fp", "fn", "tn")))


def _figures(patches: pd.DataFrame, threshold: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for prefix in METHODS:
        pooled = _pooled(patches, prefix).metrics()
        figures |= {f"{prefix}{name}": value for name, value in pooled.items()}
    counts = _pooled(patches, "")
    return figures | {
        "patches": len(patches),
        "pixels": counts.pixels,
        "wet_share": counts.wet / counts.pixels if counts.pixels else None,
        "threshold": threshold,
    }


def _histograms(probabilities: NDArray[np.float32], truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count labelled pixels by class (row 0 dry, 1 wet) and by probability in steps of 1/256."""
    known = (truth != UNKNOWN) & np.isfinite(probabilities)
    place = (probabilities[known] * BINS).astype(np.int64).clip(max=BINS - 1)
    kinds = (place[truth[known] == kind] for kind in (DRY, WET))
    return np.stack([np.bincount(kind, minlength=BINS) for kind in kinds])


def _precision_recall(histograms: NDArray[np.int64]) -> pd.DataFrame:
    """Return the curve; empty where no pixel is wet, for then there is no recall."""
    alarms, hits = histograms[:, ::-1].cumsum(axis=1)[:, ::-1]
    said = (alarms + hits > 0) & (hits[0] > 0)
    return pd.DataFrame(
        {
            "threshold": np.arange(BINS)[said] / BINS,
            "precision": hits[said] / (alarms + hits)[said],
            "recall": hits[said] / max(int(hits[0]), 1),
        }
    )
