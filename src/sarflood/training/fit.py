"""Fit a U-Net with Lightning: AdamW, cycles of the learning rate, averaged weights.

The best epoch is kept. A training that was killed goes on after its last whole epoch.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import lightning as L  # noqa: N812
import pandas as pd
import torch

from sarflood import __version__
from sarflood.errors import InputError
from sarflood.model.advice import advise
from sarflood.model.allocator import keep_large_buffers
from sarflood.model.inputs import fixed_scaling
from sarflood.model.losses import build_loss
from sarflood.model.package import FloodModel, ModelManifest, TrainedOn
from sarflood.model.unet import UNet
from sarflood.params import InputParams, LossParams, Params, TrainParams
from sarflood.patches.crops import CropLoader
from sarflood.patches.loader import LabelledPatches, band_statistics
from sarflood.raster.patch import WET
from sarflood.sources.event import Event
from sarflood.training.checkpoint import Checkpoint
from sarflood.training.curve import Epoch
from sarflood.training.start import Start
from sarflood.training.steps import Training

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
            event: One that it was trained on: says bands, units, label and classes.
            params: The settings that it was trained with.
            trained_on: The events.
            params_sha256: Of `params.yaml`.
            commit: Of the code.
        """
        manifest = ModelManifest(
            bands=event.bands,
            units=event.units,
            label=str(event.label),
            classes=event.classes,
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
    """Train for `epochs` and `min_steps`, until `max_minutes` are over or more brings nothing.

    After each epoch the average of the weights is scored on the validation patches. The learning
    rate goes in cycles, each twice as long as the one before, and all ends with the first in which
    no epoch was better than those before it. So few epochs do where more would only fit the scenes
    of the training better. Where time will not do for all epochs, it is planned anew after each
    epoch for those that fit in, so that the learning rate ends near zero in either case.
    Deterministic by seed on one kind of CPU as long as time does not bind, also where a training
    was killed and goes on.

    Args:
        train: Training patches.
        val: Validation patches.
        bands: Their bands.
        params: All settings.
        on_epoch: Is told each epoch that is done, also those of before.
        checkpoint: Where the state is kept from epoch to epoch, and looked for at the start.
        start: Weights to begin with; by default random ones.

    Raises:
        InputError: There are no training or no validation patches, `start` is of another kind of
            network or of other classes, or there is not one class weight for each class.
    """
    for name, patches in (("training", train), ("validation", val)):
        if not len(patches):
            raise InputError(
                f"no {name} patches: the events are too small to be split, or show the ground of "
                "one that is left out or held out; add a larger event, or lower "
                "split.guard_patches in params.yaml"
            )
    if not any((mask == WET).any() for mask in val.masks):
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
    _check_weights(chosen, train.classes)
    network = UNet(len(mean), params.model, len(train.classes))
    if start:
        start.into(network, bands, params.input, train.classes)
        mean, std = start.scale(bands, params.input, mean, std)
    loader = CropLoader(
        train,
        params.train,
        distances="boundary" in chosen.terms,
        device=torch.device(f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"),
    )
    loss = build_loss(chosen, train.counts())
    module = Training(
        network, loss, mean, std, params, len(bands), loader, val, on_epoch, checkpoint
    )
    module.resume()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        if not module.finished:
            _trainer(params.train).fit(module, loader)
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


def _check_weights(loss: LossParams, classes: tuple[str, ...]) -> None:
    weights = loss.class_weights
    if "weighted_cross_entropy" not in loss.terms or weights == "inverse_frequency":
        return
    if len(weights) != len(classes):
        raise InputError(
            f"loss.class_weights {list(weights)}: the masks have the classes {', '.join(classes)}; "
            "in params.yaml give a weight for each, or inverse_frequency"
        )


def _scale(
    train: LabelledPatches, params: InputParams, bands: tuple[str, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what becomes 0 and 1 in the network's input; patches scaled already stay."""
    if params.normalisation in ("training", "both"):
        return band_statistics(train)
    if params.normalisation == "fixed_db":
        return fixed_scaling(params, bands)
    return (0.0,) * len(bands), (1.0,) * len(bands)


def precision() -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Choose half precision on GPUs alone: on a CPU without AMX bfloat16 is 20 times slower."""
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _trainer(params: TrainParams) -> L.Trainer:
    return L.Trainer(
        accelerator="auto",
        devices=params.processes,
        strategy="ddp" if params.processes > 1 else "auto",
        sync_batchnorm=torch.cuda.is_available(),  # on CPUs there is none
        precision=precision(),
        max_epochs=-1,  # the module ends it
        gradient_clip_val=GRADIENT_NORM,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
