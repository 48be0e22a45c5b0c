"""How often drift is seen where there is none, and where there is, on simulated scenes.

A model is trained on a few scenes. It then maps others of the same kind: as they are, with all
bands off by 1 dB, and at another incidence angle (less backscatter a degree, over water more so).
Each of these is a window of its own; windows of more images are drawn from those of a kind.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.claims import Claim, parser, report
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.mapping.patches import map_patches
from sarflood.model.package import FloodModel
from sarflood.monitoring.compare import compare
from sarflood.monitoring.reference import Reference, make_reference
from sarflood.monitoring.sight import Seen, Sight
from sarflood.params import Params, load_params
from sarflood.patches.loader import take
from sarflood.patches.split import split_events
from sarflood.patches.store import open_events
from sarflood.raster.patch import PATCH, WET
from sarflood.sources.backscatter import simulate_window
from sarflood.sources.landscape import Landscape
from sarflood.sources.simulate import simulate_event
from sarflood.training.fit import fit
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[1]
SIZES = (1, 5, 20)
FIRST_NEW = 1000  # seed
# dB a degree that backscatter falls with the incidence angle, in VV and VH: 0.1 to 0.25 are usual
# over land in C band.
LAND_DB, WATER_DB = 0.15, 0.4

Image = NDArray[np.float32]
Change = Callable[[Image, NDArray[np.bool_]], Image]


def _incidence(degrees: float) -> Change:
    land, water = np.float32(LAND_DB * degrees), np.float32(WATER_DB * degrees)
    return lambda image, is_water: image - np.where(is_water, water, land)


CHANGES: dict[str, Change] = {
    "quiet": lambda image, _: image,
    "+1 dB": lambda image, _: image + 1,
    "−1 dB": lambda image, _: image - 1,
    "incidence +8°": _incidence(8),
    "incidence −8°": _incidence(-8),
}


def main() -> int:
    """Train, map, compare, and report."""
    command = parser(__doc__ or "")
    command.add_argument("--scenes", type=int, default=4, help="to train on, 1536 pixels a side")
    command.add_argument("--tries", type=int, default=100, help="quiet scenes, 1024 pixels a side")
    command.add_argument("--changed", type=int, default=40, help="scenes of each change")
    command.add_argument("--windows", type=int, default=40, help="of each size and kind")
    options = command.parse_args()
    params = load_params(ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        model, reference = _trained(Workspace(Path(folder)), params, options.scenes)
    random = np.random.default_rng(0)
    table = Table("share of windows with drift", *(f"{size} images" for size in SIZES))
    found: dict[tuple[str, int], float] = {}
    for name, change in CHANGES.items():
        number = options.tries if name == "quiet" else options.changed
        seen = [_map(model, FIRST_NEW + seed, change) for seed in range(number)]
        for size in SIZES:
            windows = [[item] for item in seen]
            if size > 1:
                draws = (random.choice(number, size, replace=False) for _ in range(options.windows))
                windows = [[seen[place] for place in draw] for draw in draws]
            drifts = [bool(compare(reference, item, params.monitoring).reasons) for item in windows]
            found[name, size] = float(np.mean(drifts))
        table.add_row(name, *(f"{found[name, size]:.0%}" for size in SIZES))
        print(name, [found[name, size] for size in SIZES], file=sys.stderr, flush=True)
    Console().print(table)
    of = f"trained on {options.scenes} scenes"
    single = f"{options.tries} new scenes, each a window of one image; {of}"
    many = f"{options.windows} windows of {SIZES[-1]} images; {of}"
    claims = [
        Claim("drift: false alarms, single scenes", found["quiet", 1], 0.05, single),
        Claim("drift: false alarms, windows", found["quiet", SIZES[-1]], 0.05, many),
    ]
    claims += [
        Claim(f"drift: {name} seen", found[name, SIZES[-1]], 0.95, many, at_least=True)
        for name in CHANGES
        if name != "quiet"
    ]
    return report(claims, options.json)


def _trained(workspace: Workspace, params: Params, scenes: int) -> tuple[FloodModel, Reference]:
    """Simulate, ingest, split and train; each scene is an event on ground of its own."""
    for seed in range(scenes):
        source = workspace.root / f"source-{seed}"
        simulate_event(source, seed=seed, size=6 * PATCH)
        for path in source.iterdir():
            with rasterio.open(path, "r+") as raster:
                raster.transform = Affine.translation(0, -100_000 * seed) @ raster.transform
        ingest_event(workspace, str(source), f"event-{seed}", Said(), params.validation)
    events = open_events(workspace.events)
    split = split_events(events, params.split)
    changed = {"epochs": 4, "min_steps": 200, "max_minutes": 5.0}
    params = params.model_copy(
        update={
            "model": params.model.model_copy(update={"variant": "light"}),
            "train": params.train.model_copy(update=changed),
        }
    )
    train, val = (take(events, split, part, params.input) for part in ("train", "val"))
    first = events[0].event
    fitted = fit(
        train,
        val,
        first.bands,
        params,
        lambda epoch: print(f"epoch {epoch.epoch}, IoU {epoch.val_iou:.3f}", file=sys.stderr),
    )
    model = fitted.model(first, params)
    return model, make_reference(model, events, split)


def _map(model: FloodModel, seed: int, change: Change) -> Seen:
    """Simulate a scene of 4×4 patches, change it, and map it."""
    place, edge = Landscape(seed, 4 * PATCH), np.arange(4 * PATCH)
    scene = simulate_window(place, 0, 0, edge.size, edge.size)
    river = place.terrain(edge, edge).river
    image = np.concatenate(
        [change(scene.after, river | (scene.mask == WET)), change(scene.before, river)]
    )
    patches = image.reshape(4, 4, PATCH, 4, PATCH).transpose(1, 3, 0, 2, 4)
    sight = Sight(model.manifest)
    map_patches(model, patches.reshape(16, 4, PATCH, PATCH), sight)
    seen = sight.seen("v0.1.0")
    if seen is None:
        raise AssertionError(f"scene {seed} has no data")
    return seen


if __name__ == "__main__":
    sys.exit(main())
