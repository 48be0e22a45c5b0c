"""Fit a U-Net with Lightning: AdamW, one cycle of the learning rate, averaged weights.

The best epoch is kept. A training that was killed goes on after its last whole epoch.
"""

from __future__ import annotations

import copy
import datetime as dt
import logging
import math
import os
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
from numpy.typing import NDArray
from torch import Tensor

from sarflood import __version__
from sarflood.errors import InputError, SarfloodError
from sarflood.model.advice import advise
from sarflood.model.allocator import keep_large_buffers
from sarflood.model.inputs import fill, fixed_scaling, standardise
from sarflood.model.losses import CombinedLoss, build_loss
from sarflood.model.package import FloodModel, ModelManifest, TrainedOn
from sarflood.model.unet import UNet, channels_last, mean_logits
from sarflood.params import InputParams, LossParams, Params, TrainParams
from sarflood.patches.augment import augment
from sarflood.patches.crops import CropLoader
from sarflood.patches.loader import LabelledPatches, band_statistics
from sarflood.raster.patch import DRY, WET
from sarflood.sources.event import Event
from sarflood.training.calibrate import BINS, Calibration, calibrate, count_logits
from sarflood.training.checkpoint import (
    Checkpoint,
    State,
    optimizer_state,
    part,
    prefixed,
    restore_optimizer,
    weights,
)
from sarflood.training.curve import Epoch
from sarflood.training.start import Start

WARM_UP = 0.1  # share of the training in which the learning rate rises
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Fitted:
    """The network of the best epoch (in evaluation mode, on the CPU), and how it came about.

    Attributes:
        network: Takes what `standardise` makes with `mean` and `std`.
        mean: A number a channel.
        std: A number a channel.
        temperature: What logits are divided by.
        threshold: The probability from which on a pixel is wet.
        loss: What it was trained with.
        advice: Why, where the loss was chosen by the masks.
        started_from: Whose weights it began with.
        epochs: A row an epoch, see `Epoch`.
    """

    network: UNet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float
    threshold: float
    loss: LossParams
    advice: str | None
    started_from: str | None
    epochs: pd.DataFrame

    def model(
        self,
        event: Event,
        params: Params,
        *,
        trained_on: tuple[TrainedOn, ...] = (),
        params_sha256: str = "",
        commit: str = "",
    ) -> FloodModel:
        """Return the model, with what it was made of.

        Args:
            event: One that it was trained on: says bands, units and label.
            params: The settings that it was trained with.
            trained_on: The events.
            params_sha256: Of `params.yaml`.
            commit: Of the code.
        """
        manifest = ModelManifest(
            bands=event.bands,
            units=event.units,
            label=str(event.label),
            network=params.model,
            input=params.input,
            mean=self.mean,
            std=self.std,
            temperature=self.temperature,
            threshold=self.threshold,
            loss=self.loss,
            advice=self.advice,
            started_from=self.started_from,
            trained_on=trained_on,
            params_sha256=params_sha256,
            commit=commit,
            sarflood=__version__,
            created=dt.datetime.now(dt.UTC).replace(microsecond=0),
        )
        return FloodModel(manifest, self.network)


def fit(
    train: LabelledPatches,
    val: LabelledPatches,
    bands: tuple[str, ...],
    params: Params,
    on_epoch: Callable[[Epoch], object],
    checkpoint: Checkpoint | None = None,
    start: Start | None = None,
) -> Fitted:
    """Train until `epochs` or `max_minutes` is reached, or `patience` is at its end.

    After each epoch the average of the weights is scored on the validation patches. The learning
    rate follows the share of the training that is done. Where time will not do for all epochs, it
    is planned anew after each epoch for those that fit in, so that it ends near zero in either
    case. Deterministic by seed on one kind of CPU as long as time does not bind, also where a
    training was killed and goes on.

    Args:
        train: Training patches.
        val: Validation patches.
        bands: Their bands.
        params: All settings.
        on_epoch: Is told each epoch that is done, also those of before.
        checkpoint: Where the state is kept from epoch to epoch, and looked for at the start.
        start: Weights to begin with; by default random ones.

    Raises:
        InputError: There are no training or no validation patches, or `start` is of another kind of
            network.
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
    advice = advise(train.masks) if params.loss.auto else None
    chosen = params.loss.model_copy(update={"terms": advice.terms}) if advice else params.loss
    mean, std = _scale(train, params.input, bands)
    network = UNet(len(mean), params.model)
    if start:
        start.into(network, bands, params.input)
        mean, std = start.scale(bands, params.input, mean, std)
    loader = CropLoader(
        train,
        params.train,
        distances="boundary" in chosen.terms,
        device=torch.device(f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"),
    )
    loss = build_loss(chosen, [int(np.count_nonzero(train.masks == k)) for k in (DRY, WET)])
    module = _Training(network, loss, mean, std, params, loader, val, on_epoch, checkpoint)
    module.resume()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        if not module.finished:
            _trainer(params.train.epochs - len(module.curve), params.train).fit(module, loader)
    network.load_state_dict(module.best_weights)
    calibration = module.calibrated(network.eval(), params.model.flips)
    return Fitted(
        network=network.cpu().eval(),
        mean=mean,
        std=std,
        temperature=calibration.temperature,
        threshold=calibration.threshold,
        loss=chosen,
        advice=advice.reason if advice else None,
        started_from=start.name if start else None,
        epochs=pd.DataFrame([asdict(epoch) for epoch in module.curve]),
    )


def local_rank() -> int:
    """Return which of the processes of a training this is; the one that started it is 0.

    The others run the same program from its beginning, and write nothing.
    """
    return int(os.environ.get("LOCAL_RANK", "0"))


def _scale(
    train: LabelledPatches, params: InputParams, bands: tuple[str, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what becomes 0 and 1 in the network's input; patches scaled already stay."""
    if params.normalisation in ("training", "both"):
        return band_statistics(train)
    if params.normalisation == "fixed_db":
        return fixed_scaling(params, bands)
    return (0.0,) * len(bands), (1.0,) * len(bands)


def _trainer(epochs: int, params: TrainParams) -> L.Trainer:
    # bfloat16 only on a GPU that has it: on a CPU without AMX it is 20 times slower.
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return L.Trainer(
        accelerator="auto",
        devices=params.processes,
        strategy="ddp" if params.processes > 1 else "auto",
        precision="bf16-mixed" if half else "32-true",
        max_epochs=epochs,
        gradient_clip_val=GRADIENT_NORM,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )


class _Training(L.LightningModule):
    """The network with its loss and schedule; keeps the weights of the best epoch."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: UNet,
        loss: CombinedLoss,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        params: Params,
        loader: CropLoader,
        val: LabelledPatches,
        on_epoch: Callable[[Epoch], object],
        checkpoint: Checkpoint | None,
    ) -> None:
        super().__init__()
        self.network = channels_last(network)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.loss = loss
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self._params, self._augment = params.train, params.augment
        self._loader, self._val = loader, val
        self._on_epoch, self._checkpoint = on_epoch, checkpoint
        self._optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=params.train.learning_rate,
            weight_decay=params.train.weight_decay,
        )
        self._losses: list[Tensor] = []
        self._steps, self._done = 0, 0.0
        self._start = time.monotonic()
        self._planned_epochs = params.train.epochs
        self.curve: list[Epoch] = []
        self.best: Epoch
        self.best_weights: dict[str, Tensor] = {}
        self.finished = False
        self._share = 0, 1  # which of how many processes this is, while it trains

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one of this very training."""
        found = self._checkpoint.load() if self._checkpoint else None
        if found is None:
            return
        state, self.curve = found
        self.network.load_state_dict(part("network", state))
        self.average.load_state_dict(part("average", state))
        self.best_weights = part("best", state)
        restore_optimizer(self._optimizer, part("optimizer", state))
        self.best = max(self.curve, key=lambda epoch: epoch.val_iou)
        self._steps = len(self.curve) * len(self._loader)
        self._start -= self.curve[-1].seconds
        for epoch in self.curve:
            self._on_epoch(epoch)
            self._plan(epoch)

    def on_train_epoch_start(self) -> None:
        epoch = len(self.curve)
        self._share = self.global_rank, self.trainer.world_size
        self._loader.set_epoch(epoch, self.global_rank)
        # All that is drawn in an epoch follows from its number, so that it can be drawn again.
        seed = self._params.seed * 10_007 + epoch
        torch.manual_seed(seed)
        # What is drawn for crops differs between processes; the weights begin alike.
        own = seed + 1_000_003 * self.global_rank
        self._random = torch.Generator(self.device).manual_seed(own)
        self._losses = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        epochs = len(self.curve) + batch_idx / len(self._loader)
        self._done = min(epochs / self._planned_epochs, 1.0)
        rate = self._params.learning_rate * _one_cycle(self._done)
        self._optimizer.param_groups[0]["lr"] = rate

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:  # noqa: ARG002
        images, masks, *distance = batch
        inputs = standardise(images, self.mean, self.std)
        inputs, masks = augment(inputs, masks, self._augment, self._random)
        loss: Tensor = self.loss(self.network(fill(inputs)), masks, *distance, done=self._done)
        self._losses.append(loss.detach())
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Move the averaged weights towards the present ones; at the beginning faster."""
        self._steps += 1
        decay = min(self._params.ema, self._steps / (self._steps + 10))
        pairs = zip(
            self.average.state_dict().values(), self.network.state_dict().values(), strict=True
        )
        for average, present in pairs:
            if average.is_floating_point():
                average.lerp_(present, 1 - decay)
            else:
                average.copy_(present)

    def on_train_epoch_end(self) -> None:
        strategy = self.trainer.strategy
        loss = float(strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean"))
        number = len(self.curve) + 1
        if not math.isfinite(loss):
            raise SarfloodError(
                f"training diverged in epoch {number}: the loss is {loss}; lower "
                "train.learning_rate in params.yaml"
            )
        counts = torch.from_numpy(self._count(self.average)).to(self.device)
        found = calibrate(strategy.reduce(counts, reduce_op="sum").cpu().numpy())
        epoch = Epoch(
            epoch=number,
            # All processes plan by the clock of the first one.
            seconds=strategy.broadcast(round(time.monotonic() - self._start, 2)),
            train_loss=loss,
            val_iou=found.iou,
            temperature=found.temperature,
            threshold=found.threshold,
            learning_rate=self._optimizer.param_groups[0]["lr"],
        )
        if not self.curve or epoch.val_iou > self.best.val_iou:
            self.best, self.best_weights = epoch, weights(self.average)
        self.curve.append(epoch)
        if self.trainer.is_global_zero:
            if self._checkpoint:
                self._checkpoint.save(self._state(), self.curve)
            self._on_epoch(epoch)
        self._plan(epoch)
        self.trainer.should_stop = self.finished

    def _state(self) -> State:
        return {
            **prefixed("network", self.network.state_dict()),
            **prefixed("average", self.average.state_dict()),
            **prefixed("best", self.best_weights),
            **prefixed("optimizer", optimizer_state(self._optimizer)),
        }

    def _plan(self, last: Epoch) -> None:
        """Fit the number of epochs to the time that is left; end where nothing gets better."""
        left = self._params.max_minutes * 60 - last.seconds
        fitting = last.epoch + int(left / (last.seconds / last.epoch))
        self._planned_epochs = min(self._params.epochs, max(fitting, last.epoch))
        waited = last.epoch - self.best.epoch
        self.finished = last.epoch >= self._planned_epochs or waited >= self._params.patience

    def calibrated(self, network: UNet, flips: int) -> Calibration:
        """Calibrate a network whose answers are averaged over flips, after the training."""
        self._share = 0, 1
        return calibrate(self._count(network, flips))

    @torch.no_grad()
    def _count(self, network: UNet, flips: int = 1) -> NDArray[np.int64]:
        """Count the logits of the validation patches, of this process's share while it trains."""
        counts = np.zeros((2, BINS), np.int64)
        rank, world = self._share
        step = self._params.batch_size
        for start in range(rank * step, len(self._val), world * step):
            images = torch.from_numpy(self._val.images[start : start + step]).to(self.device)
            masks = torch.from_numpy(self._val.masks[start : start + step]).to(self.device)
            inputs = fill(standardise(images, self.mean, self.std))
            counts += count_logits(mean_logits(network, inputs, flips), masks)
        return counts


def _one_cycle(done: float) -> float:
    """Return the factor of the learning rate: a linear rise, then a cosine down to zero.

    One-cycle policy of Smith (2018), https://arxiv.org/abs/1803.09820, without its momentum part.
    """
    if done < WARM_UP:
        return 0.05 + 0.95 * done / WARM_UP
    rest = min((done - WARM_UP) / (1 - WARM_UP), 1.0)
    return 0.5 * (1 + math.cos(math.pi * rest))
