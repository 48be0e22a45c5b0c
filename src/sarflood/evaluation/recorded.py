"""Recorded examples: a few patches with the model's own answer, for a bundle to repeat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sarflood.evaluation.inputs import model_bands
from sarflood.files import replacing
from sarflood.model.package import FloodModel
from sarflood.patches.store import EventPatches

RECORDED = 4


def write_recorded(
    path: Path, model: FloodModel, events: list[EventPatches], patches: pd.DataFrame
) -> None:
    """Write `recorded.npz`.

    It holds `images` (K, C, 256, 256) float16, in the model's bands and units with NaN for no data,
    and `masks` (K, 256, 256) uint8, what the model answers: 0 dry, 1 wet, 255 no data. K is 4, or
    fewer where there are fewer test patches: the two wettest patches, then those nearest to half
    wet, half dry; the same ones for the same evaluation.

    Args:
        path: Where to write.
        model: The model that was evaluated.
        events: The events that it was evaluated on.
        patches: `Evaluation.patches`.
    """
    by_id = {opened.event.id: opened for opened in events}
    images = []
    chosen = _choose(patches[patches["part"] == "test"])
    for event, position in zip(chosen["event"], chosen["position"], strict=True):
        opened = by_id[event]
        images.append(opened.images[position, model_bands(opened, model.manifest)])
    stacked = np.stack(images)
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary, images=stacked, masks=model.masks(model.probabilities(stacked))
        )


def _choose(patches: pd.DataFrame) -> pd.DataFrame:
    wet = (patches["tp"] + patches["fn"]) / patches[["tp", "fp", "fn", "tn"]].sum(axis=1)
    ranked = patches.assign(wet=wet.fillna(0.0)).sort_values(["wet", "id"], ascending=[False, True])
    wettest, others = ranked.iloc[: RECORDED // 2], ranked.iloc[RECORDED // 2 :]
    mixed = others.assign(from_half=(others["wet"] - 0.5).abs()).sort_values(["from_half", "id"])
    return pd.concat([wettest, mixed.iloc[: RECORDED - len(wettest)]])
