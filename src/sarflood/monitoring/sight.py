"""What is kept of a mapped image: statistics, never imagery, nor a name that a client gave."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sarflood.monitoring.histograms import STEP, Histogram, bin_edges, count_values

if TYPE_CHECKING:
    from sarflood.model.package import ModelManifest  # imports torch, which few readers need

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Seen(BaseModel):
    """One mapped image, or one request with patches: a line of the journal.

    `pixels` are those with data among those looked at, every 8th of every 8th row; `wet_share` is
    of these, and `confidence` their mean of max(p, 1 − p).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: dt.datetime
    version: str
    units: str
    pixels: Annotated[int, Field(gt=0)]
    bands: dict[str, Histogram]
    wet_share: Share
    confidence: Share

    @model_validator(mode="after")
    def _bins_fit(self) -> Self:
        check_bins(self.units, self.bands)
        return self


def check_bins(units: str, bands: dict[str, Histogram]) -> None:
    """Raise `ValueError` for unknown units, or histograms with bins that these do not have."""
    try:
        bin_edges(units)
    except KeyError as error:
        raise ValueError(f"units {units!r}: known are db and uint8") from error
    for histogram in bands.values():
        histogram.shares(units)


def beyond_training(
    images: NDArray[np.floating[Any]], ranges: Sequence[tuple[float, float]]
) -> NDArray[np.bool_]:
    """Say which pixels have a band beyond what the training saw.

    Args:
        images: (N, C, H, W); NaN is no data.
        ranges: Of each band, between which values the training lay; see `Reference.ranges`.

    Returns:
        (N, H, W) bool; False where any band has no data.
    """
    beyond = np.zeros_like(images[:, 0], np.bool_)
    valid = np.ones_like(beyond)
    for position, (low, high) in enumerate(ranges):
        band = images[:, position]
        beyond |= (band < low) | (band > high)
        valid &= np.isfinite(band)
    return beyond & valid


class Sight:
    """Gathers the statistics of one image, part by part, as it is mapped.

    Args:
        manifest: The model's.
        ranges: Of each band, between which values its training lay; see `Reference.ranges`.
    """

    def __init__(
        self, manifest: ModelManifest, ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        self._manifest = manifest
        bins = len(bin_edges(manifest.units)) - 1
        self._counts = np.zeros((len(manifest.bands), bins), np.int64)
        self._pixels, self._wet, self._confidence = 0, 0, 0.0
        self._outside = 0
        self._ranges = None
        if ranges:
            self._ranges = [ranges[band] for band in manifest.bands]

    def add(
        self, images: NDArray[np.floating[Any]], probabilities: NDArray[np.floating[Any]]
    ) -> None:
        """Take in a part.

        Args:
            images: (N, C, H, W) in the model's bands and units; NaN is no data.
            probabilities: (N, H, W) of "wet"; NaN is no data.
        """
        thinned = images[..., ::STEP, ::STEP]
        for position in range(len(self._counts)):
            self._counts[position] += count_values(thinned[:, position], self._manifest.units)
        answered = probabilities[:, ::STEP, ::STEP].astype(np.float64)
        answered = answered[np.isfinite(answered)]
        self._pixels += answered.size
        self._wet += int((answered >= self._manifest.threshold).sum())
        self._confidence += float(np.maximum(answered, 1 - answered).sum())
        if self._ranges is not None:
            self._outside += int(beyond_training(thinned, self._ranges).sum())

    @property
    def outside_share(self) -> float | None:
        """Share of the pixels with a band beyond the training; None where that is not known."""
        return self._outside / self._pixels if self._ranges is not None and self._pixels else None

    def seen(self, version: str) -> Seen | None:
        """Return what was gathered, dated now; None where no pixel has data."""
        if not self._pixels:
            return None
        return Seen(
            time=dt.datetime.now(dt.UTC).replace(microsecond=0),
            version=version,
            units=self._manifest.units,
            pixels=self._pixels,
            bands={
                band: Histogram.of(counts)
                for band, counts in zip(self._manifest.bands, self._counts, strict=True)
            },
            wet_share=self._wet / self._pixels,
            confidence=self._confidence / self._pixels,
        )
