"""Small stored events, their split, and models to score on them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tiny import LOSS, PLAIN, network_params

from sarflood.model.package import FloodModel, ModelManifest, TrainedOn
from sarflood.model.unet import UNet
from sarflood.patches.store import EventPatches, PatchWriter, open_events
from sarflood.sources.event import Event, Origin
from sarflood.sources.reader import RawPatch

WET_VV, DRY_VV = -19.0, -9.0


def radar_patch(name: str, seed: int, *, water: bool = True) -> RawPatch:
    """Speckled VV and VH over a lake, with a corner of no data and a corner of no label."""
    random = np.random.default_rng(seed)
    rows, cols = np.indices((256, 256))
    centre, radius = random.integers(90, 160, 2), random.integers(20, 80)
    mask = ((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 < radius**2).astype(np.uint8)
    mask *= water
    speckle = 10 * np.log10(random.gamma(4.4, 1 / 4.4, (2, 256, 256)))
    vv = np.where(mask == 1, WET_VV, DRY_VV) + speckle[0]
    image = np.stack([vv, vv - 6 + speckle[1]]).astype(np.float32)
    image[0, :20, :10] = np.nan
    mask[-30:, -40:] = 255
    return RawPatch(name, image, mask)


def write_event(folder: Path, event_id: str, seeds: range, *, labelled: bool = True) -> None:
    event = Event(
        id=event_id,
        name=f"Flood of {event_id} <script>alert(1)</script>",
        acquired=dt.date(2024, 5, 6),
        region="Luzon",
        bands=("vv", "vh"),
        units="db",
        label="water" if labelled else None,
        source=Origin(name="synthetic"),
    )
    folder.mkdir(parents=True)
    with PatchWriter(folder, event) as writer:
        for seed in seeds:
            patch = radar_patch(f"p{seed:02d}", seed, water=seed % 5 != 0)
            if not labelled:
                patch = RawPatch(patch.name, patch.image, None)
            writer.add(patch, item=patch.name)


def make_events(folder: Path) -> list[EventPatches]:
    """Two labelled events of 24 and 4 patches, and one without labels between them."""
    write_event(folder / "east", "east", range(24))
    write_event(folder / "north", "north", range(24, 28), labelled=False)
    write_event(folder / "west", "west", range(28, 32))
    return open_events(folder)


def make_split(events: list[EventPatches]) -> pd.DataFrame:
    """East: 4 training patches, 20 test patches (more than a batch); west: 1 and 3."""
    table = pd.concat([patches.index[["id", "event"]] for patches in events], ignore_index=True)
    number = table.groupby("event").cumcount()
    trains = number < table["event"].map({"east": 4, "north": 0, "west": 1})
    return table.assign(split=np.where(trains, "train", "test"))


def random_model() -> FloodModel:
    """A small network with random weights, wet for half of the pixels of a patch."""
    torch.manual_seed(1)
    model = FloodModel(manifest(), UNet(2, network_params(width=2, depth=1)).eval())
    with torch.inference_mode():
        logits = model.network(model.normalise(radar_patch("any", 1).image[None]))
        model.network.head.bias -= logits.median()
    return model


def manifest() -> ModelManifest:
    return ModelManifest(
        bands=("vv", "vh"),
        units="db",
        label="water",
        network=network_params(width=2, depth=1),
        input=PLAIN,
        mean=(-10.0, -16.0),
        std=(4.0, 4.0),
        temperature=1.0,
        threshold=0.5,
        loss=LOSS,
        trained_on=(TrainedOn(event="east", index_sha256="ab" * 32),),
        params_sha256="cd" * 32,
        commit="0123456789abcdef",
        sarflood="0.1.0",
        created=dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC),
    )


def constant_model(logit: float) -> FloodModel:
    """A model that gives each pixel the same logit."""
    network = UNet(2, network_params(width=2, depth=1)).eval()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, logit)  # type: ignore[arg-type]
    return FloodModel(manifest(), network)
