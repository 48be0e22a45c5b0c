"""What a service has seen, against what its model was trained on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarflood.monitoring.histograms import Shares, decile_starts, ks, psi
from sarflood.monitoring.reference import Reference
from sarflood.monitoring.sight import Seen
from sarflood.params import MonitoringParams

_DRAWS = 1000
# Neighbouring patches are alike, and a new scene is none of the training's: either varies as so few
# patches drawn from one scene do, and as half of them where there is one scene alone, which does
# not tell how scenes differ. `bench/drift.py` measures what comes of it.
_INDEPENDENT = 4
_PATCH_PIXELS = 1024  # every 8th of every 8th row's of 256×256
_RANGE = 0.001  # share of the training's values that lie beyond either end of its range


@dataclass(frozen=True)
class Figure:
    """A figure of the window, and what it may be.

    Attributes:
        name: `psi`, `ks` or `confidence_drop`.
        band: Such as `vv`; None for the confidence.
        value: What it is.
        limit: The larger of the setting and of what quiet windows of this size reach.
    """

    name: str
    band: str | None
    value: float
    limit: float

    @property
    def drifted(self) -> bool:
        """Whether it is beyond its limit."""
        return self.value > self.limit

    def sentence(self) -> str:
        """Say it."""
        what = {"psi": "population stability index", "ks": "KS", "confidence_drop": "confidence"}
        verb = "fell by" if self.band is None else "is"
        band = f"{self.band.upper().replace('_', ' ')}: " if self.band else ""
        return f"{band}{what[self.name]} {verb} {self.value:.3f} (at most {self.limit:.3f})"


@dataclass(frozen=True)
class Drift:
    """A window of images against the training.

    Attributes:
        version: The model's.
        images: Number of images in the window.
        first: When the first of them was mapped.
        last: When the last was.
        figures: PSI and KS of each band, and the confidence.
        outside: By band, the share of the window's values beyond the training's range, from 0.1 to
            99.9 % of its values.
        wet_share: Of the window, and of the validation patches.
        confidence: Likewise.
    """

    version: str
    images: int
    first: dt.datetime
    last: dt.datetime
    figures: tuple[Figure, ...]
    outside: dict[str, float]
    wet_share: tuple[float, float]
    confidence: tuple[float, float]

    @property
    def reasons(self) -> list[str]:
        """What is beyond its limit, in words."""
        return [figure.sentence() for figure in self.figures if figure.drifted]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "version": self.version,
            "drifted": bool(self.reasons),
            "reasons": self.reasons,
            "images": self.images,
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "figures": [asdict(item) | {"drifted": item.drifted} for item in self.figures],
            "outside": self.outside,
            **{
                name: {"seen": seen, "training": training}
                for name, (seen, training) in (
                    ("wet_share", self.wet_share),
                    ("confidence", self.confidence),
                )
            },
        }


def compare(reference: Reference, seen: Sequence[Seen], params: MonitoringParams) -> Drift:
    """Compare the last images with the training.

    Images count alike in the window, and so do scenes in the training. A figure drifts when it is
    beyond both its setting and what `quiet` windows of as many images reach.

    Args:
        reference: Of the model's training.
        seen: What the model has seen, oldest first; at least one.
        params: The settings.
    """
    window = seen[-params.window :]
    patches = np.stack([shares_of(item.bands, reference) for item in reference.train])
    train = _Drawn([item.scene for item in reference.train])
    val = _Drawn([item.scene for item in reference.val])
    told = np.array([[item.wet_share, item.confidence] for item in reference.val])
    known, expected = np.tensordot(train.even, patches, 1), val.even @ told
    mine = np.mean([shares_of(item.bands, reference) for item in window], axis=0)
    answered = np.mean([[item.wet_share, item.confidence] for item in window], axis=0)
    starts = [decile_starts(band) for band in known]

    values = _figures(mine[None], known[None], starts, expected[None, 1] - answered[None, 1])[0]
    sizes = np.array([max(item.pixels // _PATCH_PIXELS, 1) for item in window])
    random = np.random.default_rng(0)
    drawn, centre = (
        np.tensordot(weights, patches, 1)
        for weights in (train.windows(sizes, random), train.trainings(random))
    )
    drops = (val.trainings(random) - val.windows(sizes, random)) @ told[:, 1]
    quiet = _quiet_limits(_figures(drawn, centre, starts, drops), params.false_alarms)
    names: list[tuple[str, str | None]] = [
        *((name, band) for name in ("psi", "ks") for band in reference.bands),
        ("confidence_drop", None),
    ]
    floors = {
        "psi": params.max_psi,
        "ks": params.max_ks,
        "confidence_drop": params.max_confidence_drop,
    }
    return Drift(
        version=window[-1].version,
        images=len(window),
        first=window[0].time,
        last=window[-1].time,
        figures=tuple(
            Figure(name, band, float(value), max(float(limit), floors[name]))
            for (name, band), value, limit in zip(names, values, quiet, strict=True)
        ),
        outside={
            band: float(own[_outside(training)].sum())
            for band, own, training in zip(reference.bands, mine, known, strict=True)
        },
        wet_share=(float(answered[0]), float(expected[0])),
        confidence=(float(answered[1]), float(expected[1])),
    )


def shares_of(bands: dict[str, Any], reference: Reference) -> Shares:
    """Return histograms as (C, B) shares in the order of the reference's bands."""
    return np.stack([bands[band].shares(reference.units) for band in reference.bands])


def training_shares(reference: Reference) -> Shares:
    """Return the (C, B) shares of the training's values by bin, each scene counting alike."""
    patches = np.stack([shares_of(item.bands, reference) for item in reference.train])
    shares: Shares = np.tensordot(_Drawn([item.scene for item in reference.train]).even, patches, 1)
    return shares


class _Drawn:
    """Draws what quiet windows and other trainings would be made of: weights of patches.

    Args:
        scenes: The scene of each patch.
    """

    def __init__(self, scenes: Sequence[str]) -> None:
        names, self._scene = np.unique(scenes, return_inverse=True)
        self._sizes = np.bincount(self._scene)
        self._independent = min(_INDEPENDENT, len(names) * _INDEPENDENT // 2)
        self._by_scene = np.argsort(self._scene, kind="stable")
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.even: Shares = (1 / len(names) / self._sizes)[self._scene]

    def windows(self, sizes: NDArray[np.int64], random: np.random.Generator) -> Shares:
        """Draw windows: a scene for each image, and patches of it, with replacement.

        Args:
            sizes: How many patches each image is as large as; no more than four are drawn.
            random: Draws.

        Returns:
            (draws, patches); each row adds up to 1.
        """
        sizes = np.minimum(sizes, self._independent)
        scene = random.integers(len(self._sizes), size=(_DRAWS, len(sizes), 1))
        place = random.random((_DRAWS, len(sizes), self._independent)) * self._sizes[scene]
        patch = self._by_scene[self._starts[scene] + place.astype(np.int64)]
        share = np.where(np.arange(self._independent) < sizes[:, None], 1 / sizes[:, None], 0)
        weights = np.zeros((_DRAWS, len(self._scene)))
        draw = np.arange(_DRAWS)[:, None, None]
        np.add.at(weights, (draw, patch), np.broadcast_to(share / len(sizes), patch.shape))
        return weights

    def trainings(self, random: np.random.Generator) -> Shares:
        """Draw other trainings of the same kind by the Bayesian bootstrap of scenes and patches.

        Rubin, The Bayesian Bootstrap (1981), https://doi.org/10.1214/aos/1176345338. The patches
        of a scene vary as four independent ones do.

        Returns:
            (draws, patches); each row adds up to 1.
        """
        shape = np.minimum(self._independent / self._sizes, 1.0)[self._scene]
        patches = random.gamma(shape, size=(_DRAWS, len(self._scene)))
        totals = np.add.reduceat(patches[:, self._by_scene], self._starts, axis=1)
        scenes = random.exponential(size=totals.shape)
        scenes /= scenes.sum(axis=1, keepdims=True)
        weights: Shares = patches * (scenes / totals)[:, self._scene]
        return weights


def _figures(shares: Shares, reference: Shares, starts: list[Any], drops: Shares) -> Shares:
    """Return the (D, 2 C + 1) figures of (D, C, B) windows against (D, C, B) trainings."""
    indices = [psi(shares[:, c], reference[:, c], first) for c, first in enumerate(starts)]
    return np.column_stack([*indices, ks(shares, reference), drops])


def _quiet_limits(quiet: Shares, false_alarms: float) -> Shares:
    """Return limits that a share `false_alarms` of the quiet windows exceeds in any figure.

    Figures are scaled by their own spread, so that none has all of the alarms (Westfall and Young,
    Resampling-Based Multiple Testing, 1993, the single-step procedure).

    Args:
        quiet: (D, 2 C + 1), as `_figures` gives them.
        false_alarms: Above 0.
    """
    # The stability index grows with the square of a shift, the other figures with the shift.
    power = np.where(np.arange(quiet.shape[1]) < quiet.shape[1] // 2, 0.5, 1.0)
    linear = np.sign(quiet) * np.abs(quiet) ** power
    spread = np.maximum(np.quantile(linear, 0.9, axis=0), 1e-6)
    factor = max(np.quantile((linear / spread).max(axis=1), 1 - false_alarms), 1.0)
    limits: Shares = (spread * factor) ** (1 / power)
    return limits


def _outside(training: Shares) -> NDArray[np.bool_]:
    below = np.cumsum(training)
    outside: NDArray[np.bool_] = (below < _RANGE) | (below - training > 1 - _RANGE)
    return outside
