"""What a bundle is checked and made with: patches with the model's own answers, and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sarflood.evaluation.inputs import model_bands
from sarflood.files import replacing
from sarflood.model.package import FloodModel
from sarflood.patches.store import EventPatches

RECORDED, CALIBRATION = 4, 8


def write_recorded(
    path: Path, model: FloodModel, events: list[EventPatches], patches: pd.DataFrame
) -> None:
    """Write `recorded.npz`.

    It holds `images` (K, C, 256, 256) float16, in the model's bands and units with NaN for no data,
    `masks` (K, 256, 256) uint8, what the model answers: 0 dry, 1 wet, 255 no data; and `truth`, the
    masks of the events, likewise. K is 4, or fewer where there are fewer test patches: the two
    wettest patches, then those nearest to half wet, half dry; the same ones for the same
    evaluation.

    Args:
        path: Where to write.
        model: The model that was evaluated.
        events: The events that it was evaluated on.
        patches: `Evaluation.patches`.
    """
    by_id = {opened.event.id: opened for opened in events}
    images, truth = [], []
    chosen = _choose(patches[patches["part"] == "test"])
    for event, position in zip(chosen["event"], chosen["position"], strict=True):
        opened = by_id[event]
        images.append(opened.images[position, model_bands(opened, model.manifest)])
        if opened.masks is not None:
            truth.append(opened.masks[position])
    stacked = np.stack(images)
    masks = model.masks(model.probabilities(stacked))
    with replacing(path) as temporary:
        np.savez_compressed(temporary, images=stacked, masks=masks, truth=np.stack(truth))


def write_calibration(
    path: Path, model: FloodModel, events: list[EventPatches], split: pd.DataFrame
) -> None:
    """Write `calibration.npz`: training patches that show what values a network has inside.

    It holds `images` as `recorded.npz` does, up to 8 that are evenly spaced over the training
    patches of all events.

    Args:
        path: Where to write.
        model: The model.
        events: The events that it was trained on.
        split: A row a patch with `id` and `split`.
    """
    training = set(split.loc[split["split"] == "train", "id"])
    rows = [
        (opened, position)
        for opened in events
        for position in np.flatnonzero(opened.index["id"].isin(training))
    ]
    chosen = np.unique(np.linspace(0, len(rows) - 1, CALIBRATION).astype(np.int64))
    images = [
        opened.images[position, model_bands(opened, model.manifest)]
        for opened, position in (rows[number] for number in chosen)
    ]
    with replacing(path) as temporary:
        np.savez_compressed(temporary, images=np.stack(images))


def _choose(patches: pd.DataFrame) -> pd.DataFrame:
    wet = (patches["tp"] + patches["fn"]) / patches[["tp", "fp", "fn", "tn"]].sum(axis=1)
    ranked = patches.assign(wet=wet.fillna(0.0)).sort_values(["wet", "id"], ascending=[False, True])
    wettest, others = ranked.iloc[: RECORDED // 2], ranked.iloc[RECORDED // 2 :]
    mixed = others.assign(from_half=(others["wet"] - 0.5).abs()).sort_values(["from_half", "id"])
    return pd.concat([wettest, mixed.iloc[: RECORDED - len(wettest)]])
