"""The model card: what a version is, what it was made of, how well it does."""

from __future__ import annotations

from typing import Any

from sarflood.model.package import ModelManifest
from sarflood.promotion.gate import Verdict

_INTENDED = """\
Maps flood water in Sentinel-1 scenes of the bands and units below. Made for a first look within
minutes of an acquisition; not for single buildings, flooded forest, or steep terrain without a
check by a person."""


def model_card(manifest: ModelManifest, evaluation: dict[str, Any], verdict: Verdict) -> str:
    """Return `card.md`."""
    rows = {"all test patches": evaluation.get("test", {}), **evaluation.get("events", {})}
    figures = [
        f"| {name} | {_number(row.get('iou'))} | {_number(row.get('f1'))} | "
        f"{_number(row.get('precision'))} | {_number(row.get('recall'))} | "
        f"{_number(row.get('otsu_iou'))} | {_number(row.get('fitted_threshold_iou'))} |"
        for name, row in rows.items()
    ]
    classes = evaluation.get("classes")
    checks = [
        f"| {check.name} | {_number(check.observed)} | {_number(check.threshold)} | "
        f"{'passed' if check.passed else 'refused'} |"
        for check in verdict.checks
    ]
    began = manifest.started_from
    events = [f"- `{item.event}` (index {item.index_sha256[:12]})" for item in manifest.trained_on]
    return "\n".join(
        [
            "# flood-unet",
            "",
            _INTENDED,
            "",
            f"- bands: {', '.join(manifest.bands)} in {manifest.units}; mask: {manifest.label}",
            f"- {manifest.network.sentence()}",
            f"- loss: {manifest.loss.sentence()}",
            *([f"- began with the weights of {began}"] if began else []),
            *([f"- why this loss: {manifest.advice}"] if manifest.advice else []),
            f"- threshold {manifest.threshold:.3f}, calibrated on validation patches",
            f"- made {manifest.created:%Y-%m-%d %H:%M} UTC by sarflood {manifest.sarflood}",
            f"- commit {manifest.commit[:12]}",
            "",
            "## Trained on",
            "",
            *events,
            "",
            "## Test patches, apart in space from the training patches",
            "",
            "| | IoU | F1 | precision | recall | Otsu IoU | fitted threshold IoU |",
            "|---|---|---|---|---|---|---|",
            *figures,
            *([f"\nIoU of each class: {_classes(classes)}"] if classes else []),
            "",
            f"## Gate: {'passed' if verdict.passed else 'refused'}",
            "",
            "| check | observed | needed | |",
            "|---|---|---|---|",
            *checks,
            "",
        ]
    )


def _classes(classes: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {_number(iou)}" for name, iou in classes.items())


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.3f}"
