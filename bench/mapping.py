"""Whole scenes: what a map costs beside the network itself, its memory, its seams, and peers.

A scene of simulated backscatter, half of it wet, is mapped with a network of width 16 and depth 4
that was trained on the like of it, on each engine that `sarflood map` may take. Against that stands
the bare engine: the same one on as many tiles of the same sizes, and nothing else.

`--peers PYTHON` names the Python of an environment of its own with terratorch and torchgeo
(`pip install terratorch torchgeo safetensors pydantic pyyaml`): both map the same pixels with the
same weights, as they come, and with our settings of the memory allocator.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from rich.console import Console
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.claims import Claim, parser, peak_gib, report
from sarflood.mapping.convert import CALIBRATION, load_fastest
from sarflood.mapping.fastest import ENGINE, INT8
from sarflood.mapping.outputs import write_mask, write_probability
from sarflood.mapping.patches import map_patches
from sarflood.mapping.recorded import RECORDED
from sarflood.mapping.scene import SceneMap, map_scene
from sarflood.mapping.scenes import Job, map_into, scratch_folder
from sarflood.mapping.sources import find_scene
from sarflood.mapping.tiles import spans
from sarflood.model.inputs import block_moments, local_scaling
from sarflood.model.package import FloodModel, ModelManifest, save_model
from sarflood.model.unet import UNet, channels_last, mean_logits
from sarflood.params import load_params
from sarflood.workspace import find_workspace

GRID = rasterio.Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 1_500_000.0)
PIECE = 1024
TRAINING_STEPS = 100
HIGH, WIDE, ROWS = 16_700, 25_000, 2_700  # the last are rows enough for three strips
# What `keep_large_buffers` sets, for processes that are not ours.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
say = Console(stderr=True).print


def backscatter(
    generator: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return (2, 1024, 1024) dB, hills and wet hollows with speckle of four looks, and the mask."""
    coarse = generator.normal(size=(2, 18, 18))
    rows = np.linspace(0, 16, PIECE)
    low = np.floor(rows).astype(int)
    weight = (rows - low)[:, None]
    ground = coarse[:, low] * (1 - weight) + coarse[:, low + 1] * weight
    ground = ground[:, :, low] * (1 - weight.T) + ground[:, :, low + 1] * weight.T
    speckle = generator.gamma(4.0, 1 / 4.0, ground.shape)
    wet = ground[0] < 0
    found = np.where(wet, -20.0, -9.0) + ground + 10 * np.log10(speckle)
    return np.asarray(found, np.float32), wet.astype(np.uint8)


def write_scene(path: Path, height: int, width: int) -> Path:
    """Write a tiled GeoTIFF of two bands; its upper left corner has no data."""
    generator = np.random.default_rng(0)
    pieces = [backscatter(generator)[0] for _ in range(6)]
    profile = {"count": 2, "dtype": "float32", "crs": "EPSG:32651", "transform": GRID}
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        nodata=np.nan,
        bigtiff="if_safer",
        zlevel=1,
        num_threads="all_cpus",
        **profile,
        **blocks,
    ) as scene:
        for top in range(0, height, PIECE):
            for left in range(0, width, PIECE):
                piece = pieces[int(generator.integers(len(pieces)))].copy()
                if top == left == 0:
                    piece[:, np.add.outer(np.arange(PIECE), np.arange(PIECE)) < 700] = np.nan
                piece = piece[:, : height - top, : width - left]
                scene.write(piece, window=Window(left, top, piece.shape[2], piece.shape[1]))
        for index, name in enumerate(("VV", "VH"), start=1):
            scene.set_band_description(index, name)
    return path


def make_model(folder: Path, width: int) -> Path:
    """Write a model's package: the committed settings, but for the width and few steps."""
    params = load_params(find_workspace(Path(__file__).parent).params)
    network = params.model.model_copy(update={"width": width, "flips": 1})
    torch.manual_seed(1)
    channels = 4
    unet = channels_last(UNet(channels, network))
    manifest = ModelManifest.model_validate(
        {
            "bands": ("vv", "vh"),
            "units": "db",
            "label": "flood",
            "network": network,
            "input": params.input,
            "mean": (-13.0, -13.0, 0.0, 0.0),
            "std": (6.0, 6.0, 1.0, 1.0),
            "temperature": 1.0,
            "threshold": 0.5,
            "loss": params.loss,
            "trained_on": (),
            "params_sha256": "0" * 64,
            "commit": "0" * 40,
            "sarflood": "0",
            "created": "2026-01-01T00:00:00Z",
        }
    )
    model = FloodModel(manifest, unet)
    train(model)
    folder.mkdir()
    save_model(model, folder)
    pieces = [backscatter(np.random.default_rng(seed)) for seed in range(2, 6)]
    images = np.stack([piece[:, :256, :256] for piece, _ in pieces]).astype(np.float16)
    truth = np.stack([wet[:256, :256] for _, wet in pieces])
    masks = map_patches(model, images)
    np.savez(folder / RECORDED, images=images, masks=masks, truth=truth)
    np.savez(folder / CALIBRATION, images=images)
    return folder


def train(model: FloodModel) -> None:
    """Train until answers are as sure as a model's are: so are files compressed, and 8 bits do."""
    generator = np.random.default_rng(1)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=0.005)
    image, wet = backscatter(generator)
    model.network.train()
    for _ in range(TRAINING_STEPS):
        crops = [
            (slice(top, top + 128), slice(left, left + 128))
            for top, left in generator.integers(0, PIECE - 128, (4, 2))
        ]
        inputs = model.normalise(np.stack([image[:, rows, cols] for rows, cols in crops]))
        truth = torch.from_numpy(np.stack([wet[rows, cols] for rows, cols in crops])).float()
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(model.network(inputs), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.network.eval()


def mapped(model: FloodModel, scene: Path, folder: Path) -> SceneMap:
    """Map a scene up to its two cloud-optimised files."""
    result = map_scene(model, scene, folder=folder / "work")
    write_mask(result, folder / "flood.tif")
    write_probability(result, folder / "probability.tif")
    return result


def bare(model: FloodModel, height: int, width: int) -> tuple[float, float]:
    """Return the seconds, and those of all cores together, of the network alone on all tiles."""
    sizes = [
        (down.stop - down.start, across.stop - across.start)
        for down in spans(height)
        for across in spans(width)
    ]
    channels = len(model.manifest.mean)
    inputs = {
        size: torch.randn(1, channels, *size).contiguous(memory_format=torch.channels_last)
        for size in set(sizes)
    }
    flips, step = model.manifest.network.flips, model.network.step
    engine = model.engine or model.network
    with torch.inference_mode():
        for tile in inputs.values():
            mean_logits(engine, tile, flips, step)
        started, cores = time.monotonic(), time.process_time()
        for size in sizes:
            mean_logits(engine, inputs[size], flips, step)
    return time.monotonic() - started, time.process_time() - cores


def cost(folder: Path, size: int, width: int, turns: int) -> list[Claim]:
    """Compare the time of a map with that of the network alone."""
    scene = write_scene(folder / "scene.tif", size, size)
    package = make_model(folder / "model", width)
    exact, rounded = (load_fastest(package, may_round=may_round) for may_round in (False, True))
    models = {"float32": exact}
    if (package / ENGINE / INT8).exists():
        models["int8"] = rounded
    ratios: dict[str, list[float]] = {name: [] for name in models}
    of_cores: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(turns):
        for name, model in models.items():
            place = folder / f"{name}-{turn}"
            place.mkdir()
            started, cores = time.monotonic(), time.process_time()
            result = mapped(model, scene, place)
            whole, cores = time.monotonic() - started, time.process_time() - cores
            engine, engine_cores = bare(model, size, size)
            ratios[name].append(whole / engine)
            of_cores[name].append(cores / engine_cores)
            say(
                f"{name}: map {whole:.1f} s ({result.seconds}), engine {engine:.1f} s; of "
                f"all cores together {cores:.1f} and {engine_cores:.1f} s"
            )
    missing = "it does not answer as recorded, and is not made"
    bounds = {"float32": 1.10, "int8": 1.15}
    how = "reading, blending, COGs included; median of"
    return [
        *(
            Claim(
                f"time of a map over the bare engine, {name}",
                float(np.median(found)),
                bounds[name],
                f"{size}² pixels, width {width}, {how} {turns}; of the cores' time "
                f"{np.median(of_cores[name]):.2f}, were none ever idle",
            )
            for name, found in ratios.items()
        ),
        *(
            Claim(f"time of a map over the bare engine, {name}", float("inf"), bound, missing)
            for name, bound in bounds.items()
            if name not in ratios
        ),
        *seams(exact, folder, scene, size),
    ]


def seams(model: FloodModel, folder: Path, scene: Path, size: int) -> list[Claim]:
    """Compare the map with the answer to the scene in one piece, where that fits."""
    part = min(size, 2560)
    with rasterio.open(scene) as source:
        image = source.read(window=Window(0, 0, part, part)).astype(np.float16)[None]
    scaling = local_scaling(block_moments(image), np.arange(part), np.arange(part))
    whole = model.masks(model.probabilities(image, scaling))[0]
    with rasterio.open(folder / "float32-0" / "flood.tif") as file:
        tiled = file.read(1, window=Window(0, 0, part, part))
    # Beyond this the part lacks what the scene has around it.
    inner = slice(0, part - 256)
    different = (tiled != whole)[inner, inner]
    at_edges = np.zeros(part, bool)
    for span in spans(size)[1:]:
        at_edges[max(0, span.start - 32) : span.start + 96] = True
    near = np.logical_or.outer(at_edges, at_edges)[inner, inner]
    say(
        f"different: {different[near].mean():.2e} along edges, {different[~near].mean():.2e} inside"
    )
    return [
        Claim(
            "pixels equal to the scene in one piece",
            float(1 - different.mean()),
            0.999,
            f"{part}² pixels",
            at_least=True,
        ),
        Claim(
            "pixels that differ along tile edges",
            float(different[near].mean()),
            1e-4,
            f"within 32 pixels of an overlap; inside {different[~near].mean():.1e}",
        ),
    ]


def memory(folder: Path, width: int) -> list[Claim]:
    """Measure the peak memory above the idle process, for a wide scene and for one half as wide."""
    found = {}
    package = make_model(folder / "model-memory", width)
    for columns in (WIDE, WIDE // 2):
        scene = write_scene(folder / f"{columns}.tif", ROWS, columns)
        (folder / str(columns)).mkdir()
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            found[columns] = pool.apply(peak, (package, scene, folder / str(columns)))
        say(f"{columns} columns: {found[columns]:.2f} GiB above idle")
    return [
        Claim(
            "GiB of memory at the peak above the idle process",
            found[WIDE],
            1.5,
            f"{ROWS} × {WIDE} pixels; {found[WIDE // 2]:.2f} at half the width",
        )
    ]


def peak(package: Path, scene: Path, folder: Path) -> float:
    """Return how many GiB a map takes beyond the loaded model."""
    model = load_fastest(package, may_round=False)
    model.probabilities(np.zeros((1, 2, 64, 64), np.float32))
    idle = peak_gib()
    mapped(model, scene, folder)
    return peak_gib() - idle


def whole(folder: Path, width: int) -> list[Claim]:
    """Map a scene of Sentinel-1's size into all files that `sarflood map` writes."""
    package = make_model(folder / "model-whole", width)
    load_fastest(package, may_round=True)  # makes its engine files
    scene = write_scene(folder / "whole.tif", HIGH, WIDE)
    say(f"{HIGH} × {WIDE} pixels: {scene.stat().st_size / 1e9:.1f} GB")
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        minutes, gib, summary = pool.apply(take, (package, scene, folder / "maps"))
    say(json.dumps({name: summary[name] for name in ("seconds", "polygons", "flooded_share")}))
    size = f"{HIGH} × {WIDE} pixels, width {width}, all files"
    return [
        Claim("minutes for a whole scene", minutes, 48.0, f"{size}; five in four hours are asked"),
        Claim("GiB of memory at the peak above the idle process, whole scene", gib, 1.5, size),
    ]


def take(package: Path, scene: Path, out: Path) -> tuple[float, float, dict[str, Any]]:
    """Return the minutes that a map takes, the GiB beyond the idle process, and its summary."""
    model = load_fastest(package, may_round=True)
    model.probabilities(np.zeros((1, 2, 64, 64), np.float32))
    idle, started = peak_gib(), time.monotonic()
    with scratch_folder(out) as scratch:
        target = out / "whole"
        job = Job(package, find_scene(scene), scratch, target, "v0.0.0", may_round=True)
        summary = map_into(job)
    return (time.monotonic() - started) / 60, peak_gib() - idle, summary


def peers(folder: Path, python: str, size: int, width: int) -> list[Claim]:
    """Compare with the tiled inference of terratorch and torchgeo, on one thread."""
    scene = folder / "scene.tif"
    package = folder / "model"
    script = Path(__file__).with_name("mapping_peers.py")
    source = Path(__file__).parents[1] / "src"
    alone = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        ours = pool.apply(single, (package, scene, folder))
    say(f"ours, one thread: {ours:.1f} s")
    claims = []
    for name in ("terratorch", "torchgeo"):
        for settings, bound in (({}, 4.0), (ALLOCATOR, 2.0)):
            out = folder / f"{name}-{len(settings)}.json"
            subprocess.run(
                [python, str(script), name, str(scene), str(package), str(out)],
                env={**os.environ, **alone, **settings},
                check=True,
            )
            found: dict[str, Any] = json.loads(out.read_text("utf-8"))
            with rasterio.open(folder / "float32-0" / "flood.tif") as file:
                mask = file.read(1)
            theirs = np.load(out.with_suffix(".npy"))
            known = mask != 255
            equal = float((theirs[known] == mask[known]).mean())
            how = "with our allocator settings" if settings else "as it comes"
            say(f"{name} {how}: {found['seconds']:.1f} s, {equal:.4%} of the pixels equal")
            claims.append(
                Claim(
                    f"times faster than {name} {how}",
                    found["seconds"] / ours,
                    bound,
                    f"{size}² pixels, width {width}, one thread; masks equal {equal:.3%}",
                    at_least=True,
                )
            )
    return claims


def single(package: Path, scene: Path, folder: Path) -> float:
    """Return the seconds of a map on one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    model = load_fastest(package, may_round=False)
    place = folder / "single"
    place.mkdir()
    started = time.monotonic()
    mapped(model, scene, place)
    return time.monotonic() - started


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parser(__doc__ or "")
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--size", type=int, default=4096, help="edge of the scene in pixels")
    options.add_argument("--width", type=int, default=16, help="of the network")
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--whole", action="store_true", help="map a scene of full size, too")
    options.add_argument("--peers", metavar="PYTHON", help="with terratorch and torchgeo")
    asked = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sarflood-mapping-") as name:
        folder = Path(name)
        claims = cost(folder, asked.size, asked.width, asked.turns)
        claims += memory(folder, asked.width)
        if asked.whole:
            claims += whole(folder, asked.width)
        if asked.peers:
            claims += peers(folder, asked.peers, asked.size, asked.width)
    return report(claims, asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
