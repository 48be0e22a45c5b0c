"""Tables of per-patch statistics, made from synthetic patches as ingest makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.params import ValidationParams, load_params
from sarflood.patches.store import describe
from sarflood.sources.event import Band, Event, Origin, Units
from sarflood.sources.reader import RawPatch

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]
Spoil = Callable[[Image, Mask], None]

PARAMS: ValidationParams = load_params(Path(__file__).parents[2] / "params.yaml").validation
BANDS: tuple[Band, ...] = ("vv", "vh")
SIZE = 256


def speckled_patch(seed: int, units: str) -> tuple[Image, Mask]:
    """A river in a field: (2, 256, 256) VV and VH with the speckle of 4 looks, and its mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    rows, cols = np.indices((SIZE, SIZE))
    middle = 60 + seed % 100 + 12 * np.sin(rows / 30 + seed)
    mask[np.abs(cols - middle) < 30] = 1
    calm = np.where(mask == 1, -20.0, -10.0)
    speckle = 10 * np.log10(rng.gamma(4.0, 1 / 4.0, (2, SIZE, SIZE)))
    decibel = np.stack([calm, calm - 7.0]) + speckle
    if units == "uint8":
        decibel = np.clip(np.round((decibel + 35.0) * 6.0), 0, 255)
    return decibel.astype(np.float32), mask


def index_row(
    name: str, event: str, image: Image, mask: Mask | None, units: Units
) -> dict[str, object]:
    manifest = Event(
        id=event,
        name=event,
        bands=BANDS,
        units=units,
        label=None if mask is None else "water",
        source=Origin(name="test"),
    )
    return describe(RawPatch(name, image, mask), manifest, name).row


def patch_table(
    units: Units = "db",
    *,
    event: str = "elbe-2013",
    count: int = 10,
    first_seed: int = 0,
    labelled: bool = True,
    spoil: Mapping[int, Spoil] | None = None,
) -> pd.DataFrame:
    """An event's index; `spoil` damages the patches of the given numbers in place."""
    rows = []
    for number in range(count):
        image, mask = speckled_patch(first_seed + number, units)
        if spoil and number in spoil:
            spoil[number](image, mask)
        rows.append(index_row(f"p{number}", event, image, mask if labelled else None, units))
    return pd.DataFrame(rows)
