from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sarflood.errors import InputError
from sarflood.evaluation.baselines import (
    fit_threshold,
    local_mean,
    otsu_mask,
    otsu_threshold,
    threshold_mask,
)
from sarflood.evaluation.confusion import Counts, count
from sarflood.sources.reader import RawPatch
from sarflood.sources.readers import recognise


def within_class_variance(values: np.ndarray, threshold: float) -> float:
    classes = values[values < threshold], values[values >= threshold]
    return float(sum(part.size * part.var() for part in classes if part.size))


@pytest.mark.parametrize("seed", range(4))
def test_otsu_has_the_least_variance_within_the_classes(seed: int) -> None:
    random = np.random.default_rng(seed)
    wet = random.normal(-19, 2, random.integers(5, 120))
    values = np.concatenate([wet, random.normal(-9, 3, 100)]).astype(np.float16)
    wide = values.astype(np.float64)
    least = min(within_class_variance(wide, value) for value in np.unique(wide))
    found = within_class_variance(wide, otsu_threshold(values))
    assert found == pytest.approx(least, rel=1e-12)


def test_otsu_stands_half_way_between_the_classes() -> None:
    assert otsu_threshold(np.array([10, 10, 12, 200, 202], np.uint8)) == 106.0


def test_a_patch_of_one_value_or_none_is_not_called_wet() -> None:
    assert (otsu_mask(np.full((4, 4), -12.5, np.float32)) == 0).all()
    assert (otsu_mask(np.full((4, 4), np.nan, np.float32)) == 255).all()
    assert math.isinf(otsu_threshold(np.empty(0)))


def test_no_data_has_no_part_in_otsu() -> None:
    vv = np.full((6, 6), -9.0, np.float32)
    vv[:3], vv[0, 0] = -20.0, np.nan
    mask = otsu_mask(vv)
    assert mask[0, 0] == 255
    assert (mask[:3].ravel()[1:] == 1).all()
    assert (mask[3:] == 0).all()


def test_the_local_mean_counts_only_what_has_data() -> None:
    random = np.random.default_rng(2)
    vv = random.normal(-10, 3, (12, 9))
    vv[random.random(vv.shape) < 0.3] = np.nan
    mean = local_mean(vv)
    for row, col in np.ndindex(*vv.shape):
        window = vv[max(row - 2, 0) : row + 3, max(col - 2, 0) : col + 3]
        want = math.nan if math.isnan(vv[row, col]) else np.nanmean(window)
        assert mean[row, col] == pytest.approx(want, nan_ok=True)


@pytest.mark.parametrize("scale", ["db", "uint8"])
def test_the_fitted_threshold_is_the_best_of_all_by_pooled_iou(scale: str) -> None:
    random = np.random.default_rng(3)
    pairs = []
    for share in (0.1, 0.6):
        mask = (random.random((20, 20)) < share).astype(np.uint8)
        vv = np.where(mask == 1, -14.0, -11.0) + random.normal(0, 1.5, mask.shape)
        if scale == "uint8":
            vv = (vv * 6 + 160).clip(0, 255).astype(np.uint8).astype(np.float64)
        vv[0, :3], mask[5, :4] = np.nan, 255
        pairs.append((vv, mask))

    def pooled_iou(threshold: float) -> float:
        counts = sum((count(threshold_mask(vv, threshold), mask) for vv, mask in pairs), Counts())
        return counts.iou or 0.0

    means = np.concatenate([local_mean(vv).ravel() for vv, _ in pairs])
    lowest, highest = np.nanmin(means), np.nanmax(means)
    candidates = np.arange(math.floor(lowest * 128), math.ceil(highest * 128) + 1) / 128
    step = max(1, len(candidates) // 4000)
    best = max(pooled_iou(threshold) for threshold in candidates[::step])
    found = fit_threshold(iter(pairs))
    assert pooled_iou(found) >= best > 0.4
    assert found in candidates


def test_a_threshold_cannot_be_fitted_to_dry_patches() -> None:
    dry = (np.full((8, 8), -9.0), np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match="no training patch has a wet pixel"):
        fit_threshold([dry])


@pytest.mark.realdata
def test_on_a_real_scene_a_fitted_threshold_finds_water_that_otsu_drowns(real_data: Path) -> None:
    root = real_data / "etci2021" / "northal_20190302t234651"
    reader = recognise(root)
    patches = [patch for item in reader.items(root) for patch in reader.read(item)]

    def pair(patch: RawPatch) -> tuple[np.ndarray, np.ndarray]:
        assert patch.mask is not None
        return patch.image[0], patch.mask

    threshold = fit_threshold(map(pair, patches[:100]))
    fitted, otsu = Counts(), Counts()
    for vv, truth in map(pair, patches[100:]):
        fitted += count(threshold_mask(vv, threshold), truth)
        otsu += count(otsu_mask(vv), truth)
    assert fitted.wet / fitted.pixels == pytest.approx(0.05, abs=0.03)
    assert (fitted.iou or 0) > 0.75
    assert (otsu.iou or 0) < 0.3  # most patches are dry, and it parts each one in two
