"""A training of small simulated scenes, and what a service would have seen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np

from sarflood.monitoring.histograms import STEP, Histogram, count_values
from sarflood.monitoring.reference import Answered, Reference, Trained
from sarflood.monitoring.sight import Seen
from sarflood.sources.backscatter import simulate_window
from sarflood.sources.landscape import Landscape

BANDS = ("vv", "vv_pre")
EDGE = 1024


def histograms(image: np.ndarray) -> dict[str, Histogram]:
    """(C, h, w) thinned dB by band."""
    counts = [count_values(values, "db") for values in image]
    return dict(zip(BANDS, map(Histogram.of, counts), strict=True))


def scene(seed: int, shift_db: float = 0.0) -> np.ndarray:
    """(C, 128, 128): every 8th pixel of every 8th row of a simulated scene."""
    simulated = simulate_window(Landscape(seed, EDGE), 0, 0, EDGE, EDGE)
    image = np.stack([simulated.after[0], simulated.before[0]])
    thinned: np.ndarray = image[:, ::STEP, ::STEP] + np.float32(shift_db)
    return thinned


def training(seeds: Sequence[int]) -> Reference:
    """A reference of whole scenes, with a confidence that differs from patch to patch."""
    random = np.random.default_rng(0)
    size = 256 // STEP
    train, val = [], []
    for seed in seeds:
        image = scene(seed)
        for row in range(0, image.shape[1], size):
            for col in range(0, image.shape[2], size):
                part = histograms(image[:, row : row + size, col : col + size])
                train.append(Trained(scene=f"s{seed}", bands=part))
        val += [
            Answered(scene=f"s{seed}", wet_share=0.1, confidence=float(sure))
            for sure in random.normal(0.9, 0.02, 6)
        ]
    return Reference(units="db", bands=BANDS, train=tuple(train), val=tuple(val))


def seen(
    seed: int = 0, shift_db: float = 0.0, confidence: float = 0.9, version: str = "v0.1.0"
) -> Seen:
    """What is kept of a simulated scene; each seed is a minute after the one before."""
    image = scene(seed, shift_db)
    return Seen(
        time=dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=seed),
        version=version,
        units="db",
        pixels=int(np.isfinite(image).all(axis=0).sum()),
        bands=histograms(image),
        wet_share=0.12,
        confidence=confidence,
    )
