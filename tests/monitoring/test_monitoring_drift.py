from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from sarflood.monitoring.drift import drift_of
from sarflood.monitoring.histograms import bin_edges
from sarflood.patches.store import EventPatches
from sarflood.sources.event import Band, Event, Origin, Units


def event(
    level: float, *, seed: int = 0, units: Units = "db", bands: tuple[Band, ...] = ("vv", "vh")
) -> EventPatches:
    rng = np.random.default_rng(seed)
    images = rng.normal(level, 3.0, (20, len(bands), 64, 64)).astype(np.float16)
    images[:, :, :5] = np.nan
    manifest = Event(
        id=f"e{seed}", name="e", bands=bands, units=units, label=None, source=Origin(name="t")
    )
    return EventPatches(manifest, pd.DataFrame({"id": range(20)}), images, None)


def psi_by_hand(reference: np.ndarray, values: np.ndarray) -> float:
    """Population stability index over the reference's deciles, straight from its definition."""
    cuts = np.quantile(reference, np.arange(1, 10) / 10)
    expected = np.bincount(np.searchsorted(cuts, reference), minlength=10) / len(reference)
    actual = np.bincount(np.searchsorted(cuts, values), minlength=10) / len(values)
    expected, actual = np.maximum(expected, 1e-4), np.maximum(actual, 1e-4)
    return float(((actual - expected) * np.log(actual / expected)).sum())


def sampled(patches: EventPatches, band: int) -> np.ndarray:
    values = patches.images[:, band, ::8, ::8].astype(np.float64).ravel()
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


@pytest.mark.parametrize("shift", [0.0, 1.0, 4.0])
def test_the_figures_are_their_definitions(shift: float) -> None:
    reference, new = event(-12.0), event(-12.0 + shift, seed=1)
    for band, drift in enumerate(drift_of(new, [reference])):
        one, other = sampled(reference, band), sampled(new, band)
        assert drift.psi == pytest.approx(psi_by_hand(one, other), abs=0.1 + 0.05 * shift)
        assert drift.ks == pytest.approx(ks_2samp(one, other).statistic, abs=0.03)
        assert drift.pixels == len(other)


def test_the_same_kind_of_event_has_not_drifted_and_another_has() -> None:
    reference = [event(-12.0, seed=seed) for seed in range(3)]
    assert not any(band.drifted for band in drift_of(event(-12.0, seed=5), reference))
    drifted = drift_of(event(-8.0, seed=5), reference)
    assert all(band.drifted for band in drifted)
    assert drifted[0].sentence().startswith("VV differs from the accepted events: population")


def test_only_events_of_the_same_units_and_bands_are_compared() -> None:
    new = event(-12.0)
    assert drift_of(new, []) == []
    assert drift_of(new, [event(100.0, units="uint8")]) == []
    [only] = drift_of(new, [event(-12.0, seed=2, bands=("vv",))])
    assert only.band == "vv"


def test_values_beyond_the_scale_count_at_its_ends() -> None:
    reference = event(-12.0)
    new = event(-12.0, seed=1)
    new.images[0] = 300.0
    assert drift_of(new, [reference])[0].pixels == sampled(new, 0).size
    assert len(bin_edges("uint8")) == 257
