"""One page for a person: how good the model is, where it fails, and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sarflood.evaluation import figures
from sarflood.evaluation.data import DataChecks, data_section
from sarflood.evaluation.evaluate import Evaluation
from sarflood.evaluation.examples import WORTH_SHOWING, best_median_worst
from sarflood.evaluation.markup import (
    images,
    legend,
    note,
    page,
    section,
    table,
    tile,
)
from sarflood.evaluation.pictures import panel
from sarflood.evaluation.pooled import WET_SHARE_TITLES
from sarflood.files import write_text
from sarflood.markdown import from_markdown
from sarflood.model.inputs import channels
from sarflood.model.package import FloodModel, ModelManifest
from sarflood.patches.store import EventPatches

BASELINES = (("Otsu", "otsu_"), ("Fitted", "fitted_threshold_"))  # names, prefixes of the figures


def write_report(
    path: Path,
    *,
    manifest: ModelManifest,
    evaluation: Evaluation,
    training: pd.DataFrame,
    events: list[EventPatches],
    model: FloodModel,
    data: DataChecks,
    gate: Sequence[Mapping[str, str]] | None,
    card: str = "",
) -> None:
    """Write `report.html`, which loads nothing and so can be read anywhere.

    Args:
        path: Where to write.
        manifest: The model's manifest.
        evaluation: What `evaluate` found.
        training: A row an epoch with `epoch`, `seconds`, `train_loss`, `val_iou`, `learning_rate`.
        events: The events that the model was evaluated on.
        model: The model, which answers the patches that are shown.
        data: What the stages before training found in the data.
        gate: The rows of the gate's checks, the verdict of each under `verdict`; None where the
            gate has not judged yet.
        card: The model card, in Markdown.
    """
    test = evaluation.metrics["test"]
    body = [
        _head(manifest, test, len(evaluation.metrics["events"])),
        *([_gate(gate)] if gate is not None else []),
        _figures(evaluation.metrics, events),
        _more_figures(evaluation.metrics),
        *([_classes(classes)] if (classes := evaluation.metrics["classes"]) else []),
        '<div class="pair">',
        _training(training),
        _precision_recall(evaluation, test),
        _reliability(evaluation, test),
        _confusion(evaluation.test_patches),
        "</div>",
        data_section(data),
        _patches(evaluation.test_patches, events, model),
        _provenance(manifest, events),
        *([_card(card)] if card else []),
    ]
    write_text(path, page("Flood model: evaluation", body))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _head(manifest: ModelManifest, test: dict[str, Any], events: int) -> str:
    tiles = "".join(
        tile(
            f"{label} of wet pixels",
            _number(test[key]),
            _interval(test, key)
            + " · ".join(f"{name} {_number(test[prefix + key])}" for name, prefix in BASELINES),
        )
        for label, key in (
            ("IoU", "iou"),
            ("F1", "f1"),
            ("Precision", "precision"),
            ("Recall", "recall"),
        )
    )
    made = f"{manifest.created:%Y-%m-%d %H:%M} UTC from commit {manifest.commit[:12]}"
    of = "one event" if events == 1 else f"{events} events"
    scored = f"{test['patches']} test patches of {of}, {test['pixels']:,} labelled pixels"
    return (
        "<header><h1>Flood model: evaluation</h1>"
        f"<p>Made {made}. Scored on {scored}, none of which was used in training.</p></header>"
        f'<div class="tiles">{tiles}</div>'
    )


def _gate(rows: Sequence[Mapping[str, str]]) -> str:
    word = "passed" if all(row["verdict"] == "passed" for row in rows) else "refused"
    header = tuple(name.capitalize() for name in rows[0])
    checks = table(header, [tuple(row.values()) for row in rows], kind="plain")
    return section(f"Gate: {word}", checks, kind=word)


def _figures(metrics: dict[str, Any], events: list[EventPatches]) -> str:
    names = {opened.event.id: opened.event.name for opened in events}
    rows = [("All test patches", metrics["test"])]
    rows += [
        (f"{event} ({names.get(event, 'unknown')}){mark}", row)
        for part, mark in (("events", ""), ("held_out", ", held out"))
        for event, row in metrics[part].items()
    ]
    header = ("", "Patches", "Wet", "IoU", "F1", "Precision", "Recall", "Mean IoU")
    baselines = tuple(f"{name} {figure}" for name, _ in BASELINES for figure in ("IoU", "F1"))
    cells = [
        (
            name,
            str(row["patches"]),
            _percent(row["wet_share"]),
            *(_number(row[key]) for key in ("iou", "f1", "precision", "recall", "mean_iou")),
            *(_number(row[prefix + key]) for _, prefix in BASELINES for key in ("iou", "f1")),
        )
        for name, row in rows
    ]
    explained = note(
        "Counts are pooled over pixels; mean IoU is that of wet and of dry pixels. Otsu: a "
        "threshold for each patch, on VV. Fitted: one threshold, "
        f"{metrics['fitted_threshold']:.2f}, on the 5×5 mean of VV, the best one on the training "
        "patches. A dash stands where a figure has no denominator. An event that is held out is "
        "seen by no training at all, and is no part of the test patches."
    )
    return section(
        "The model beside two thresholds",
        table((*header, *baselines), cells, kind="pooled"),
        explained,
    )


def _interval(figures: dict[str, Any], key: str) -> str:
    low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
    return "" if low is None else f"95 % in {_number(low)} to {_number(high)} · "


def _with_interval(figures: dict[str, Any], key: str) -> str:
    low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
    between = "" if low is None else f" ({_number(low)} to {_number(high)})"
    return f"{_number(figures[key])}{between}"


def _more_figures(metrics: dict[str, Any]) -> str:
    """Tell what pooled figures hide: single patches, borders, areas, and kinds of ground."""
    test = metrics["test"]
    methods = (("Model", ""), *BASELINES)
    rows = [
        (label, *(tell(test[prefix + key]) for _, prefix in methods))
        for label, key, tell in (
            ("Accuracy", "accuracy", _number),
            ("IoU of a patch, mean", "patch_iou", _number),
            ("Mean IoU of wet and dry of a patch, mean", "patch_mean_iou", _number),
            ("Boundary F1, within 2 pixels", "boundary_f1", _number),
            ("Mean distance of borders, pixels", "boundary_distance_px", _number),
            ("Mean distance of borders, metres", "boundary_distance_m", _number),
            ("Area error", "area_error", _percent),
        )
    ]
    rows += [
        (label, *(_with_interval(part, f"{prefix}{key}") for _, prefix in methods))
        for label, key, part in _parts(metrics)
    ]
    explained = note(
        "Intervals (95 %) are drawn from blocks of 2×2 patches of ground by bootstrap, "
        f"{test['blocks']} of them in all. The area error is what was said too much, as a share of "
        "the wet area; below 0 too little."
    )
    header = ("", *(name for name, _ in methods))
    return section("Patches, borders, areas", table(header, rows), explained)


def _parts(metrics: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    parts = [
        (f"IoU of {number} patches that are {WET_SHARE_TITLES[kind]} wet", "iou", found)
        if found["wet_share"]
        else (
            f"Accuracy on {number} dry patches: what is missing is false alarm",
            "accuracy",
            found,
        )
        for kind, found in metrics["wet_shares"].items()
        if (number := found["patches"])
    ]
    outside = metrics["outside_permanent_water"]
    return parts + ([("IoU outside permanent water", "iou", outside)] if outside else [])


def _classes(classes: dict[str, float | None]) -> str:
    rows = [(name, _number(iou)) for name, iou in classes.items()]
    return section(
        "Kinds of ground",
        table(("Class", "IoU"), rows),
        note("Each test pixel has the class with the largest logit. All else here is of water."),
    )


def _training(training: pd.DataFrame) -> str:
    minutes = training["seconds"].max() / 60
    rate = training["learning_rate"].max()
    caption = f"{len(training)} epochs in {minutes:.1f} minutes; learning rate up to {rate:.2g}."
    curves = (figures.training_curves(training), "Training loss and validation IoU by epoch")
    return section("Training", images([curves], caption))


def _precision_recall(evaluation: Evaluation, test: dict[str, Any]) -> str:
    curve = figures.precision_recall_curve(
        evaluation.precision_recall,
        precision=test["precision"],
        recall=test["recall"],
        threshold=test["threshold"],
    )
    caption = "The threshold was chosen on validation patches."
    return section(
        "Precision and recall", images([(curve, "Precision over recall, test pixels")], caption)
    )


def _reliability(evaluation: Evaluation, test: dict[str, Any]) -> str:
    curve = (figures.reliability_curve(evaluation.reliability), "Share of wet pixels, test patches")
    off = "unknown" if test["ece"] is None else f"{100 * test['ece']:.1f} points"
    caption = f"On the dashed line probabilities are honest; on average they are off by {off}."
    return section("Reliability", images([curve], caption))


def _confusion(patches: pd.DataFrame) -> str:
    tp, fp, fn, tn = (int(patches[name].sum()) for name in ("tp", "fp", "fn", "tn"))
    rows = [
        ("truly wet", *_with_share((tp, fn)), f"{tp + fn:,}"),
        ("truly dry", *_with_share((fp, tn)), f"{fp + tn:,}"),
    ]
    return section(
        "Confusion matrix, test pixels",
        table(("", "called wet", "called dry", "pixels"), rows),
        note("Shares are of the truly wet, and of the truly dry pixels."),
    )


def _with_share(counts: tuple[int, int]) -> list[str]:
    whole = sum(counts)
    return [f"{count:,} ({_percent(count / whole if whole else None)})" for count in counts]


def _patches(patches: pd.DataFrame, events: list[EventPatches], model: FloodModel) -> str:
    by_id = {opened.event.id: opened for opened in events}
    shown = []
    for row in best_median_worst(patches).to_dict("records"):
        opened, position = by_id[row["event"]], int(row["position"])
        shown.append(
            images(
                panel(opened, position, model),
                f"{row['place']}: {row['id']}, IoU {row['iou']:.3f}; {row['tp']:,} hits, "
                f"{row['fp']:,} false alarms, {row['fn']:,} misses",
            )
        )
    colours = [(name, figures.COLOURS[name]) for name in figures.COLOURS]
    explained = note(
        "Radar (VV), truth, and prediction. Chosen by IoU among the patches of which at least "
        f"{_percent(WORTH_SHOWING)} is wet or was called wet."
    )
    return section(
        "Best, median and worst test patches", legend(colours), *shown, explained, kind="patches"
    )


def _card(text: str) -> str:
    shown = from_markdown(text)
    return (
        f'<section class="card"><details><summary>Model card</summary>{shown}</details></section>'
    )


def _provenance(manifest: ModelManifest, events: list[EventPatches]) -> str:
    by_id = {opened.event.id: opened.event for opened in events}
    rows = []
    for item in manifest.trained_on:
        event = by_id.get(item.event)
        rows.append(
            (
                item.event,
                event.name if event else "–",
                f"{event.acquired or '–'}" if event else "–",
                event.region or "–" if event else "–",
                item.index_sha256,
            )
        )
    names = channels(manifest.input, manifest.bands)
    normalisation = ", ".join(
        f"{name.replace('_', ' ')} {mean:.2f} ± {std:.2f}"
        for name, mean, std in zip(names, manifest.mean, manifest.std, strict=True)
    )
    how = manifest.input.normalisation.replace("_", " ")
    if manifest.input.speckle_filter != "none":
        how += f", {manifest.input.speckle_filter.replace('_', ' ')} filter"
    facts = [
        ("network", manifest.network.sentence()),
        ("input", f"{', '.join(manifest.bands)} in {manifest.units}; {how}: {normalisation}"),
        ("loss", manifest.loss.sentence() + (f"; {manifest.advice}" if manifest.advice else "")),
        ("answers", f"{manifest.label}, where the probability is {manifest.threshold:.3f} or more"),
        ("commit", manifest.commit),
        ("params.yaml", f"sha256 {manifest.params_sha256}"),
        ("sarflood", manifest.sarflood),
    ]
    return section(
        "What it was made of",
        table(("Event", "Name", "Acquired", "Region", "Index sha256"), rows, kind="plain"),
        table(("", ""), facts, kind="plain"),
    )
