"""Score a model, and the baselines beside it, on the test patches and the held-out events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.errors import InputError
from sarflood.evaluation.baselines import fit_threshold, otsu_mask, threshold_mask
from sarflood.evaluation.confusion import Counts, count
from sarflood.evaluation.inputs import backscatter, model_bands
from sarflood.model.histogram import BINS, count_pixels
from sarflood.model.package import FloodModel
from sarflood.patches.store import EventPatches
from sarflood.raster.patch import UNKNOWN

BATCH = 16
TEST, HELD_OUT = "test", "held_out"
METHODS = ("", "otsu_", "fitted_threshold_")  # prefixes of the figures; the model has none

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: `metrics/evaluation.json`: `test` and, by id, `events` (of the test patches) and
            `held_out` (the events held out from training, in neither of the others), each with the
            figures of `Counts.metrics` of the model, with the prefix `otsu_` of Otsu's threshold
            for each patch, with `fitted_threshold_` of one threshold fitted on the training
            patches; and `patches`, `pixels` (labelled), `wet_share`, `threshold` (of the model's
            probability); beside them `fitted_threshold`, the baseline's threshold in the units of
            VV.
        patches: A row a patch: `id`, `event`, `part` (`test` or `held_out`), `position` (in the
            event's arrays), `tp`, `fp`, `fn`, `tn`, the same for each baseline, and `iou` (NaN
            where there is none).
        precision_recall: `threshold`, `precision`, `recall` of the model on all test pixels, for
            each of 256 thresholds at which some pixel is called wet.
    """

    metrics: dict[str, Any]
    patches: pd.DataFrame
    precision_recall: pd.DataFrame

    @property
    def test_patches(self) -> pd.DataFrame:
        """The rows of `patches` that are test patches."""
        return self.patches[self.patches["part"] == TEST]


def read_patches(path: Path) -> pd.DataFrame:
    """Read `Evaluation.patches` back from CSV; an event may be called `2019`, `007` or `null`.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return pd.read_csv(
            path,
            dtype={"id": str, "event": str, "part": str},
            keep_default_na=False,
            na_values={"iou": [""]},
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro`") from error


def evaluate(
    model: FloodModel,
    events: list[EventPatches],
    split: pd.DataFrame,
    on_patches: Progress | None = None,
) -> Evaluation:
    """Score a model on the test patches of all events, and apart on the held-out events.

    A champion and a candidate are compared by calling this for both with the same events and split.

    Args:
        model: The model.
        events: The events, opened by memory map; those without labels are passed over.
        split: A row a patch with `id`, `event` and `split`; the rows `test` and `held_out` are
            scored, the rows `train` are what the fitted threshold is fitted on.
        on_patches: Is told how many of how many patches are done.

    Raises:
        InputError: No pixel of the test patches is labelled, no training pixel is wet, or an event
            lacks a band of the model.
    """
    scored = [(part, *found) for part in (TEST, HELD_OUT) for found in _rows(events, split, part)]
    tested = (truth[row] for part, _, truth, rows in scored if part == TEST for row in rows)
    if not any((mask != UNKNOWN).any() for mask in tested):
        raise InputError(
            "no labelled pixel in any test patch: ingest a labelled event that is large enough to "
            "be split, or raise split.test_share in params.yaml"
        )
    fitted = fit_threshold(
        (backscatter(event, row), truth[row])
        for event, truth, rows in _rows(events, split, "train")
        for row in rows
    )
    total = sum(rows.size for _, _, _, rows in scored)
    table: list[dict[str, Any]] = []
    pixels = np.zeros((2, BINS), np.int64)
    for part, event, truth, rows in scored:
        bands = model_bands(event, model.manifest)
        scaling = model.scaling_of(event.images[:, bands])
        for batch in np.array_split(rows, range(BATCH, rows.size, BATCH)):
            probabilities = model.probabilities(event.images[batch][:, bands], scaling)
            predicted = model.masks(probabilities)
            if part == TEST:
                pixels += count_pixels(probabilities, truth[batch])
            for position, mask in zip(batch, predicted, strict=True):
                counted = _score(event, position, mask, truth[position], fitted)
                table.append({"part": part, **counted})
            if on_patches:
                on_patches(len(table), total)
    patches = pd.DataFrame(table)
    test, held_out = (patches[patches["part"] == part] for part in (TEST, HELD_OUT))
    threshold = model.manifest.threshold
    metrics = {
        "test": _figures(test, threshold),
        "events": _by_event(test, threshold),
        "held_out": _by_event(held_out, threshold),
        "fitted_threshold": fitted,
    }
    return Evaluation(metrics, patches, _precision_recall(pixels))


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
    counts = {prefix: count(mask, truth) for prefix, mask in zip(METHODS, masks, strict=True)}
    for prefix, counted in counts.items():
        row |= {f"{prefix}{name}": value for name, value in asdict(counted).items()}
    iou = counts[""].iou
    return row | {"iou": np.nan if iou is None else iou}


def _pooled(patches: pd.DataFrame, prefix: str) -> Counts:
    return Counts(*(int(patches[f"{prefix}{name}"].sum()) for name in ("tp", "fp", "fn", "tn")))


def _by_event(patches: pd.DataFrame, threshold: float) -> dict[str, Any]:
    grouped = patches.groupby("event", sort=True)
    return {str(event): _figures(rows, threshold) for event, rows in grouped}


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


def _precision_recall(pixels: NDArray[np.int64]) -> pd.DataFrame:
    """Return the curve; empty where no pixel is wet, for then there is no recall."""
    alarms, hits = pixels[:, ::-1].cumsum(axis=1)[:, ::-1]
    said = (alarms + hits > 0) & (hits[0] > 0)
    return pd.DataFrame(
        {
            "threshold": np.arange(BINS)[said] / BINS,
            "precision": hits[said] / (alarms + hits)[said],
            "recall": hits[said] / max(int(hits[0]), 1),
        }
    )
