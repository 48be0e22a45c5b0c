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
from sarflood.evaluation.boundary import compare_borders
from sarflood.evaluation.confusion import Counts, class_ious, count, count_classes
from sarflood.evaluation.inputs import backscatter, model_bands
from sarflood.evaluation.intervals import BLOCK
from sarflood.evaluation.pooled import (
    COUNTS,
    METHODS,
    OUTSIDE,
    by_wet_share,
    figures,
    plain_figures,
)
from sarflood.evaluation.reliability import calibration_error, reliability
from sarflood.model.histogram import BINS, count_pixels
from sarflood.model.package import FloodModel
from sarflood.patches.ground import pixel_metres
from sarflood.patches.neighbours import positions
from sarflood.patches.store import EventPatches
from sarflood.raster.patch import UNKNOWN, WET

BATCH = 16
TEST, HELD_OUT = "test", "held_out"

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: `metrics/evaluation.json`: `test` and, by id, `events` (of the test patches) and
            `held_out` (the events held out from training, in neither of the others), each with what
            `pooled.figures` says of the model, with the prefix `otsu_` of Otsu's threshold for each
            patch, with `fitted_threshold_` of one threshold fitted on the training patches; and
            `ece`, the expected calibration error, and `threshold`, both of the model's probability.
            Beside them `wet_shares`, the plain figures of the test patches by their wet share in
            percent; `outside_permanent_water`, those of the pixels outside of it on test patches of
            events that know it, None without such; `classes`, the IoU of each class by its name,
            and their `mean`, where model and events have several, else None; and
            `fitted_threshold`, the baseline's threshold in the units of VV.
        patches: A row a patch: `id`, `event`, `part` (`test` or `held_out`), `position` (in the
            event's arrays), `block` (of ground), `pixel_m` (edge of a pixel, NaN without
            georeference), `wet_share`, `iou` (NaN where there is none); `tp`, `fp`, `fn`, `tn` and
            `border_…` (see `Borders`) of the model and each baseline; `outside_tp`, … of each, all
            0 where no permanent water is known.
        precision_recall: `threshold`, `precision`, `recall` of the model on all test pixels, for
            each of 256 thresholds at which some pixel is called wet.
        reliability: See `reliability.reliability`; of all test pixels.
    """

    metrics: dict[str, Any]
    patches: pd.DataFrame
    precision_recall: pd.DataFrame
    reliability: pd.DataFrame

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
            na_values={name: [""] for name in ("iou", "wet_share", "pixel_m")},
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
    pixels: dict[tuple[str, str], NDArray[np.int64]] = {}
    classes = model.manifest.classes or ()
    confused = np.zeros((len(classes), len(classes)), np.int64)
    block = 0
    for part, event, truth, rows in scored:
        places = _places(event, rows, block)
        block = int(places["block"].max()) + 1
        counted = np.zeros((2, BINS), np.int64)
        bands = model_bands(event, model.manifest)
        scaling = model.scaling_of(event.images[:, bands])
        for batch in np.array_split(rows, range(BATCH, rows.size, BATCH)):
            probabilities = model.probabilities(event.images[batch][:, bands], scaling)
            counted += count_pixels(probabilities, truth[batch])
            if part == TEST and classes and classes == event.event.classes:
                said = model.classes(event.images[batch][:, bands], scaling)
                confused += count_classes(said, truth[batch], len(classes))
            for position, mask in zip(batch, model.masks(probabilities), strict=True):
                found = _score(event, position, mask, truth[position], fitted)
                table.append({"part": part, **places.loc[position], **found})
            if on_patches:
                on_patches(len(table), total)
        pixels[part, event.event.id] = counted
    patches = pd.DataFrame(table).astype({"block": int})
    tested_pixels = sum(
        (item for (part, _), item in pixels.items() if part == TEST), np.zeros((2, BINS), np.int64)
    )

    def of(rows: pd.DataFrame, counted: NDArray[np.int64]) -> dict[str, Any]:
        told = {"ece": calibration_error(counted), "threshold": model.manifest.threshold}
        return figures(rows) | told

    def by_event(part: str) -> dict[str, Any]:
        grouped = patches[patches["part"] == part].groupby("event", sort=True)
        return {str(event): of(rows, pixels[part, str(event)]) for event, rows in grouped}

    test = patches[patches["part"] == TEST]
    outside = plain_figures(test, OUTSIDE)
    metrics = {
        "test": of(test, tested_pixels),
        "events": by_event(TEST),
        "held_out": by_event(HELD_OUT),
        "wet_shares": by_wet_share(test),
        "outside_permanent_water": outside if outside["pixels"] else None,
        "classes": class_ious(confused, classes) if confused.any() else None,
        "fitted_threshold": fitted,
    }
    return Evaluation(
        metrics, patches, _precision_recall(tested_pixels), reliability(tested_pixels)
    )


def _places(event: EventPatches, rows: NDArray[np.int64], first: int) -> pd.DataFrame:
    """Return `block` (numbered from `first`) and `pixel_m` of the patches at `rows`."""
    index = event.index.iloc[rows]
    blocks = pd.DataFrame(positions(index, event.images[rows], guard=1) // BLOCK)
    return pd.DataFrame(
        {
            "block": first + blocks.groupby([0, 1]).ngroup().to_numpy(),
            "pixel_m": pixel_metres(index),
        },
        index=rows,
    )


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
    """Compare one patch for the model and the baselines, all on the same labelled pixels."""
    vv = backscatter(event, position)
    masks = (predicted, otsu_mask(vv), threshold_mask(vv, fitted))
    outside = np.full_like(truth, UNKNOWN)
    if event.permanent_water is not None:
        outside = np.where(event.permanent_water[position] == WET, np.uint8(UNKNOWN), truth)
    row: dict[str, Any] = {}
    for prefix, mask, borders in zip(METHODS, masks, compare_borders(masks, truth), strict=True):
        for kind, wanted in (("", truth), (OUTSIDE, outside)):
            counted = asdict(count(mask, wanted))
            row |= {f"{kind}{prefix}{name}": value for name, value in counted.items()}
        row |= {f"{prefix}border_{name}": value for name, value in asdict(borders).items()}
    counts = Counts(*(row[name] for name in COUNTS))
    return {
        "id": event.index["id"].iloc[position],
        "event": event.event.id,
        "position": int(position),
        "wet_share": counts.wet / counts.pixels if counts.pixels else np.nan,
        "iou": np.nan if counts.iou is None else counts.iou,
        **row,
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
