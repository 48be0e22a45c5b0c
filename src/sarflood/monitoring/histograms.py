"""Histograms of backscatter, and how far two of them are apart."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

STEP = 8  # every so many rows and columns of an image are looked at
_EDGES = {"db": np.arange(-60.0, 30.25, 0.25), "uint8": np.arange(-0.5, 256.5)}
_CLASSES = 10  # deciles of the reference
_LEAST = 1e-4  # share that an empty class counts as

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]
Count = Annotated[int, Field(ge=0)]


class Histogram(BaseModel):
    """Counts by bin, from the first bin that is not empty; the bins after the last are empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Count
    counts: Annotated[tuple[Count, ...], Field(min_length=1)]

    @classmethod
    def of(cls, counts: Counts) -> Self:
        """Pack (B,) counts, not all of them 0."""
        used = np.flatnonzero(counts)
        return cls(first=used[0], counts=tuple(counts[used[0] : used[-1] + 1].tolist()))

    def shares(self, units: str) -> Shares:
        """Return the (B,) share of the values in each bin.

        Raises:
            ValueError: It has no value, or more bins than there are in these units.
        """
        unpacked: Shares = np.zeros(len(bin_edges(units)) - 1)
        if not sum(self.counts) or self.first + len(self.counts) > len(unpacked):
            raise ValueError(f"{len(self.counts)} bins from {self.first} are none of {units}")
        unpacked[self.first : self.first + len(self.counts)] = self.counts
        unpacked /= unpacked.sum()
        return unpacked


def bin_edges(units: str) -> NDArray[np.float64]:
    """Return the (B + 1,) edges: bins of 0.25 dB from −60 to 30 dB, or of one grey level."""
    return _EDGES[units]


def count_values(values: NDArray[np.floating[Any]], units: str) -> Counts:
    """Count values of any shape by (B,) bins; NaN does not count, values beyond count at the ends.

    Args:
        values: In `units`.
        units: `db` or `uint8`.
    """
    edges = bin_edges(units)
    known = values[np.isfinite(values)].astype(np.float32)
    counts: Counts = np.histogram(np.clip(known, edges[0], edges[-1]), edges)[0]
    return counts


def decile_starts(reference: Shares) -> NDArray[np.int64]:
    """Return the first bin of each class: deciles of the (B,) reference, as far as bins allow."""
    cuts = np.searchsorted(np.cumsum(reference), np.arange(1, _CLASSES) / _CLASSES) + 1
    starts: NDArray[np.int64] = np.unique(np.concatenate([[0], cuts[cuts < len(reference)]]))
    return starts


def psi(shares: Shares, reference: Shares, starts: NDArray[np.int64]) -> Shares:
    """Return the population stability index Σ (p − q) · ln(p / q) over classes of bins.

    Siddiqi, Credit Risk Scorecards (2006), chapter 9.

    Args:
        shares: (…, B).
        reference: (…, B).
        starts: First bin of each class, see `decile_starts`.

    Returns:
        (…,).
    """
    p, q = (np.maximum(np.add.reduceat(x, starts, -1), _LEAST) for x in (shares, reference))
    index: Shares = ((p - q) * np.log(p / q)).sum(-1)
    return index


def ks(shares: Shares, reference: Shares) -> Shares:
    """Return the Kolmogorov–Smirnov statistic, the largest distance of the distributions.

    Args:
        shares: (…, B).
        reference: (…, B).

    Returns:
        (…,).
    """
    distance: Shares = np.abs(np.cumsum(shares - reference, -1)).max(-1)
    return distance
