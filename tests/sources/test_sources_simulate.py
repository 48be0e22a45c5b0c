"""Simulated events: the same by seed, like radar, and beyond a threshold."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from sarflood.errors import InputError, SarfloodError
from sarflood.files import sha256
from sarflood.sources.backscatter import simulate_window
from sarflood.sources.landscape import Landscape
from sarflood.sources.reader import RawPatch
from sarflood.sources.readers import recognise
from sarflood.sources.simulate import simulate_event

ReadAll = Callable[[Path], list[RawPatch]]


def _otsu(values: np.ndarray) -> float:
    """Otsu (1979): the threshold with the largest variance between the classes."""
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    total = (counts * middles).sum() / counts.sum()
    between = (total * below - mass) ** 2 / (below * (counts.sum() - below))
    return float(edges[1:][np.argmax(between)])


def test_same_seed_same_bytes_other_seed_other_place(tmp_path: Path) -> None:
    for name, seed in (("one", 4), ("two", 4), ("other", 5)):
        simulate_event(tmp_path / name, seed=seed, size=600)
    names = ["mask.tif", "pre.tif", "scene.tif"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert sha256(tmp_path / "one" / name) == sha256(tmp_path / "two" / name)
        assert sha256(tmp_path / "one" / name) != sha256(tmp_path / "other" / name)


def test_a_pixel_is_the_same_in_every_window(tmp_path: Path) -> None:
    simulate_event(tmp_path / "event", seed=3, size=700)
    place = Landscape(3, 700)
    with rasterio.open(tmp_path / "event" / "scene.tif") as scene:
        after = scene.read()
    with rasterio.open(tmp_path / "event" / "pre.tif") as pre:
        before = pre.read()
    with rasterio.open(tmp_path / "event" / "mask.tif") as mask:
        truth = mask.read(1)
    for row, col, height, width in ((490, 505, 77, 31), (0, 0, 1, 1), (13, 600, 400, 100)):
        window = simulate_window(place, row, col, height, width)
        at = np.s_[row : row + height, col : col + width]
        np.testing.assert_array_equal(window.after, after[:, *at])
        np.testing.assert_array_equal(window.before, before[:, *at])
        np.testing.assert_array_equal(window.mask, truth[at])


def test_reader_takes_it_with_georeference_bands_and_label(
    tmp_path: Path, read_all: ReadAll
) -> None:
    simulate_event(tmp_path / "event", seed=0, size=512)
    root = tmp_path / "event"
    facts = recognise(root).facts(root)
    assert facts.bands == ("vv", "vh", "vv_pre", "vh_pre")
    assert (facts.units, facts.label) == ("db", "flood")
    patches = read_all(root)
    assert len(patches) == 4
    assert {patch.crs for patch in patches} == {"EPSG:32651"}
    assert patches[3].transform is not None
    assert tuple(patches[3].transform)[:6] == (10, 0, 302_560, 0, -10, 1_797_440)
    for patch in patches:
        assert patch.mask is not None
        outside = np.isnan(patch.image[0])
        np.testing.assert_array_equal(outside, patch.mask == 255)
        assert np.isfinite(patch.image[2:]).all()
        assert outside.mean() < 0.95  # the swath's edge never takes a whole patch of a small scene
    with rasterio.open(root / "scene.tif") as scene:
        assert scene.descriptions == ("VV", "VH")
        assert scene.profile["tiled"]
        assert scene.profile["compress"] == "deflate"


@pytest.mark.parametrize("seed", range(10))
def test_plausible_flood_beyond_a_threshold(seed: int) -> None:
    size = 1024
    event = simulate_window(Landscape(seed, size), 0, 0, size, size)
    known = event.mask != 255
    wet = event.mask == 1
    assert 0.08 <= wet[known].mean() <= 0.20
    assert 0.01 < 1 - known.mean() < 0.05
    for band, low, high in ((0, -14.0, -9.0), (1, -21.0, -15.0)):
        assert low < np.nanmean(event.after[band]) < high
        assert -45 < np.nanmin(event.after[band]) < np.nanmax(event.after[band]) < 15
    assert np.nanmean(event.after[0] - event.after[1]) > 4  # cross-polarised is weaker
    hits = false_alarms = misses = 0
    for row in range(0, size, 256):
        for col in range(0, size, 256):
            at = np.s_[row : row + 256, col : col + 256]
            vv, truth, valid = event.after[0][at], wet[at], known[at]
            dark = valid & (vv < _otsu(vv[valid]))
            hits += int((dark & truth).sum())
            false_alarms += int((dark & ~truth).sum())
            misses += int((~dark & truth).sum())
    assert hits / (hits + false_alarms + misses) < 0.6


def test_what_misleads_a_threshold_is_there_and_labelled_right() -> None:
    here = np.arange(1024)
    place = Landscape(11, 1024)  # a hilly place
    event = simulate_window(place, 0, 0, 1024, 1024)
    ground, cover = place.terrain(here, here), place.cover(here, here)
    wet, known = event.mask == 1, event.mask != 255
    assert not wet[ground.river].any()

    def vv(image: np.ndarray, where: np.ndarray) -> float:
        assert (where & known).sum() > 200
        return float(np.median(image[0][where & known]))

    calm = place.wind(here, here, 1) == 0
    dry = ~wet & ~ground.river & (ground.slope > -0.2)
    water = vv(event.after, wet & calm & ~cover.forest)
    rough = vv(event.after, wet & (place.wind(here, here, 1) == 1) & ~cover.forest)
    farmland = vv(event.after, dry & ~cover.forest & ~cover.wet_field)
    assert vv(event.before, wet & calm & ~cover.forest) == pytest.approx(farmland, abs=1.0)
    assert water + 7 < farmland
    assert water + 4 < rough < farmland  # wind
    assert vv(event.after, wet & cover.forest) > 2 + vv(event.before, wet & cover.forest)
    assert vv(event.after, dry & cover.wet_field) < farmland - 4
    assert vv(event.before, dry & cover.wet_field) == pytest.approx(farmland, abs=1.0)
    shadow = (ground.slope < -0.35) & ~wet & ~ground.river
    for image in (event.after, event.before):
        assert vv(image, shadow) < water + 1
        assert vv(image, ground.river) < farmland - 3


def test_speckle_has_the_looks_of_sentinel_1_in_each_band_and_date() -> None:
    """Homogeneous land: power over its local mean; 9×9 windows hide neither slope nor fields."""
    event = simulate_window(Landscape(8, 1024), 0, 0, 1024, 1024)
    for image in (*event.after, *event.before):
        power = 10 ** (image[:1017, :1017].astype(np.float64) / 10)
        windows = power.reshape(113, 9, 113, 9).swapaxes(1, 2).reshape(-1, 81)
        looks = windows.mean(axis=1) ** 2 / windows.var(axis=1, ddof=1)
        # The median over windows: those across an edge between surfaces have fewer looks.
        assert np.nanmedian(looks) == pytest.approx(4.4, rel=0.1)


def test_speckle_is_independent_of_neighbour_band_and_date() -> None:
    event = simulate_window(Landscape(8, 1024), 300, 300, 512, 512)
    layers = np.concatenate([event.after, event.before])
    fine = layers[:, :, 1:] - layers[:, :, :-1]  # takes the land out, leaves the speckle
    correlation = np.corrcoef(fine.reshape(4, -1))
    assert abs(correlation - np.eye(4)).max() < 0.15  # edges between surfaces are in all layers
    neighbour = np.corrcoef(fine[0, :, 2:].ravel(), fine[0, :, :-2].ravel())[0, 1]
    assert abs(neighbour) < 0.05


def test_seeds_are_different_places() -> None:
    rivers = []
    for seed in range(4):
        here = np.arange(0, 1024, 8)
        rivers.append(Landscape(seed, 1024).terrain(here, here).distance < 60)
    for one in range(4):
        for other in range(one):
            both = (rivers[one] & rivers[other]).sum() / (rivers[one] | rivers[other]).sum()
            assert both < 0.5


def test_progress_and_refusals(tmp_path: Path) -> None:
    seen: list[float] = []
    simulate_event(tmp_path / "event", seed=1, size=600, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    with pytest.raises(InputError, match="exists already"):
        simulate_event(tmp_path / "event", seed=1, size=600)
    with pytest.raises(InputError, match="size 100: allowed are 256"):
        simulate_event(tmp_path / "small", seed=1, size=100)
    with pytest.raises(InputError, match="seed -1: allowed are 0"):
        simulate_event(tmp_path / "negative", seed=-1, size=600)
    assert [path.name for path in tmp_path.iterdir()] == ["event"]


def test_stopped_half_way_leaves_nothing(tmp_path: Path) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_event(tmp_path / "event", seed=1, size=600, on_progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file_bytes", [100_000, 1_340_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, file_bytes: int) -> None:
    """`pre.tif` takes 1.36 MB, so that the larger limit is met only when it is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        with pytest.raises(SarfloodError, match=r"event: cannot be written .* disk full"):
            simulate_event(tmp_path / "event", seed=1, size=600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
