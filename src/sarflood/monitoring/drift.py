"""Drift of an event's backscatter against other events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sarflood.patches.store import EventPatches

MAX_PSI = 0.25  # Siddiqi, Credit Risk Scorecards (2006): above it "a significant shift"
_CLASSES = 10  # deciles of the reference
_PATCHES = 200  # of an event are looked at, evenly spaced
_STEP = 8  # every so many rows and columns of a patch
_EDGES = {"db": np.arange(-60.0, 30.25, 0.25), "uint8": np.arange(-0.5, 256.5)}
_LEAST = 1e-4  # share that an empty class counts as

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class BandDrift:
    """How one band of an event differs from the reference.

    Attributes:
        band: Such as `vv`.
        psi: Population stability index over the deciles of the reference: Σ (p − q) · ln(p / q).
        ks: Two-sample Kolmogorov–Smirnov statistic: the largest distance of the distributions.
        pixels: Number of pixels of the event that were looked at.
        reference_pixels: The same of the reference.
    """

    band: str
    psi: float
    ks: float
    pixels: int
    reference_pixels: int

    @property
    def drifted(self) -> bool:
        """Whether the band differs so much that a person should know."""
        return self.psi > MAX_PSI

    def sentence(self) -> str:
        """Say it."""
        return (
            f"{self.band.upper()} differs from the accepted events: population stability index "
            f"{self.psi:.2f} (above {MAX_PSI:g}), KS {self.ks:.2f}"
        )


def drift_of(event: EventPatches, reference: Sequence[EventPatches]) -> list[BandDrift]:
    """Compare the pixel values of an event with those of others, band by band.

    Args:
        event: The event; with or without labels.
        reference: The others; those in other units do not count, nor those without the band.

    Returns:
        One figure for each band that the reference has; none without a reference.
    """
    drifts = []
    fitting = [item for item in reference if item.event.units == event.event.units]
    for band in event.event.bands:
        others = [band_histogram(item, band) for item in fitting if band in item.event.bands]
        if others:
            drifts.append(_compare(band, band_histogram(event, band), np.sum(others, axis=0)))
    return drifts


def band_histogram(patches: EventPatches, band: str) -> Counts:
    """Count the values of one band, of at most 200 patches and every 8th row and column.

    Returns:
        (B,) counts in bins of 0.25 dB from −60 to 30 dB, or of one grey level; see `bin_edges`.
    """
    position = patches.event.bands.index(band)
    edges = bin_edges(patches.event.units)
    rows = np.unique(np.linspace(0, len(patches.images) - 1, _PATCHES).astype(np.int64))
    counts = np.zeros(len(edges) - 1, np.int64)
    for row in rows:
        values = patches.images[row, position, ::_STEP, ::_STEP].astype(np.float32)
        values = np.clip(values[np.isfinite(values)], edges[0], edges[-1])
        counts += np.histogram(values, edges)[0]
    return counts


def bin_edges(units: str) -> NDArray[np.float64]:
    """Return the (B + 1,) edges of the histogram's bins."""
    return _EDGES[units]


def _compare(band: str, counts: Counts, reference: Counts) -> BandDrift:
    below = np.cumsum(reference) / max(int(reference.sum()), 1)
    own = np.cumsum(counts) / max(int(counts.sum()), 1)
    cuts = np.searchsorted(below, np.arange(1, _CLASSES) / _CLASSES)
    bounds = np.unique(np.concatenate([[-1], cuts, [len(counts) - 1]]))
    expected, actual = (
        np.maximum(np.diff(np.concatenate([[0.0], total])[bounds + 1]), _LEAST)
        for total in (below, own)
    )
    return BandDrift(
        band=band,
        psi=float(((actual - expected) * np.log(actual / expected)).sum()),
        ks=float(np.abs(below - own).max()),
        pixels=int(counts.sum()),
        reference_pixels=int(reference.sum()),
    )
