"""The steps of a training: averaged weights are scored after each epoch, the best ones kept."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarflood.errors import SarfloodError
from sarflood.model.inputs import fill, standardise
from sarflood.model.losses import CombinedLoss
from sarflood.model.unet import UNet, channels_last, mean_logits, wet_logits
from sarflood.params import Params
from sarflood.patches.augment import augment
from sarflood.patches.crops import CropLoader
from sarflood.patches.loader import LabelledPatches
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

WARM_UP = 0.1  # share of a cycle in which the learning rate rises
MOST_CYCLES, LEAST_EPOCHS = 4, 3  # the latter of the first one
LAST_EPOCHS = 5  # whose median says how long one takes


class Training(L.LightningModule):
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
        bands: int,
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
        self._params, self._augment, self._bands = params.train, params.augment, bands
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
        # Few patches make few steps an epoch.
        enough = math.ceil(params.train.min_steps / len(loader))
        self._most_epochs = max(params.train.epochs, enough)
        self._planned_epochs = self._most_epochs
        self._before = 0  # epochs, before the cycle that is under way
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
        """Take the crops, and all that is drawn, of this epoch."""
        epoch = len(self.curve)
        self._averaged = _numbers(self.average), _numbers(self.network)
        self._share = self.global_rank, self.trainer.world_size
        self._loader.set_epoch(epoch, self.global_rank)
        # All that is drawn in an epoch follows from its number, so that it can be drawn again.
        seed = self._params.seed * 10_007 + epoch
        torch.manual_seed(seed)
        # What is drawn for crops differs between processes; the weights begin alike.
        own = seed + 1_000_003 * self.global_rank
        self._random = torch.Generator().manual_seed(own)
        self._losses = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return self._optimizer

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Set the learning rate by the share of the training that is done."""
        epochs = len(self.curve) + batch_idx / len(self._loader)
        self._done = min(epochs / self._planned_epochs, 1.0)
        length = self._cycle_end() - self._before
        rate = self._params.learning_rate * one_cycle((epochs - self._before) / length)
        self._optimizer.param_groups[0]["lr"] = rate

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch, augmented."""
        images, masks, *distance = batch
        inputs = standardise(images, self.mean, self.std)
        inputs, masks = augment(inputs, masks, self._augment, self._random, self._bands)
        loss: Tensor = self.loss(self.network(fill(inputs)), masks, *distance, done=self._done)
        self._losses.append(loss.detach())
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Move the averaged weights towards the present ones; at the beginning faster."""
        self._steps += 1
        decay = min(self._params.ema, self._steps / (self._steps + 10))
        average, present = self._averaged
        torch._foreach_lerp_(average, present, 1 - decay)  # as torch.optim.swa_utils does

    def on_train_epoch_end(self) -> None:
        """Score the average of the weights, keep it if it is the best, and plan what is left."""
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
        # All processes plan by the clock of the first one.
        seconds = strategy.broadcast(round(time.monotonic() - self._start, 2))
        epoch = Epoch(
            epoch=number,
            planned=self._fitting(number, seconds),
            seconds=seconds,
            seconds_an_epoch=round(self._pace(seconds), 2),
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

    def _fitting(self, epoch: int, seconds: float) -> int:
        """Return how many epochs there will be, the given one being done after so many seconds."""
        left = self._params.max_minutes * 60 - seconds
        more = max(int(left / max(self._pace(seconds), 0.01)), 0)
        return min(self._most_epochs, epoch + more)

    def _pace(self, seconds: float) -> float:
        """Return the seconds that an epoch takes, the last one having ended after so many.

        A new plan moves the cycles, so one epoch in which the machine stood still does not tell,
        unless it is the first, and of five not even two.
        """
        ends = [0.0, *(done.seconds for done in self.curve), seconds][-LAST_EPOCHS - 1 :]
        return statistics.median_low(end - start for start, end in pairwise(ends))

    def _plan(self, last: Epoch) -> None:
        """Fit the number of epochs to the time that is left; end where a cycle was in vain."""
        self._planned_epochs = last.planned
        self.finished = last.epoch >= self._planned_epochs
        if not self.finished and last.epoch >= self._cycle_end():
            self.finished = self.best.epoch <= self._before
            self._before = last.epoch

    def _cycle_end(self) -> int:
        """Return the epoch with which the cycle that is under way ends."""
        return next(end for end in cycle_ends(self._planned_epochs) if end > self._before)

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
            logits = mean_logits(network, inputs, flips, network.step)
            counts += count_logits(wet_logits(logits), masks)
        return counts


def _numbers(network: UNet) -> list[Tensor]:
    """Return weights and statistics, but not the count of the batches that these are of."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]


def cycle_ends(epochs: int) -> list[int]:
    """Return the epochs with which the cycles of the learning rate end.

    Each cycle is twice as long as the one before, as in Loshchilov and Hutter (2017),
    https://arxiv.org/abs/1608.03983. There are as many, up to four, as let the first have three
    epochs.
    """
    number = MOST_CYCLES
    while number > 1 and epochs < LEAST_EPOCHS * (2**number - 1):
        number -= 1
    return [round(epochs * (2**place - 1) / (2**number - 1)) for place in range(1, number + 1)]


def one_cycle(done: float) -> float:
    """Return the learning rate's factor within a cycle: a linear rise, then a cosine down to zero.

    One-cycle policy of Smith (2018), https://arxiv.org/abs/1803.09820, without its momentum part.
    """
    if done < WARM_UP:
        return 0.05 + 0.95 * done / WARM_UP
    rest = min((done - WARM_UP) / (1 - WARM_UP), 1.0)
    return 0.5 * (1 + math.cos(math.pi * rest))
