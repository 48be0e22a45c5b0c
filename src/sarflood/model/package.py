"""The saved model package: `weights.safetensors` and `model.json`. No pickle anywhere."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sarflood.errors import InputError
from sarflood.files import replacing, write_text
from sarflood.model import MANIFEST, WEIGHTS
from sarflood.model.allocator import keep_large_buffers
from sarflood.model.inputs import Scaling, channels, event_scaling, has_data, network_input
from sarflood.model.unet import UNet, channels_last, mean_logits, wet_logits
from sarflood.params import InputParams, LossParams, ModelParams
from sarflood.raster.patch import TWO_CLASSES, UNKNOWN, ClassNames


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TrainedOn(_Closed):
    """One event that the model was trained on, by the hash of its index (which has all hashes)."""

    event: str
    index_sha256: str


class ModelManifest(_Closed):
    """`model.json`: all that is needed to use the weights, and what they were made of.

    `classes` are those that the network tells apart; None where they are dry and wet.
    """

    bands: tuple[str, ...]
    units: str
    label: str
    classes: ClassNames | None = None
    network: ModelParams
    input: InputParams
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)]
    loss: LossParams
    advice: str | None = None
    started_from: str | None = None
    trained_on: tuple[TrainedOn, ...]
    params_sha256: str
    commit: str
    sarflood: str
    created: dt.datetime

    @model_validator(mode="after")
    def _a_number_a_channel(self) -> Self:
        if not len(channels(self.input, self.bands)) == len(self.mean) == len(self.std):
            raise ValueError("mean and std need one number for each channel")
        return self


@dataclass
class FloodModel:
    """A network with its manifest, ready to answer.

    Attributes:
        manifest: What it was made of, and how it is used.
        network: The network.
        engine: Computes the network faster than it does itself; None where it does itself.
        engine_name: Library and precision of what computes it.
    """

    manifest: ModelManifest
    network: UNet
    engine: Callable[[Tensor], Tensor] | None = None
    engine_name: str = "PyTorch float32"

    def scaling_of(self, images: NDArray[np.floating]) -> Scaling | None:
        """Return the scale of an event from its images, for a model that wants that.

        Args:
            images: (N, C, H, W) in the model's bands and units; all patches of the event, or parts
                of a scene.
        """
        return event_scaling(images) if self.manifest.input.normalisation == "event" else None

    def normalise(self, images: NDArray[np.floating], scaling: Scaling | None = None) -> Tensor:
        """Return the network's input for (N, C, H, W) images in the model's units, NaN no data."""
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1)
            for values in (self.manifest.mean, self.manifest.std)
        )
        return network_input(images, self.manifest.input, mean, std, scaling)

    def probabilities(
        self, images: NDArray[np.floating], scaling: Scaling | None = None
    ) -> NDArray[np.float32]:
        """Return the probability of "wet" for images in the model's bands and units.

        Args:
            images: (N, C, H, W); NaN is no data.
            scaling: What `scaling_of` says of the whole event; by default the images are one. For
                a model that scales locally, that of the part of a scene; by default each image is a
                scene.

        Returns:
            (N, H, W) float32; NaN where any band has no data or is infinite.
        """
        (result,) = self.probabilities_of([(images, scaling)])
        return result

    def probabilities_of(
        self, parts: Sequence[tuple[NDArray[np.floating], Scaling | None]]
    ) -> list[NDArray[np.float32]]:
        """Do as `probabilities` does for images of several events, in one batch.

        Args:
            parts: The images of each, of one size, and their scaling.
        """
        with torch.inference_mode():
            logits = wet_logits(self._logits(parts))
            found = torch.sigmoid(logits / self.manifest.temperature).numpy()
        ends = np.cumsum([len(images) for images, _ in parts])
        results: list[NDArray[np.float32]] = np.split(found, ends[:-1])
        for result, (images, _) in zip(results, parts, strict=True):
            result[~has_data(images)] = np.nan
        return results

    def classes(
        self, images: NDArray[np.floating], scaling: Scaling | None = None
    ) -> NDArray[np.uint8]:
        """Return the class with the largest logit, where the model has several.

        Args:
            images: As `probabilities` takes them.
            scaling: Likewise.

        Returns:
            (N, H, W) uint8, codes in the order of `manifest.classes`; 255 where any band has no
            data or is infinite.

        Raises:
            ValueError: The model tells dry and wet apart alone; `masks` says that.
        """
        if self.manifest.classes is None:
            raise ValueError("a model of dry and wet has no other classes")
        with torch.inference_mode():
            chosen = self._logits([(images, scaling)]).argmax(dim=1)
        result: NDArray[np.uint8] = chosen.numpy().astype(np.uint8)
        result[~has_data(images)] = UNKNOWN
        return result

    def _logits(self, parts: Sequence[tuple[NDArray[np.floating], Scaling | None]]) -> Tensor:
        if self.engine is None:
            keep_large_buffers()
        inputs = [self.normalise(*part) for part in parts]
        batch = inputs[0] if len(inputs) == 1 else torch.cat(inputs)  # a copy
        flips, step = self.manifest.network.flips, self.network.step
        return mean_logits(self.engine or self.network, batch, flips, step)

    def masks(self, probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Turn probabilities into masks by the calibrated threshold: 0 dry, 1 wet, 255 no data."""
        masks = (probabilities >= self.manifest.threshold).astype(np.uint8)
        masks[np.isnan(probabilities)] = UNKNOWN
        return masks


def save_model(model: FloodModel, folder: Path) -> None:
    """Write the package into `folder`, each file whole or not at all."""
    state = {name: value.contiguous() for name, value in model.network.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    write_text(folder / MANIFEST, model.manifest.model_dump_json(indent=2) + "\n")


def load_manifest(folder: Path) -> ModelManifest:
    """Read `model.json` of a package."""
    path = folder / MANIFEST
    try:
        return ModelManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise InputError(f"{path}: not a model manifest: {error}") from error


def load_model(folder: Path) -> FloodModel:
    """Load a package for inference.

    Raises:
        InputError: A file is missing or damaged, or the weights do not fit the manifest.
    """
    manifest = load_manifest(folder)
    classes = manifest.classes or TWO_CLASSES
    network = UNet(len(manifest.mean), manifest.network, len(classes))
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{folder / WEIGHTS}: not the weights of {MANIFEST}: {error}") from error
    network.eval()
    return FloodModel(manifest, channels_last(network))
