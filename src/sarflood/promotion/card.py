"""The model card: what a version is, what it was made of, how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sarflood.evaluation.evaluate import Evaluation
from sarflood.evaluation.pooled import WET_SHARE_TITLES
from sarflood.model.package import ModelManifest
from sarflood.promotion.gate import Verdict
from sarflood.sources.event import Event

Figures = Mapping[str, Any]

_INTENDED = """\
Maps flood water in Sentinel-1 scenes of the bands and units below. Made for a first look within
minutes of an acquisition; not for single buildings, flooded forest, or steep terrain without a
check by a person."""


def model_card(
    manifest: ModelManifest, evaluation: Evaluation, verdict: Verdict, events: Sequence[Event]
) -> str:
    """Return `card.md`.

    Args:
        manifest: The model's manifest.
        evaluation: What was found on the test patches.
        verdict: The gate's.
        events: The events of the workspace, for their sources and licences.
    """
    metrics = evaluation.metrics
    rows = {"all test patches": metrics["test"], **metrics["events"]}
    rows |= {f"{name} (held out)": row for name, row in metrics["held_out"].items()}
    classes = metrics["classes"]
    return "\n".join(
        [
            "# flood-unet",
            "",
            _INTENDED,
            "",
            f"- bands: {', '.join(manifest.bands)} in {manifest.units}; mask: {manifest.label}",
            f"- {manifest.network.sentence()}",
            f"- loss: {manifest.loss.sentence()}",
            *([f"- why this loss: {manifest.advice}"] if manifest.advice else []),
            _calibration(manifest, metrics["test"]),
            "",
            "## Trained on",
            "",
            *_table(
                ("event", "acquired", "region", "source", "licence", "index"),
                _data(manifest, events),
            ),
            "",
            "## Test patches, apart in space from the training patches",
            "",
            *_table(
                (
                    "",
                    "IoU (95 % in)",
                    "F1",
                    "precision",
                    "recall",
                    "Otsu IoU",
                    "fitted threshold IoU",
                ),
                [_figures(name, row) for name, row in rows.items()],
            ),
            *([f"\nIoU of each class: {_classes(classes)}"] if classes else []),
            "",
            "## Known weaknesses",
            "",
            *_weaknesses(metrics, evaluation.test_patches),
            "",
            f"## Gate: {'passed' if verdict.passed else 'refused'}",
            "",
            *_table(
                ("check", "observed", "needed", "verdict", "note"),
                [tuple(check.row().values()) for check in verdict.checks],
            ),
            "",
            "## Lineage",
            "",
            f"- made {manifest.created:%Y-%m-%d %H:%M} UTC by sarflood {manifest.sarflood}",
            f"- from commit {manifest.commit[:12]}, settings {manifest.params_sha256[:12]}",
            f"- weights {verdict.candidate[:12]}",
            f"- judged against {verdict.champion or 'no champion'}",
            *(
                [f"- began with the weights of {manifest.started_from}"]
                if manifest.started_from
                else []
            ),
            "",
        ]
    )


def _calibration(manifest: ModelManifest, test: Figures) -> str:
    return (
        f"- threshold {manifest.threshold:.3f} and temperature {manifest.temperature:.3f}, "
        "calibrated on validation patches; expected calibration error on the test patches "
        f"{_number(test['ece'])}"
    )


def _data(manifest: ModelManifest, events: Sequence[Event]) -> list[tuple[str, ...]]:
    known = {event.id: event for event in events}
    rows: list[tuple[str, ...]] = []
    for item in manifest.trained_on:
        event = known[item.event]
        source = (
            f"[{event.source.name}]({event.source.url})" if event.source.url else event.source.name
        )
        rows.append(
            (
                item.event,
                str(event.acquired or "unknown"),
                event.region or "unknown",
                source,
                event.source.licence or "unknown",
                item.index_sha256[:12],
            )
        )
    return rows


def _figures(name: str, row: Figures) -> tuple[str, ...]:
    names = ("f1", "precision", "recall", "otsu_iou", "fitted_threshold_iou")
    return (name, _iou(row), *(_number(row[key]) for key in names))


def _iou(row: Figures) -> str:
    """Return the IoU with its 95 % interval."""
    interval = ""
    if row["iou_low"] is not None:
        interval = f" ({row['iou_low']:.3f} to {row['iou_high']:.3f})"
    return f"{_number(row['iou'])}{interval}"


def _weaknesses(metrics: Figures, patches: pd.DataFrame) -> list[str]:
    """Say where it does worst: by event, by wet share, by patch, and where a baseline is better."""
    said = []
    wet_shares = {
        title: metrics["wet_shares"][name]
        for name, title in WET_SHARE_TITLES.items()
        if name in metrics["wet_shares"]
    }
    for kind, rows in (("event", metrics["events"]), ("wet share", wet_shares)):
        scored = {name: row for name, row in rows.items() if row["iou"] is not None}
        if len(scored) > 1:
            worst = min(scored, key=lambda name: float(scored[name]["iou"]))
            row = scored[worst]
            said.append(f"- worst {kind}: {worst}, IoU {_iou(row)} on {row['patches']} patches")
    dry = metrics["wet_shares"].get("0")
    if dry and dry["accuracy"] is not None:
        said.append(
            f"- of patches without water, {1 - dry['accuracy']:.2%} of the pixels are called wet"
        )
    outside = metrics["outside_permanent_water"]
    if outside:
        said.append(f"- outside permanent water: IoU {_iou(outside)}")
    for name, row in {"all test patches": metrics["test"], **metrics["events"]}.items():
        for title, key in (
            ("Otsu's threshold", "otsu_iou"),
            ("a fitted threshold", "fitted_threshold_iou"),
        ):
            if row["iou"] is not None and row[key] is not None and row[key] > row["iou"]:
                said.append(f"- {title} is better on {name}: {_number(row[key])}")
    wet = patches[patches["wet_share"] > 0].nsmallest(3, "iou")
    named = ", ".join(f"{row.id} ({row.iou:.3f})" for row in wet.itertuples())
    return [*said, f"- worst patches: {named or 'none with water'}"]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    # What comes from outside may hold a bar or a line break.
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [list(header), ["---"] * len(header), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _classes(classes: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {_number(iou)}" for name, iou in classes.items())


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.3f}"
