"""Batches for training: crops of the patches, drawn by a plan and cut on the device in one step.

What an epoch shows depends on the seed and its number alone, so a training that was killed sees the
same crops when it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarflood.params import TrainParams
from sarflood.patches.distance import signed_distance
from sarflood.patches.loader import LabelledPatches
from sarflood.patches.room import MEMORY_SHARE, room
from sarflood.raster.patch import PATCH, UNKNOWN, WET

Batch = tuple[Tensor, ...]
WET_SHARES = (0.0, 0.01, 0.05, 0.2, 0.5)  # upper ends of the classes that sampling balances
MAX_WEIGHT = 10.0  # of a patch against the mean


def sampling_weights(
    patches: LabelledPatches, by_scene: float, by_wet_share: float
) -> NDArray[np.float64]:
    """Return how often each patch is drawn, relative to the mean.

    A patch counts n⁻ᵃ, n being the patches of its scene and a `by_scene`: 0 draws all patches
    alike, 1 all scenes. The same for classes of its wet share.

    Returns:
        (N,) float64 with mean 1 (or less, where patches are capped at 10).
    """
    shares = [(mask == WET).sum() / max((mask != UNKNOWN).sum(), 1) for mask in patches.masks]
    wet = np.array(shares)
    weights = np.ones(len(patches))
    for kinds, power in (
        (patches.scenes, by_scene),
        (np.searchsorted(WET_SHARES, wet), by_wet_share),
    ):
        _, kind, counts = np.unique(kinds, return_inverse=True, return_counts=True)
        weights *= counts[kind] ** -power
    capped: NDArray[np.float64] = np.minimum(weights / weights.mean(), MAX_WEIGHT)
    return capped


@dataclass(frozen=True)
class Plan:
    """The crops of an epoch, (n,) each.

    Attributes:
        items: Patches.
        tops, lefts: Where the crop starts, in pixels.
        symmetries: 0 to 7; bit 0 transposes, bits 1 and 2 flip down and across: the symmetries of
            the square.
    """

    items: NDArray[np.int64]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    symmetries: NDArray[np.int64]

    @classmethod
    def of(cls, weights: NDArray[np.float64], crop: int, seed: int, epoch: int) -> Plan:
        """Draw as many crops as show all pixels once, patches as often as their weight says."""
        random = np.random.default_rng((seed, epoch))
        count = len(weights) * (PATCH // crop) ** 2
        # Systematic sampling: each patch comes its expected number of times, rounded up or down.
        ends = np.cumsum(weights)
        at = (np.arange(count) + random.random()) * ends[-1] / count
        items = random.permutation(np.searchsorted(ends, at, side="right"))
        tops, lefts = random.integers(0, PATCH - crop + 1, (2, count))
        return cls(items, tops, lefts, random.integers(0, 8, count))

    def batch(self, start: int, size: int, rank: int = 0, world: int = 1) -> Plan:
        """Return a part of the plan; of that, every `world`-th crop from `rank` on."""
        chosen = slice(start + rank, start + size, world)
        return Plan(
            self.items[chosen], self.tops[chosen], self.lefts[chosen], self.symmetries[chosen]
        )


def cut(layers: tuple[Tensor, ...], plan: Plan, crop: int) -> Batch:
    """Cut crops out of layers that lie on one device, turned and flipped.

    Args:
        layers: (N, H, W, …) each; `plan.items` counts along N.
        plan: Which crops.
        crop: Their edge in pixels.

    Returns:
        (n, crop, crop, …) of each layer.
    """
    device = layers[0].device
    items, tops, lefts, symmetries = (
        torch.from_numpy(values).to(device, non_blocking=True).view(-1, 1, 1)
        for values in (plan.items, plan.tops, plan.lefts, plan.symmetries)
    )
    steps = torch.arange(crop, device=device)
    down, across = steps.view(1, -1, 1), steps.view(1, 1, -1)
    transposed = (symmetries & 1).bool()
    rows = torch.where(transposed, across, down)
    cols = torch.where(transposed, down, across)
    rows = torch.where((symmetries & 2).bool(), crop - 1 - rows, rows) + tops
    cols = torch.where((symmetries & 4).bool(), crop - 1 - cols, cols) + lefts
    height, width = layers[0].shape[1:3]
    places = ((items * height + rows) * width + cols).flatten()
    shape = (len(plan.items), crop, crop)
    return tuple(
        layer.flatten(0, 2).index_select(0, places).view(*shape, *layer.shape[3:])
        for layer in layers
    )


def thinned(masks: Tensor, water: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Take the labels of permanent water away, but for a share of its pixels.

    Args:
        masks: (n, h, w) uint8.
        water: (n, h, w) uint8, 1 where water stands at all times.
        share: Of its pixels, that keep their label.
        random: On the CPU.
    """
    kept = torch.rand(water.shape, generator=random) < share
    return masks.masked_fill((water == 1) & ~kept.to(water.device), UNKNOWN)


class CropLoader:
    """The batches of one epoch after another.

    Args:
        patches: What to crop from. Where they fit, they are copied to the device once; otherwise a
            thread reads the crops of the next batch while the device works on one.
        params: Crops a batch, their edge, seed, how patches are balanced, how much of permanent
            water is labelled, and how many processes share each batch.
        distances: Whether distances to borders are wanted, of the water or, with more than two
            classes, of each; those are made here.
        device: Where batches lie.
        resident: Whether all patches lie on the device; by default where they take at most 40 % of
            its free memory.

    Yields (n, C, crop, crop) float16 images with NaN, channels last in memory; (n, crop, crop)
    uint8 masks, with 255 also for what of permanent water is not labelled; and, where wanted, int8
    distances, see `signed_distance`: (n, K, crop, crop) of K classes, (n, 1, crop, crop) of the
    water where there are two.
    """

    def __init__(
        self,
        patches: LabelledPatches,
        params: TrainParams,
        *,
        distances: bool = False,
        device: torch.device | None = None,
        resident: bool | None = None,
    ) -> None:
        self._batch_size, self._crop, self._seed = params.batch_size, params.crop, params.seed
        self._device = device or torch.device("cpu")
        self._weights = sampling_weights(patches, params.balance_scenes, params.balance_wet)
        layers: list[NDArray[Any]] = [patches.images.transpose(0, 2, 3, 1), patches.masks]
        self._labelled_water: float | None = None
        if patches.permanent_water is not None and params.permanent_water < 1:
            layers.append(patches.permanent_water)
            self._labelled_water = params.permanent_water
        if distances:
            number = len(patches.classes)
            layers.append(_distances(patches.masks, range(number) if number > 2 else (WET,)))
        self._layers = layers
        size = sum(layer.nbytes for layer in layers)
        if resident is None:
            resident = size <= MEMORY_SHARE * _free_memory(self._device)
        self._resident: tuple[Tensor, ...] | None = None
        if resident:
            self._resident = tuple(_tensor(layer).to(self._device) for layer in layers)
        self._epoch, self._rank, self._world = 0, 0, params.processes

    def __len__(self) -> int:
        crops = len(self._weights) * (PATCH // self._crop) ** 2
        whole, rest = divmod(crops, self._batch_size)
        # A last batch that has no crop for some process is left out.
        return whole + (rest >= self._world)

    def set_epoch(self, epoch: int, rank: int = 0) -> None:
        """Choose the epoch whose crops come next, and which of the processes' shares of them."""
        self._epoch, self._rank = epoch, rank

    def __iter__(self) -> Iterator[Batch]:
        plan = Plan.of(self._weights, self._crop, self._seed, self._epoch)
        plans = [
            plan.batch(number * self._batch_size, self._batch_size, self._rank, self._world)
            for number in range(len(self))
        ]
        batches = self._from_device(plans) if self._resident else self._streamed(plans)
        random = torch.Generator()
        random.manual_seed((self._seed * 10_007 + self._epoch) * self._world + self._rank)
        for images, masks, *rest in batches:
            labels = masks
            if self._labelled_water is not None:
                labels = thinned(masks, rest.pop(0), self._labelled_water, random)
            distances = (layer.permute(0, 3, 1, 2) for layer in rest)
            yield images.permute(0, 3, 1, 2), labels, *distances

    def _from_device(self, plans: list[Plan]) -> Iterator[Batch]:
        for plan in plans:
            yield cut(self._resident or (), plan, self._crop)

    def _streamed(self, plans: list[Plan]) -> Iterator[Batch]:
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, plans[0])
            for plan, following in zip(plans, [*plans[1:], None], strict=True):
                layers = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following)
                on_device = tuple(layer.to(self._device, non_blocking=True) for layer in layers)
                zeros = np.zeros_like(plan.tops)
                at_start = Plan(np.arange(len(zeros)), zeros, zeros, plan.symmetries)
                yield cut(on_device, at_start, self._crop)

    def _read(self, plan: Plan) -> Batch:
        """Read the crops of a batch, not turned yet, into page-locked memory where that helps."""
        crops = [
            np.stack(
                [
                    layer[item, top : top + self._crop, left : left + self._crop]
                    for item, top, left in zip(plan.items, plan.tops, plan.lefts, strict=True)
                ]
            )
            for layer in self._layers
        ]
        tensors = tuple(_tensor(crop) for crop in crops)
        if self._device.type == "cuda":
            tensors = tuple(tensor.pin_memory() for tensor in tensors)
        return tensors


def _distances(masks: NDArray[np.uint8], classes: Sequence[int]) -> NDArray[np.int8]:
    """Return (N, 256, 256, K) signed distances to the borders of K classes."""
    distances = room((*masks.shape, len(classes)), np.int8, None)
    for number, mask in enumerate(masks):
        for place, code in enumerate(classes):
            distances[number, ..., place] = signed_distance(mask, code)
    return distances


def _tensor(layer: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(layer))


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
