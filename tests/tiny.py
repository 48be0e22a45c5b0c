"""A small model that darkness makes wet, and small scenes to map with it."""

from __future__ import annotations

import datetime as dt
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray

from sarflood.mapping.patches import map_patches
from sarflood.model.package import FloodModel, ModelManifest, save_model
from sarflood.model.unet import UNet
from sarflood.params import InputParams, LossParams, ModelParams

QUICK = {
    "width: 8": "width: 2",
    "depth: 4": "depth: 1",
    "epochs: 16": "epochs: 1",
    "min_steps: 1600": "min_steps: 1",
}
LOSS = LossParams.model_validate("auto")
PLAIN = InputParams(speckle_filter="none", normalisation="training", fixed_db={})
UTM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 1_500_000.0)


def write_quick_params(root: Path) -> None:
    """Write the committed `params.yaml` into a workspace, but for a tiny network and one epoch."""
    text = (Path(__file__).parents[1] / "params.yaml").read_text("utf-8")
    for old, new in QUICK.items():
        assert old in text, old
        text = text.replace(old, new)
    (root / "params.yaml").write_text(text, "utf-8")


def network_params(**changes: Any) -> ModelParams:
    """A plain U-Net of width 4 and depth 2, but for the changes."""
    settings: dict[str, Any] = {
        "variant": "plain",
        "width": 4,
        "depth": 2,
        "normalisation": "batch",
        "upsampling": "transposed",
        "dropout": 0.0,
        "skips": True,
        "flips": 1,
    }
    return ModelParams(**(settings | changes))


def tiny_model(bands: tuple[str, ...] = ("vv", "vh"), units: str = "db") -> FloodModel:
    """A U-Net of width 4 and depth 2 with fixed random weights and about as much wet as dry."""
    torch.manual_seed(7)
    network = UNet(len(bands), network_params()).eval()
    manifest = ModelManifest(
        bands=bands,
        units=units,
        label="flood",
        network=network_params(),
        input=PLAIN,
        mean=(-12.0,) * len(bands) if units == "db" else (100.0,) * len(bands),
        std=(5.0,) * len(bands) if units == "db" else (50.0,) * len(bands),
        temperature=1.0,
        threshold=0.5,
        loss=LOSS,
        trained_on=(),
        params_sha256="0" * 64,
        commit="0" * 40,
        sarflood="0.1.0",
        created=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )
    with torch.no_grad():
        torch.nn.init.zeros_(network.head.get_parameter("bias"))
        logits = network(torch.from_numpy(speckle(len(bands), 64, 64)[None] / 5.0 + 2.4))
        network.head.weight *= 2.0 / logits.std()
        network.head.get_parameter("bias").sub_(2.0 * logits.median() / logits.std())
    return FloodModel(manifest, network)


def write_package(folder: Path) -> Path:
    """Write the tiny model's package with four recorded patches."""
    model = tiny_model()
    folder.mkdir()
    save_model(model, folder)
    (folder / "card.md").write_text("# A tiny model\n")
    images = np.stack([speckle(2, 256, 256, seed) for seed in range(4)]).astype(np.float16)
    images[0, :, :50] = np.nan
    np.savez(folder / "recorded.npz", images=images, masks=map_patches(model, images))
    return folder


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def speckle(bands: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """(C, H, W) float32 dB: land with a dark lake and four looks of speckle."""
    generator = np.random.default_rng(seed)
    row, col = np.mgrid[:height, :width]
    lake = np.hypot(row - height / 2, col - width / 2) < min(height, width) / 4
    power = 10 ** (np.where(lake, -20.0, -9.0) / 10)
    looks = generator.gamma(4.0, 1 / 4.0, (bands, height, width))
    return (10 * np.log10(power * looks)).astype(np.float32)


def write_scene(
    path: Path, image: NDArray[Any], names: tuple[str, ...] = (), **profile: Any
) -> Path:
    """Write a tiled GeoTIFF of (C, H, W) on a grid of 10 m in UTM zone 51 N."""
    settings = {"crs": "EPSG:32651", "transform": UTM, "tiled": True, "compress": "deflate"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=image.shape[0],
        height=image.shape[1],
        width=image.shape[2],
        dtype=image.dtype,
        **{**settings, **profile},
    ) as scene:
        scene.write(image)
        for index, name in enumerate(names, start=1):
            scene.set_band_description(index, name)
    return path
