"""Drift of an event's backscatter against other events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sarflood.monitoring.histograms import STEP, Counts, count_values, decile_starts, ks, psi
from sarflood.patches.store import EventPatches

MAX_PSI = 0.25  # Siddiqi, Credit Risk Scorecards (2006): above it "a significant shift"
_PATCHES = 200  # of an event are looked at, evenly spaced


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
        (B,) counts, see `bin_edges`.
    """
    position = patches.event.bands.index(band)
    rows = np.unique(np.linspace(0, len(patches.images) - 1, _PATCHES).astype(np.int64))
    return count_values(patches.images[rows, position, ::STEP, ::STEP], patches.event.units)


def _compare(band: str, counts: Counts, reference: Counts) -> BandDrift:
    own, other = (item / max(int(item.sum()), 1) for item in (counts, reference))
    return BandDrift(
        band=band,
        psi=float(psi(own, other, decile_starts(other))),
        ks=float(ks(own, other)),
        pixels=int(counts.sum()),
        reference_pixels=int(reference.sum()),
    )
