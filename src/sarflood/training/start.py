"""Weights that a training begins with, instead of random ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from sarflood.errors import InputError
from sarflood.model.inputs import Numbers, channels
from sarflood.model.package import FloodModel
from sarflood.model.unet import UNet
from sarflood.params import EncoderFile, InputParams
from sarflood.raster.patch import TWO_CLASSES

ENCODER = "down."  # what the names of the encoder's weights begin with
_SHORTCUT = "down.0.shortcut.weight"
_FIRST = ("down.0.first.0.", _SHORTCUT)  # and of those that look at the input's channels


@dataclass(frozen=True)
class Start:
    """Weights of an earlier network, of all of it or of its encoder.

    Attributes:
        name: Of what they come from, such as `v0.2.0`.
        state: By the names of `UNet`.
        channels: What the channels of the network's input are, in order; None for an encoder, whose
            input must have as many channels.
        input: How they were normalised, with `mean` and `std`; None for an encoder.
        classes: What the network tells apart; None for an encoder.
    """

    name: str
    state: dict[str, Tensor]
    channels: tuple[str, ...] | None = None
    input: InputParams | None = None
    mean: Numbers = ()
    std: Numbers = ()
    classes: tuple[str, ...] | None = None

    @classmethod
    def of_model(cls, name: str, model: FloodModel) -> Start:
        """Begin with a whole model."""
        manifest = model.manifest
        return cls(
            name,
            model.network.state_dict(),
            channels(manifest.input, manifest.bands),
            manifest.input,
            manifest.mean,
            manifest.std,
            manifest.classes or TWO_CLASSES,
        )

    @classmethod
    def of_encoder(cls, named: EncoderFile, folder: Path) -> Start:
        """Begin with an encoder of a local safetensors file: its keys are those of `UNet.down`.

        Args:
            named: The file, and what must be in it.
            folder: Where its name begins.

        Raises:
            InputError: The file cannot be read, is another one, or holds no such key.
        """
        path = folder / named.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); train.start_from.file in params.yaml "
                "is a file with an encoder's weights, seen from the workspace"
            ) from error
        found_hash = hashlib.sha256(content).hexdigest()
        if found_hash != named.sha256:
            raise InputError(
                f"{path}: is not the file that was meant; its SHA-256 is {found_hash}, and "
                f"train.start_from.sha256 in params.yaml is {named.sha256}; put the file back, or "
                "its hash into params.yaml"
            )
        try:
            state = load(content)
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be read as safetensors ({error})") from error
        found = {name: value for name, value in state.items() if name.startswith(ENCODER)}
        if not found:
            raise InputError(f"{path}: has no weights of an encoder ({ENCODER}0.first.0.weight, …)")
        return cls(path.name, found)

    def into(
        self,
        network: UNet,
        bands: tuple[str, ...],
        params: InputParams,
        classes: tuple[str, ...] = TWO_CLASSES,
    ) -> None:
        """Put the weights in; those of new channels are 0, so that they change nothing yet.

        Args:
            network: Of the shape that settings ask for; an encoder replaces `down` alone.
            bands: Of the training patches.
            params: How they become channels.
            classes: Of the training patches.

        Raises:
            InputError: The weights are of another network or of other classes, or of channels that
                are no more.
        """
        if self.classes is not None and self.classes != classes:
            raise InputError(
                f"{self.name}: was trained on the classes {', '.join(self.classes)}; these events "
                f"have {', '.join(classes)}; set train.start_from to nothing, or to a file with an "
                "encoder"
            )
        wanted = channels(params, bands)
        state = dict(network.state_dict())
        if self.channels is not None and (gone := set(self.channels) - set(wanted)):
            raise InputError(
                f"{self.name}: was trained with {', '.join(sorted(gone))}, which these events do "
                "not have; set train.start_from to nothing"
            )
        if self.channels is not None and (left := set(self.state) - set(state)):
            raise InputError(self._other_network(f"it has {min(left)}, which is not there"))
        needed = [name for name in state if self.channels or name.startswith(ENCODER)]
        for name in needed:
            value = self.state.get(name)
            if value is None and name == _SHORTCUT and self.channels:
                # As many channels as features had none: they went past as they were.
                value = torch.eye(len(self.channels))[:, :, None, None]
            if value is not None and self.channels and name.startswith(_FIRST) and value.dim() == 4:
                places = [wanted.index(item) for item in self.channels]
                value = _widened(value, state[name], places, len(wanted))
            if value is None or value.shape != state[name].shape:
                there = "nothing" if value is None else tuple(value.shape)
                asked = tuple(state[name].shape)
                raise InputError(self._other_network(f"{name} is {there}, asked for is {asked}"))
            state[name] = value
        network.load_state_dict(state)

    def _other_network(self, why: str) -> str:
        return (
            f"{self.name}: its network is another one ({why}); set model in params.yaml to that of "
            f"{self.name}, or train.start_from to nothing"
        )

    def scale(
        self, bands: tuple[str, ...], params: InputParams, mean: Numbers, std: Numbers
    ) -> tuple[Numbers, Numbers]:
        """Return mean and deviation of each channel: those that the weights were trained with.

        Args:
            bands: Of the training patches.
            params: How they become channels.
            mean: Of the training patches, for channels that are new.
            std: Likewise.
        """
        if self.channels is None or self.input != params:
            return mean, std
        known = dict(zip(self.channels, zip(self.mean, self.std, strict=True), strict=True))
        names = channels(params, bands)
        own = dict(zip(names, zip(mean, std, strict=True), strict=True))
        means, stds = zip(*(known.get(name, own[name]) for name in names), strict=True)
        return means, stds


def _widened(value: Tensor, new: Tensor, places: list[int], channels: int) -> Tensor:
    """Put the first layer's weights for some channels where these stand among the new ones.

    Weights of another number of features stay as they are.

    Args:
        value: The weights.
        new: Those of the new network.
        places: Of the channels among the new ones.
        channels: How many new ones there are; each may be folded to several inputs.
    """
    folded = new.shape[1] // channels
    inputs = [place * folded + part for place in places for part in range(folded)]
    wider = torch.zeros_like(new)
    if wider[:, inputs].shape != value.shape:
        return value
    wider[:, inputs] = value
    return wider
