"""Batches for training: random crops of the patches, augmented alike in image and mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sarflood.model.inputs import event_scaling, prepare
from sarflood.params import InputParams
from sarflood.patches.distance import signed_distance
from sarflood.patches.store import EventPatches
from sarflood.raster.patch import PATCH, WET

_BATCH = 16
Batch = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class LabelledPatches:
    """The labelled patches of one part of the split, over all events.

    Attributes:
        images: (N, C, 256, 256) float16, as `prepare` gives them; NaN no data.
        masks: (N, 256, 256) uint8; 0 dry, 1 wet, 255 unknown.
    """

    images: NDArray[np.float16]
    masks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.masks)


def take(
    events: list[EventPatches], split: pd.DataFrame, part: str, params: InputParams
) -> LabelledPatches:
    """Copy the patches of a part into memory, in a fixed order.

    Args:
        events: All events.
        split: `id` and `split`, a row a patch.
        part: `train`, `val` or `test`.
        params: How they are filtered and scaled.
    """
    chosen = set(split.loc[split["split"] == part, "id"])
    images, masks = [], []
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
    if not images:
        bands = len(events[0].event.bands) if events else 0
        return LabelledPatches(
            np.empty((0, bands, PATCH, PATCH), np.float16), np.empty((0, PATCH, PATCH), np.uint8)
        )
    return LabelledPatches(np.concatenate(images), np.concatenate(masks))


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


class CropLoader:
    """Random crops, flipped and turned: an epoch shows as many pixels as the patches have.

    Args:
        patches: What to crop from.
        batch_size: Crops a batch.
        crop: Edge of a crop in pixels.
        seed: The same seed gives the same batches in every epoch of the same number.
        distances: Whether distances to the border of the water are wanted; those are made here.

    Yields (N, C, crop, crop) float16 images with NaN, (N, crop, crop) uint8 masks and, where
    wanted, (N, 1, crop, crop) int8 distances, see `signed_distance`.
    """

    def __init__(
        self,
        patches: LabelledPatches,
        *,
        batch_size: int,
        crop: int,
        seed: int,
        distances: bool = False,
    ) -> None:
        self._patches, self._batch_size, self._crop = patches, batch_size, crop
        self._layers: list[NDArray[Any]] = [patches.images, patches.masks]
        if distances:
            self._layers.append(np.stack([[signed_distance(mask, WET)] for mask in patches.masks]))
        self._seed, self._epoch = seed, 0
        self._crops = len(patches) * (PATCH // crop) ** 2

    def __len__(self) -> int:
        return math.ceil(self._crops / self._batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose crops come next, so that a resumed training sees the same."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng((self._seed, self._epoch))
        repeats = self._crops // len(self._patches)
        order = random.permutation(np.tile(np.arange(len(self._patches)), repeats))
        for start in range(0, len(order), self._batch_size):
            crops = [
                self._crop_of(item, random) for item in order[start : start + self._batch_size]
            ]
            yield tuple(torch.from_numpy(np.stack(layer)) for layer in zip(*crops, strict=True))

    def _crop_of(self, item: int, random: np.random.Generator) -> list[NDArray[Any]]:
        top, left = random.integers(0, PATCH - self._crop + 1, 2)
        turns, flip = int(random.integers(4)), random.integers(2)
        crops = []
        for layer in self._layers:
            crop = layer[item][..., top : top + self._crop, left : left + self._crop]
            crop = np.rot90(crop, turns, axes=(-2, -1))
            crops.append(crop[..., ::-1] if flip else crop)
        return crops
