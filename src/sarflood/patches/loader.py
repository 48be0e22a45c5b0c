"""The labelled patches of a part of the split, ready to train on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.model.inputs import channels, event_scaling, prepare
from sarflood.params import InputParams
from sarflood.patches.room import room
from sarflood.patches.store import EventPatches
from sarflood.raster.patch import PATCH, TWO_CLASSES

_BATCH = 16


@dataclass(frozen=True)
class LabelledPatches:
    """The labelled patches of one part of the split, over all events.

    Attributes:
        images: (N, C, 256, 256) float16, as `prepare` gives them; NaN no data.
        masks: (N, 256, 256) uint8; codes of `classes`, 255 unknown.
        scenes: (N,) str, the scene of each.
        hashes: (N,) str, the sha256 of each, by which a training knows its data again.
        classes: Names of the codes.
        permanent_water: (N, 256, 256) uint8, 1 where water stands at all times, 0 elsewhere and
            where that is not known; None where no event knows it.
    """

    images: NDArray[np.float16]
    masks: NDArray[np.uint8]
    scenes: NDArray[np.str_]
    hashes: NDArray[np.str_]
    classes: tuple[str, ...] = TWO_CLASSES
    permanent_water: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.masks)

    def counts(self) -> list[int]:
        """Count the pixels of each class."""
        codes = range(len(self.classes))
        return [sum(int((mask == code).sum()) for mask in self.masks) for code in codes]


def take(
    events: list[EventPatches],
    split: pd.DataFrame,
    part: str,
    params: InputParams,
    scratch: Path | None = None,
) -> LabelledPatches:
    """Copy the patches of a part, in a fixed order, into memory or, where they do not fit, a file.

    Args:
        events: All events; those with patches in the part have the same classes.
        split: `id`, `split` and `scene`, a row a patch.
        part: `train`, `val` or `test`.
        params: How they are filtered and scaled.
        scratch: A folder for that file; by default the system's for temporary files.
    """
    scene = split.loc[split["split"] == part].set_index("id")["scene"]
    found = [
        (item, item.masks, np.flatnonzero(item.index["id"].isin(scene.index)))
        for item in events
        if item.masks is not None
    ]
    found = [(item, known, rows) for item, known, rows in found if rows.size]
    count = sum(rows.size for _, _, rows in found)
    first = found[0][0].event if found else None
    bands = len(channels(params, first.bands)) if first else 0
    images = room((count, bands, PATCH, PATCH), np.float16, scratch)
    masks = room((count, PATCH, PATCH), np.uint8, scratch)
    water = None
    if any(item.permanent_water is not None for item, _, _ in found):
        water = room((count, PATCH, PATCH), np.uint8, scratch)
    scenes: list[str] = []
    hashes: list[str] = []
    for item, known, rows in found:
        scaling = event_scaling(item.images) if params.normalisation == "event" else None
        for batch in np.array_split(rows, range(_BATCH, rows.size, _BATCH)):
            place = slice(len(hashes), len(hashes) + batch.size)
            images[place] = prepare(item.images[batch], params, scaling)
            masks[place] = known[batch]
            if water is not None:
                there = item.permanent_water
                water[place] = 0 if there is None else there[batch]
            hashes += item.index["sha256"].iloc[batch].tolist()
            scenes += scene[item.index["id"].iloc[batch]].tolist()
    return LabelledPatches(
        images,
        masks,
        np.array(scenes, dtype=np.str_),
        np.array(hashes, dtype=np.str_),
        (first.classes if first else None) or TWO_CLASSES,
        water,
    )


def band_statistics(patches: LabelledPatches) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each band over all pixels with data."""
    count, total, square = (np.zeros(patches.images.shape[1]) for _ in range(3))
    for image in patches.images:
        values = image.astype(np.float64)
        finite = np.isfinite(values)
        values[~finite] = 0.0
        count += finite.sum(axis=(1, 2))
        total += values.sum(axis=(1, 2))
        square += (values**2).sum(axis=(1, 2))
    mean = total / np.maximum(count, 1)
    std = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 1e-12))
    return tuple(map(float, mean)), tuple(map(float, std))
