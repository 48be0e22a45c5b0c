"""The labelled patches of a part of the split, ready to train on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.model.inputs import event_scaling, prepare
from sarflood.params import InputParams
from sarflood.patches.store import EventPatches
from sarflood.raster.patch import PATCH, TWO_CLASSES

_BATCH = 16


@dataclass(frozen=True)
class LabelledPatches:
    """The labelled patches of one part of the split, over all events.

    Attributes:
        images: (N, C, 256, 256) float16, as `prepare` gives them; NaN no data.
        masks: (N, 256, 256) uint8; codes of `classes`, 255 unknown.
        events: (N,) str, the event of each.
        hashes: (N,) str, the sha256 of each, by which a training knows its data again.
        classes: Names of the codes.
    """

    images: NDArray[np.float16]
    masks: NDArray[np.uint8]
    events: NDArray[np.str_]
    hashes: NDArray[np.str_]
    classes: tuple[str, ...] = TWO_CLASSES

    def __len__(self) -> int:
        return len(self.masks)


def take(
    events: list[EventPatches], split: pd.DataFrame, part: str, params: InputParams
) -> LabelledPatches:
    """Copy the patches of a part into memory, in a fixed order.

    Args:
        events: All events; those with patches in the part have the same classes.
        split: `id` and `split`, a row a patch.
        part: `train`, `val` or `test`.
        params: How they are filtered and scaled.
    """
    chosen = set(split.loc[split["split"] == part, "id"])
    images, masks, names, hashes = [], [], [], []
    classes: tuple[str, ...] = TWO_CLASSES
    for patches in events:
        rows = np.flatnonzero(patches.index["id"].isin(chosen))
        if rows.size and patches.masks is not None:
            scaling = event_scaling(patches.images) if params.normalisation == "event" else None
            found = [
                prepare(patches.images[batch], params, scaling)
                for batch in np.array_split(rows, range(_BATCH, rows.size, _BATCH))
            ]
            images.append(np.concatenate(found))
            masks.append(patches.masks[rows])
            classes = patches.event.classes or TWO_CLASSES
            names += [patches.event.id] * rows.size
            hashes += patches.index["sha256"].iloc[rows].tolist()
    if not images:
        bands = len(events[0].event.bands) if events else 0
        images.append(np.empty((0, bands, PATCH, PATCH), np.float16))
        masks.append(np.empty((0, PATCH, PATCH), np.uint8))
    return LabelledPatches(
        np.concatenate(images),
        np.concatenate(masks),
        np.array(names, dtype=np.str_),
        np.array(hashes, dtype=np.str_),
        classes,
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
