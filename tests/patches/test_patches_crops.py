from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sarflood.params import AugmentParams, TrainParams, load_params
from sarflood.patches.augment import augment
from sarflood.patches.crops import CropLoader, Plan, sampling_weights
from sarflood.patches.loader import LabelledPatches

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
CALM = AugmentParams(jitter=0.0, contrast=0.0, speckle=0.0, band_dropout=0.0, holes=0.0)


def training(**changes: Any) -> TrainParams:
    plain = {"balance_scenes": 0.0, "balance_wet": 0.0, "batch_size": 3, "crop": 64, "seed": 1}
    return PARAMS.train.model_copy(update=plain | changes)


def labelled(number: int = 4, events: list[str] | None = None) -> LabelledPatches:
    """Patches whose first band tells which one it is, and whose second band is the mask."""
    random = np.random.default_rng(0)
    masks = np.kron(random.random((number, 16, 16)) < 0.3, np.ones((16, 16))).astype(np.uint8)
    levels = np.broadcast_to(np.arange(number)[:, None, None], masks.shape)
    images = np.stack([levels, masks], axis=1).astype(np.float16)
    images[:, :, :4] = np.nan
    names = np.array(events or ["e"] * number)
    return LabelledPatches(images, masks, names, np.array([str(n) for n in range(number)]))


@pytest.mark.parametrize("resident", [True, False])
def test_crops_show_each_patch_and_turn_image_and_mask_alike(resident: bool) -> None:
    loader = CropLoader(labelled(), training(), resident=resident)
    batches = list(loader)
    assert len(batches) == len(loader) == 22  # 4 patches of 16 crops each, 3 a batch
    seen: list[float] = []
    for images, masks in batches:
        assert images.is_contiguous(memory_format=torch.channels_last)
        known = torch.isfinite(images[:, 1])
        np.testing.assert_array_equal(images[:, 1][known], masks[known].half())
        seen += [float(crop[torch.isfinite(crop)][0]) for crop in images[:, 0]]
    assert np.bincount(np.array(seen, int)).tolist() == [16] * 4


def test_read_ahead_crops_are_those_on_the_device() -> None:
    patches = labelled()
    loaders = [
        CropLoader(patches, training(), distances=True, resident=resident)
        for resident in (True, False)
    ]
    for one, other in zip(*loaders, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_processes_share_each_batch_and_none_has_nothing_to_do() -> None:
    alone = CropLoader(labelled(3), training(batch_size=5, crop=128))
    assert len(alone) == 3
    whole = [masks for _, masks in alone]
    shares = []
    for rank in range(2):
        loader = CropLoader(labelled(3), training(batch_size=5, crop=128, processes=2))
        loader.set_epoch(0, rank)
        shares.append([masks for _, masks in loader])
    assert [len(share) for share in shares] == [3, 3]
    for number, (one, other) in enumerate(zip(*shares, strict=True)):
        assert torch.equal(one, whole[number][::2])
        assert torch.equal(other, whole[number][1::2])
    uneven = CropLoader(labelled(1), training(batch_size=3, crop=128, processes=2))
    assert len(uneven) == 1, "the fourth crop is for one process only"


def test_crops_come_in_all_eight_symmetries_of_the_square() -> None:
    patches = labelled(1)
    patches.images[0, 0] = np.arange(256)[:, None] + np.arange(256) / 2
    seen = set()
    for images, _ in CropLoader(patches, training(batch_size=1, crop=32)):
        crop = images[0, 0].float()
        if torch.isfinite(crop).all():
            down, across = crop[1, 0] - crop[0, 0], crop[0, 1] - crop[0, 0]
            seen.add((round(float(down), 1), round(float(across), 1)))
    assert len(seen) == 8


def test_distances_are_cropped_and_turned_with_the_masks() -> None:
    for _, masks, distances in CropLoader(labelled(), training(), distances=True):
        assert distances.shape == (len(masks), 1, 64, 64)
        np.testing.assert_array_equal(distances[:, 0] <= 0, masks == 1)
        assert distances.min() < 0


@pytest.mark.parametrize("resident", [True, False])
def test_each_of_several_classes_has_distances_of_its_own(resident: bool) -> None:
    patches = replace(labelled(), classes=("other", "water", "forest"))
    patches.masks[patches.masks == 0] = 2
    patches.masks[:, :, 40:90] = 0
    for _, masks, distances in CropLoader(patches, training(), distances=True, resident=resident):
        assert distances.shape == (len(masks), 3, 64, 64)
        for code in range(3):
            np.testing.assert_array_equal(distances[:, code] <= 0, masks == code)


@pytest.mark.parametrize("resident", [True, False])
def test_a_share_of_permanent_water_keeps_its_labels_and_all_else(resident: bool) -> None:
    water = np.zeros((4, 256, 256), np.uint8)
    water[:, 50:200, 30:150] = 1
    patches = replace(labelled(), permanent_water=water)
    patches.images[:, 0] = water
    loader = CropLoader(patches, training(permanent_water=0.2), distances=True, resident=resident)
    epochs = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        crops = [torch.stack((masks, images[:, 0])) for images, masks, _ in loader]
        epochs.append(torch.cat(crops, dim=1))
    masks, there = epochs[0]
    assert not (masks[there != 1] == 255).any()
    assert (masks[there == 1] != 255).half().mean() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(masks, epochs[2][0])
    assert not torch.equal(masks == 255, epochs[1][0] == 255)
    whole = CropLoader(patches, training(permanent_water=1.0), resident=resident)
    assert not any((masks == 255).any() for _, masks in whole)


def test_an_epoch_can_be_seen_again() -> None:
    loader = CropLoader(labelled(), training())
    epochs = []
    for number in (0, 1, 0):
        loader.set_epoch(number)
        epochs.append(torch.cat([masks for _, masks in loader]))
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])


def test_a_small_event_is_drawn_as_often_as_a_large_one() -> None:
    patches = labelled(12, ["large"] * 9 + ["small"] * 3)
    weights = sampling_weights(patches, by_scene=1.0, by_wet_share=0.0)
    plan = Plan.of(weights, 64, seed=0, epoch=0)
    drawn = np.bincount(plan.items, minlength=12)
    assert drawn.sum() == 12 * 16
    assert drawn[:9].sum() == pytest.approx(drawn[9:].sum(), abs=2)
    assert drawn.min() > 0


def test_rare_wet_shares_are_drawn_more_often_but_not_without_end() -> None:
    patches = labelled(400)
    patches.masks[:-1] = 0
    weights = sampling_weights(patches, by_scene=0.0, by_wet_share=0.5)
    assert weights[-1] == 10
    assert weights[:-1].max() < 1
    assert np.allclose(sampling_weights(patches, 0.0, 0.0), 1)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn((64, 2, 64, 64), generator=generator)
    images[:, :, :5] = torch.nan
    return images, torch.zeros((64, 64, 64), dtype=torch.uint8)


def changed(**settings: float) -> tuple[torch.Tensor, torch.Tensor]:
    images, masks = batch()
    params = CALM.model_copy(update=settings)
    return augment(images, masks, params, torch.Generator().manual_seed(1), bands=2)


def test_without_settings_nothing_changes() -> None:
    images, masks = changed()
    torch.testing.assert_close(images, batch()[0], equal_nan=True)
    assert not masks.any()


def test_jitter_and_contrast_change_each_band_of_each_crop_in_its_own_way() -> None:
    before = batch()[0]
    shift = (changed(jitter=0.5)[0] - before)[:, :, 5:]
    assert float(shift.std(dim=(2, 3)).max()) < 1e-5, "the same for all pixels of a band"
    assert float(shift.mean(dim=(2, 3)).std()) == pytest.approx(0.5, rel=0.2)
    factor = (changed(contrast=0.3)[0] / before)[:, :, 5:].mean(dim=(2, 3)).log()
    assert float(factor.std()) == pytest.approx(0.3, rel=0.2)


def test_speckle_is_the_skewed_noise_of_few_looks() -> None:
    noise = (changed(speckle=1.0)[0] - batch()[0])[:, :, 5:]
    strength = noise.std(dim=(1, 2, 3))
    assert 0 < float(strength.min()) < 0.2
    assert 0.8 < float(strength.max()) <= 1.01
    assert float((noise**3).mean()) < -0.05, "dark pixels are farther off than bright ones"


def test_a_hole_is_one_in_all_bands_and_in_the_mask() -> None:
    images, masks = changed(holes=0.5)
    missing = torch.isnan(images)
    assert torch.equal(missing[:, 0], missing[:, 1])
    assert torch.equal(masks[:, 5:] == 255, missing[:, 0, 5:])
    holed = (masks == 255).any(dim=2).any(dim=1)
    assert 16 <= int(holed.sum()) <= 48


def test_a_dropped_band_is_never_the_first() -> None:
    missing = torch.isnan(changed(band_dropout=0.5)[0][:, :, 5:]).flatten(2)
    assert not missing[:, 0].any()
    gone = missing[:, 1].all(dim=1)
    assert torch.equal(gone, missing[:, 1].any(dim=1))
    assert 16 <= int(gone.sum()) <= 48


def test_the_channels_of_a_band_have_the_same_speckle_and_are_dropped_together() -> None:
    images, masks = batch()
    twice = torch.cat((images, images), dim=1).contiguous(memory_format=torch.channels_last)
    params = CALM.model_copy(update={"speckle": 0.5, "band_dropout": 0.5})
    found, _ = augment(twice.clone(), masks, params, torch.Generator().manual_seed(1), bands=2)
    gone = torch.isnan(found[:, :, 5:]).all(dim=3).all(dim=2)
    assert torch.equal(gone[:, :2], gone[:, 2:])
    assert gone[:, 1].any()
    noise = found - twice
    assert not torch.allclose(noise[:, 0, 5:], noise[:, 1, 5:], equal_nan=True)
    torch.testing.assert_close(noise[:, :2], noise[:, 2:], equal_nan=True)


def test_no_data_stays_no_data() -> None:
    settings = {"jitter": 1.0, "contrast": 1.0, "speckle": 1.0}
    assert torch.isnan(changed(**settings)[0][:, :, :5]).all()
