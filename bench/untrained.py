"""A small network with random weights, packed as a version's model: for benches of the service."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import torch

from bench.mutations import backscatter
from sarflood.files import write_text
from sarflood.mapping.patches import map_patches
from sarflood.model.package import FloodModel, ModelManifest, save_model
from sarflood.model.unet import UNet
from sarflood.params import InputParams, LossParams, ModelParams


def write_untrained(folder: Path, width: int = 4, depth: int = 2, seed: int = 0) -> None:
    """Write the package of a U-Net for VV and VH in dB, with two recorded patches, half of it wet.

    Args:
        folder: Where; it is made.
        width: Of the network.
        depth: Of the network.
        seed: Of the weights.
    """
    torch.manual_seed(seed)
    network = ModelParams(
        variant="plain",
        width=width,
        depth=depth,
        normalisation="batch",
        upsampling="transposed",
        dropout=0.0,
        skips=True,
        flips=1,
    )
    manifest = ModelManifest(
        bands=("vv", "vh"),
        units="db",
        label="flood",
        network=network,
        input=InputParams(speckle_filter="none", normalisation="training", fixed_db={}),
        mean=(-12.0, -12.0),
        std=(5.0, 5.0),
        temperature=1.0,
        threshold=0.5,
        loss=LossParams.model_validate("auto"),
        trained_on=(),
        params_sha256="0" * 64,
        commit="0" * 40,
        sarflood="0",
        created=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )
    images = np.stack([backscatter(256, number) for number in range(2)]).astype(np.float16)
    unet = UNet(2, network).eval()
    with torch.no_grad():
        bias = unet.head.get_parameter("bias")
        bias.sub_(unet(torch.from_numpy((images.astype(np.float32) + 12) / 5)).median())
    model = FloodModel(manifest, unet)
    folder.mkdir(parents=True)
    save_model(model, folder)
    write_text(folder / "card.md", f"# Random weights, seed {seed}\n")
    masks = map_patches(model, images)
    np.savez(folder / "recorded.npz", images=images, masks=masks, truth=masks)
