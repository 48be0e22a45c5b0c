"""Pictures of test patches: what the radar saw, the truth, and what the model says."""

from __future__ import annotations

import re

import pandas as pd

from sarflood.evaluation import figures
from sarflood.evaluation.examples import worst
from sarflood.evaluation.inputs import backscatter, model_bands
from sarflood.model.package import FloodModel
from sarflood.patches.store import EventPatches

_LEGEND = (
    "Truth: wet is blue, unknown grey. Prediction: a hit is green, a false alarm orange, a miss "
    "yellow."
)
MOST = 3  # that are shown, each about 100 kB


def panel(opened: EventPatches, position: int, model: FloodModel) -> list[tuple[str, str]]:
    """Return the pictures of a patch, each a data URI with its title."""
    bands = model_bands(opened, model.manifest)
    image = opened.images[position : position + 1, bands]
    scaling = model.scaling_of(opened.images[:, bands])
    predicted = model.masks(model.probabilities(image, scaling))[0]
    shown = [(figures.radar_image(backscatter(opened, position)), "radar, VV")]
    if opened.masks is not None:
        truth = opened.masks[position]
        shown.append((figures.truth_image(truth), "truth"))
        shown.append((figures.verdict_image(predicted, truth), "prediction"))
    return shown


def worst_patches(patches: pd.DataFrame, events: list[EventPatches], model: FloodModel) -> str:
    """Return Markdown with pictures of the worst test patches; it loads nothing.

    Args:
        patches: `Evaluation.test_patches`.
        events: The events that these are of.
        model: The model, which answers the patches that are shown.
    """
    by_id = {opened.event.id: opened for opened in events}
    parts = [_LEGEND]
    for row in worst(patches, MOST).to_dict("records"):
        shown = panel(by_id[row["event"]], int(row["position"]), model)
        counts = f"{row['tp']:,} hits, {row['fp']:,} false alarms, {row['fn']:,} misses"
        lines = (
            [title for _, title in shown],
            ["---"] * len(shown),
            [f"![{title}]({uri})" for uri, title in shown],
        )
        parts += [
            f"### {_escaped(row['id'])}",
            f"IoU {row['iou']:.3f}; {counts}",
            "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        ]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)
