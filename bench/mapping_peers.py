"""A scene mapped by terratorch or torchgeo, as they come; run by the Python of their environment.

terratorch's `tiled_inference` has its defaults (tiles of 224 every 192 pixels, blended). torchgeo
has a sampler of tiles, `GridGeoSampler`, and leaves it to its user to put them together: tiles of
256 every 192 pixels, averaged.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor


def load(package: Path) -> tuple[Any, dict[str, Any]]:
    """Return the network of a package, and its manifest."""
    from sarflood.model.unet import UNet
    from sarflood.params import ModelParams

    manifest = json.loads((package / "model.json").read_text("utf-8"))
    network = UNet(len(manifest["mean"]), ModelParams.model_validate(manifest["network"]))
    network.load_state_dict(load_file(package / "weights.safetensors"))
    return network.eval(), manifest


def inputs(path: Path, manifest: dict[str, Any]) -> Tensor:
    """Read a scene into memory and bring it to the network's scale: (1, C, H, W)."""
    from sarflood.model.inputs import block_moments, fill, local_scaling, prepare, standardise
    from sarflood.params import InputParams

    with rasterio.open(path) as file:
        image: NDArray[np.float16] = file.read().astype(np.float16)[None]
    mean, std = (torch.tensor(manifest[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    rows, cols = (np.arange(length) for length in image.shape[-2:])
    scaling = local_scaling(block_moments(image), rows, cols)
    prepared = prepare(image, InputParams.model_validate(manifest["input"]), scaling)
    return fill(standardise(torch.from_numpy(prepared), mean, std)).contiguous()


def by_terratorch(network: Any, image: Tensor, _: Path) -> Tensor:
    """Map by `tiled_inference` with its defaults."""
    tiled = importlib.import_module("terratorch.tasks.tiled_inference")
    found: Tensor = tiled.tiled_inference(network, image)
    return found[0].reshape(-1, *image.shape[-2:])[-1]


def by_torchgeo(network: Any, image: Tensor, scene: Path) -> Tensor:
    """Map by `GridGeoSampler` over a `RasterDataset`, its tiles averaged."""
    datasets = importlib.import_module("torchgeo.datasets")
    samplers = importlib.import_module("torchgeo.samplers")
    loader = importlib.import_module("torch.utils.data").DataLoader
    dataset = datasets.RasterDataset(paths=str(scene))
    sampler = samplers.GridGeoSampler(dataset, size=256, stride=192)
    with rasterio.open(scene) as file:
        to_pixel = ~file.transform
    total, count = torch.zeros(image.shape[-2:]), torch.zeros(image.shape[-2:])
    for batch in loader(dataset, sampler=sampler, batch_size=16, collate_fn=datasets.stack_samples):
        tops = []
        for bounds in batch["bounds"]:
            col, row = to_pixel @ (bounds[0].start, bounds[1].stop)
            tops.append((round(row), round(col)))
        height, width = batch["image"].shape[-2:]
        # What the loader read is the scene as it is; the network wants it on its own scale.
        tiles = torch.stack([image[0, :, r : r + height, c : c + width] for r, c in tops])
        for (row, col), answer in zip(tops, network(tiles), strict=True):
            total[row : row + height, col : col + width] += answer
            count[row : row + height, col : col + width] += 1
    return total / count


def main() -> None:
    """Map a scene: NAME SCENE PACKAGE OUT."""
    name, scene, package, out = sys.argv[1], *map(Path, sys.argv[2:5])
    torch.set_num_threads(1)
    network, manifest = load(package)
    with torch.inference_mode():
        started = time.monotonic()
        image = inputs(scene, manifest)
        logits = {"terratorch": by_terratorch, "torchgeo": by_torchgeo}[name](network, image, scene)
        mask = (torch.sigmoid(logits) >= manifest["threshold"]).to(torch.uint8).numpy()
        seconds = time.monotonic() - started
    np.save(out.with_suffix(".npy"), mask)
    out.write_text(json.dumps({"seconds": seconds}), "utf-8")


if __name__ == "__main__":
    main()
