"""Fit a U-Net with Lightning: AdamW, one cycle of the learning rate, best epoch kept."""

from __future__ import annotations

import copy
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sarflood.errors import InputError, SarfloodError
from sarflood.model.allocator import keep_large_buffers
from sarflood.model.histogram import BINS
from sarflood.model.inputs import fixed_scaling
from sarflood.model.losses import CombinedLoss, build_loss
from sarflood.model.package import normalise
from sarflood.model.unet import UNet, channels_last
from sarflood.params import InputParams, Params, TrainParams
from sarflood.patches.loader import CropLoader, LabelledPatches, band_statistics
from sarflood.raster.patch import DRY, WET
from sarflood.training.calibrate import best_threshold, count_by_probability

WARM_UP = 0.1  # share of the training in which the learning rate rises
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Epoch:
    """One row of the training curves; `val_iou` is at the threshold that is best for it."""

    epoch: int
    seconds: float
    train_loss: float
    val_iou: float
    threshold: float
    learning_rate: float


@dataclass(frozen=True)
class Fitted:
    """The network of the best epoch (in evaluation mode, on the CPU), and how it came about."""

    network: UNet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threshold: float
    epochs: pd.DataFrame


def fit(
    train: LabelledPatches,
    val: LabelledPatches,
    bands: tuple[str, ...],
    params: Params,
    on_epoch: Callable[[Epoch], object],
) -> Fitted:
    """Train until `epochs` or `max_minutes` is reached, whichever comes first.

    The learning rate follows the share of the training that is done. Where time will not do for all
    epochs, it is planned anew after each epoch for those that fit in, so that it ends near zero in
    either case. Deterministic by seed on one kind of CPU as long as time does not bind.

    Raises:
        InputError: There are no training or no validation patches.
    """
    for name, patches in (("training", train), ("validation", val)):
        if not len(patches):
            raise InputError(
                f"no {name} patches: the events are too small to be split, or show the ground of "
                "one that is left out or held out; add a larger event, or lower "
                "split.guard_patches in params.yaml"
            )
    if not (val.masks == WET).any():
        raise InputError(
            "no wet pixel in the validation patches, so no threshold can be chosen; add an event "
            "with a flood, or raise split.val_share in params.yaml"
        )
    keep_large_buffers()
    L.seed_everything(params.train.seed, verbose=False)
    torch.set_float32_matmul_precision("high")
    mean, std = _scale(train, params.input, bands)
    network = UNet(train.images.shape[1], params.model)
    loader = CropLoader(
        train,
        batch_size=params.train.batch_size,
        crop=params.train.crop,
        seed=params.train.seed,
        distances="boundary" in params.loss.terms,
    )
    loss = build_loss(params.loss, [int(np.count_nonzero(train.masks == k)) for k in (DRY, WET)])
    module = _Training(network, loss, mean, std, params.train, loader, val, on_epoch)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        _trainer(params.train).fit(module, loader)
    network.load_state_dict(module.best_weights)
    return Fitted(
        network=network.cpu().eval(),
        mean=mean,
        std=std,
        threshold=module.best.threshold,
        epochs=pd.DataFrame([asdict(epoch) for epoch in module.curve]),
    )


def _scale(
    train: LabelledPatches, params: InputParams, bands: tuple[str, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what becomes 0 and 1 in the network's input; patches scaled already stay."""
    if params.normalisation == "training":
        return band_statistics(train)
    if params.normalisation == "fixed_db":
        fixed = fixed_scaling(params, bands)
        return fixed.offset, fixed.scale
    return (0.0,) * len(bands), (1.0,) * len(bands)


def _trainer(params: TrainParams) -> L.Trainer:
    # bfloat16 only on a GPU that has it: on a CPU without AMX it is 20 times slower.
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return L.Trainer(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if half else "32-true",
        max_epochs=params.epochs,
        gradient_clip_val=GRADIENT_NORM,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )


class _Training(L.LightningModule):
    """The network with its loss and schedule; keeps the weights of the best epoch."""

    def __init__(
        self,
        network: UNet,
        loss: CombinedLoss,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        params: TrainParams,
        loader: CropLoader,
        val: LabelledPatches,
        on_epoch: Callable[[Epoch], object],
    ) -> None:
        super().__init__()
        self.network = channels_last(network)
        self.loss = loss
        self._mean = torch.tensor(mean).view(1, -1, 1, 1)
        self._std = torch.tensor(std).view(1, -1, 1, 1)
        self._params, self._val, self._on_epoch = params, val, on_epoch
        self._loader = loader
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
        )
        self._losses: list[Tensor] = []
        self._done = 0.0
        self._start = time.monotonic()
        self._planned_epochs = params.epochs
        self.curve: list[Epoch] = []
        self.best: Epoch
        self.best_weights: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        inputs = normalise(images, self._mean.to(images.device), self._std.to(images.device))
        logits: Tensor = self.network(inputs.contiguous(memory_format=torch.channels_last))
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer

    def on_train_epoch_start(self) -> None:
        self._loader.set_epoch(self.current_epoch)
        self._losses = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        steps = self.current_epoch + batch_idx / len(self._loader)
        self._done = min(steps / self._planned_epochs, 1.0)
        rate = self._params.learning_rate * _one_cycle(self._done)
        self._optimizer.param_groups[0]["lr"] = rate

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:  # noqa: ARG002
        images, masks, *distance = batch
        loss: Tensor = self.loss(self(images), masks, *distance, done=self._done)
        self._losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        threshold, iou = self._validate()
        loss = float(torch.stack(self._losses).mean())
        if not math.isfinite(loss):
            raise SarfloodError(
                f"training diverged in epoch {self.current_epoch + 1}: the loss is {loss}; lower "
                "train.learning_rate in params.yaml"
            )
        epoch = Epoch(
            epoch=self.current_epoch + 1,
            seconds=round(time.monotonic() - self._start, 2),
            train_loss=loss,
            val_iou=iou,
            threshold=threshold,
            learning_rate=self._optimizer.param_groups[0]["lr"],
        )
        if not self.curve or epoch.val_iou > self.best.val_iou:
            self.best = epoch
            self.best_weights = copy.deepcopy(self.network.state_dict())
        self.curve.append(epoch)
        self._on_epoch(epoch)
        self._plan(epoch)

    def _plan(self, last: Epoch) -> None:
        """Fit the number of epochs to the time that is left."""
        left = self._params.max_minutes * 60 - last.seconds
        fitting = last.epoch + int(left / (last.seconds / last.epoch))
        self._planned_epochs = min(self._params.epochs, max(fitting, last.epoch))
        self.trainer.should_stop = last.epoch >= self._planned_epochs

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        self.network.eval()
        counts = np.zeros((2, BINS), np.int64)
        step = self._params.batch_size
        for start in range(0, len(self._val), step):
            images = torch.from_numpy(self._val.images[start : start + step]).to(self.device)
            masks = torch.from_numpy(self._val.masks[start : start + step]).to(self.device)
            counts += count_by_probability(self(images), masks)
        self.network.train()
        return best_threshold(counts)


def _one_cycle(done: float) -> float:
    """Return the factor of the learning rate: a linear rise, then a cosine down to zero.

    One-cycle policy of Smith (2018), https://arxiv.org/abs/1803.09820, without its momentum part.
    """
    if done < WARM_UP:
        return 0.05 + 0.95 * done / WARM_UP
    rest = min((done - WARM_UP) / (1 - WARM_UP), 1.0)
    return 0.5 * (1 + math.cos(math.pi * rest))
