"""A small model that darkness makes wet, and small scenes to map with it."""

from __future__ import annotations

import datetime as dt
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from sarflood.mapping.fastest import Engine, Engines
from sarflood.mapping.patches import map_patches
from sarflood.mapping.scene import SceneMap, map_scene
from sarflood.model.package import FloodModel, ModelManifest, save_model
from sarflood.model.unet import UNet
from sarflood.params import InputParams, LossParams, ModelParams, ServingParams
from sarflood.raster.patch import UNKNOWN

QUICK = {
    "width: 8": "width: 2",
    "depth: 4": "depth: 1",
    "epochs: 48": "epochs: 1",
    "min_steps: 5400": "min_steps: 1",
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


def tiny_model(
    bands: tuple[str, ...] = ("vv", "vh"), units: str = "db", **changes: Any
) -> FloodModel:
    """A U-Net of width 4 and depth 2 with fixed random weights and about as much wet as dry."""
    torch.manual_seed(7)
    params = network_params(**changes)
    network = UNet(len(bands), params).eval()
    manifest = ModelManifest(
        bands=bands,
        units=units,
        label="flood",
        network=params,
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


def by_torch(model: FloodModel) -> Engines:
    """The model, computed by PyTorch."""
    engine = Engine(name="PyTorch float32", rounded=False, equal_share=1.0, iou_change=0.0)
    return Engines(model, model, 1, engine)


# What a service of the tests lets pass.
LIMITS = ServingParams(
    max_megabytes=16,
    max_megapixels=1,
    max_seconds=60,
    ready_within_s=60,
    patch_within_s=5,
    max_memory_gib=4,
    engine="auto",
)


@cache
def lake_model() -> FloodModel:
    """The tiny model, trained a little on lakes: sure of itself, as random weights are not."""
    model = tiny_model()
    images = torch.from_numpy(np.stack([speckle(2, 64, 64, seed) for seed in range(4)]))
    row, col = np.mgrid[:64, :64]
    lake = torch.tensor(np.hypot(row - 32, col - 32) < 16, dtype=torch.float32).expand(4, 64, 64)
    model.network.train()
    for _ in range(40):
        logits = model.network((images + 12.0) / 5.0)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, lake)
        parameters = list(model.network.parameters())
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 0.01 * slope.sign()
    model.network.eval()
    return model


def write_package(folder: Path, model: FloodModel | None = None) -> Path:
    """Write a model's package with four recorded patches, by default the tiny one's."""
    model = model or tiny_model()
    folder.mkdir()
    save_model(model, folder)
    (folder / "card.md").write_text("# A tiny model\n")
    images = np.stack([speckle(2, 256, 256, seed) for seed in range(4)]).astype(np.float16)
    images[0, :, :50] = np.nan
    masks = map_patches(model, images)
    np.savez(folder / "recorded.npz", images=images, masks=masks, truth=masks)
    np.savez(folder / "calibration.npz", images=images)
    return folder


class Mapped(NamedTuple):
    """A map with its rasters read: `mask` (H, W), and `percent` (H, W) with NaN for no data."""

    mask: NDArray[np.uint8]
    percent: NDArray[np.float32]
    result: SceneMap


def mapped(model: FloodModel, scene: Path, pre: Path | None = None, **options: Any) -> Mapped:
    """Map a scene, in a folder of the moment."""
    with tempfile.TemporaryDirectory(prefix="sarflood-mapped-") as folder:
        result = map_scene(model, scene, pre, folder=Path(folder), **options)
        mask, percent = result.mask.whole(), result.percent.whole().astype(np.float32)
    percent[mask == UNKNOWN] = np.nan
    return Mapped(mask, percent, result)


def change_recorded(path: Path, **changes: NDArray[Any]) -> None:
    """Write other arrays in the place of some of `recorded.npz`."""
    with np.load(path) as arrays:
        found = {**arrays, **changes}
    np.savez(path, **found)


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


def naming_a_grid(path: Path, grid: Path) -> bytes:
    """Return a scene whose CRS has PROJ shift it by a grid, which is read from a file."""
    wkt = CRS.from_epsg(32651).to_wkt().partition(',AUTHORITY["EPSG","32651"]')[0]
    padded = wkt.replace("WGS 84 / UTM zone 51N", "n" * 900) + "]"
    scene = write_scene(
        path, speckle(2, 100, 100), crs=CRS.from_wkt(padded), GEOTIFF_KEYS_FLAVOR="ESRI_PE"
    ).read_bytes()
    start = scene.index(b"ESRI PE String = ") + len(b"ESRI PE String = ")
    end = scene.index(b"|\0", start)
    named = f'EXTENSION["PROJ4","+proj=utm +zone=51 +ellps=WGS84 +nadgrids={grid} +units=m"]'
    extended = f"{wkt},{named}]".encode()
    assert len(extended) <= end - start
    return scene[:start] + extended.ljust(end - start) + scene[end:]
