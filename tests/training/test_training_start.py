from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import PLAIN, network_params, tiny_model

from sarflood.errors import InputError
from sarflood.files import sha256
from sarflood.model.package import FloodModel
from sarflood.model.unet import UNet
from sarflood.params import EncoderFile, InputParams
from sarflood.training.start import Start

BOTH = PLAIN.model_copy(update={"normalisation": "both"})


def model_of(bands: tuple[str, ...], params: InputParams = PLAIN, **network: Any) -> FloodModel:
    """A model with random weights, another mean and deviation for each channel."""
    known = tiny_model(("vv", "vh")).manifest
    number = len(bands) * (2 if params is BOTH else 1)
    torch.manual_seed(3)
    shape = network_params(**network)
    manifest = known.model_copy(
        update={
            "bands": bands,
            "input": params,
            "network": shape,
            "mean": tuple(-10.0 - n for n in range(number)),
            "std": tuple(3.0 + n for n in range(number)),
        }
    )
    return FloodModel(manifest, UNet(number, shape).eval())


def encoder_file(path: Path) -> EncoderFile:
    return EncoderFile(file=path.name, sha256=sha256(path))


@pytest.mark.parametrize("variant", ["plain", "residual", "attention", "light"])
@pytest.mark.parametrize("params", [PLAIN, BOTH], ids=["training", "both"])
@pytest.mark.parametrize("before", [("vv",), ("vh", "vv")], ids="-".join)
def test_a_network_with_added_bands_begins_with_the_answers_of_the_old_one(
    variant: str, params: InputParams, before: tuple[str, ...]
) -> None:
    old = model_of(before, params, variant=variant)
    bands = ("vv", "vh", "vv_pre")
    new = model_of(bands, params, variant=variant)
    start = Start.of_model("v0.1.0", old)
    new.network.train()
    start.into(new.network, bands, params)
    new.network.eval()
    mean, std = start.scale(bands, params, new.manifest.mean, new.manifest.std)
    scaled = replace(new, manifest=new.manifest.model_copy(update={"mean": mean, "std": std}))
    images = np.random.default_rng(0).normal(-12, 4, (2, 3, 64, 64)).astype(np.float32)
    seen = images[:, [bands.index(band) for band in before]]
    np.testing.assert_allclose(
        scaled.probabilities(images), old.probabilities(seen), atol=1e-5, rtol=0
    )


def test_the_scale_of_another_normalisation_is_not_taken_over() -> None:
    start = Start.of_model("v0.1.0", model_of(("vv", "vh")))
    local = PLAIN.model_copy(update={"normalisation": "local"})
    own = (0.0, 0.0), (1.0, 1.0)
    assert start.scale(("vv", "vh"), local, *own) == own
    assert start.scale(("vv", "vh"), PLAIN, *own) == ((-10.0, -11.0), (3.0, 4.0))


def test_an_encoder_of_a_file_replaces_the_encoder_alone(tmp_path: Path) -> None:
    old, new = (model_of(("vv", "vh")).network for _ in range(2))
    torch.nn.init.ones_(old.down[0].first[0].weight)  # type: ignore[index,union-attr]
    down = {f"down.{name}": value for name, value in old.down.state_dict().items()}
    path = tmp_path / "encoder.safetensors"
    save_file({**down, "head.weight": torch.zeros_like(new.head.weight)}, path)
    head = new.head.weight.clone()
    start = Start.of_encoder(encoder_file(path).model_copy(update={"file": str(path)}), tmp_path)
    start.into(new, ("vv", "vh"), PLAIN)
    assert start.name == "encoder.safetensors"  # no place of this machine goes into the record
    assert torch.equal(new.head.weight, head)
    for name, value in new.down.state_dict().items():
        assert torch.equal(value, down[f"down.{name}"])


def test_weights_of_another_network_are_refused_with_the_remedy() -> None:
    start = Start.of_model("v0.1.0", model_of(("vv", "vh")))
    wider = UNet(2, network_params(width=8))
    with pytest.raises(InputError, match=r"v0\.1\.0: its network is another one .* set model in"):
        start.into(wider, ("vv", "vh"), PLAIN)
    deeper = UNet(2, network_params(depth=3))
    with pytest.raises(InputError, match="another one"):
        start.into(deeper, ("vv", "vh"), PLAIN)
    with pytest.raises(InputError, match=r"trained with vh, which these events do not have"):
        start.into(UNet(1, network_params()), ("vv",), PLAIN)


def test_a_file_that_is_no_encoder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    said = r"encoder\.safetensors: cannot be read as safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=said):
        Start.of_encoder(encoder_file(path), tmp_path)
    save_file({"head.weight": torch.zeros(1)}, path)
    named = encoder_file(path)
    with pytest.raises(InputError, match="has no weights of an encoder"):
        Start.of_encoder(named, tmp_path)
    path.write_bytes(b"others")
    with pytest.raises(InputError, match=rf"not the file .* is {sha256(path)}.* {named.sha256}"):
        Start.of_encoder(named, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"encoder\.safetensors: cannot be read \(No such file"):
        Start.of_encoder(named, tmp_path)
