"""What a network sees in training is what it sees of the same patch ever after."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import UTM, mapped, network_params, speckle, tiny_model, write_scene

from sarflood.errors import InputError
from sarflood.evaluation.evaluate import evaluate
from sarflood.mapping.patches import map_patches
from sarflood.model.inputs import (
    block_moments,
    check_input,
    event_scaling,
    fill,
    fixed_scaling,
    has_data,
    local_scaling,
    standardise,
)
from sarflood.model.package import FloodModel, load_model, save_model
from sarflood.model.unet import UNet
from sarflood.params import InputParams, load_params
from sarflood.patches.loader import take
from sarflood.patches.store import EventPatches, PatchWriter, open_event
from sarflood.raster.patch import PATCH
from sarflood.sources.event import Event, Origin
from sarflood.sources.pixels import cut_patches

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
SCALES = ("training", "fixed_db", "event", "local", "both")
KINDS = list(product(("none", "lee", "refined_lee"), SCALES))


def settings(speckle_filter: str, normalisation: str) -> InputParams:
    return InputParams.model_validate(
        {
            **PARAMS.input.model_dump(),
            "speckle_filter": speckle_filter,
            "normalisation": normalisation,
        }
    )


def model_with(params: InputParams) -> FloodModel:
    model = tiny_model()
    offset, scale = (0.0, 0.0), (1.0, 1.0)
    if params.normalisation == "training":
        offset, scale = (-12.0, -12.0), (5.0, 5.0)
    if params.normalisation == "fixed_db":
        offset, scale = fixed_scaling(params, ("vv", "vh"))  # type: ignore[assignment]
    network = model.network
    if params.normalisation == "both":
        offset, scale = (-12.0, -12.0, 0.0, 0.0), (5.0, 5.0, 1.0, 1.0)  # type: ignore[assignment]
        torch.manual_seed(1)
        network = UNet(4, network_params()).eval()
    update = {"input": params, "mean": offset, "std": scale}
    return replace(model, network=network, manifest=model.manifest.model_copy(update=update))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    scene = speckle(2, 2 * PATCH, 2 * PATCH).astype(np.float16).astype(np.float32)
    scene[:, 100:140, 300:340] = np.nan
    return scene


@pytest.fixture(scope="module")
def event(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> EventPatches:
    folder = tmp_path_factory.mktemp("event")
    manifest = Event(
        id="e", name="e", bands=("vv", "vh"), units="db", label="water", source=Origin(name="t")
    )
    mask = (image[0] < -14).astype(np.uint8)
    with PatchWriter(folder, manifest) as writer:
        for patch in cut_patches("scene", image, mask, "EPSG:32651", UTM):
            writer.add(patch, "scene")
    return open_event(folder)


@pytest.mark.parametrize(("speckle_filter", "normalisation"), KINDS)
def test_training_evaluation_mapping_and_serving_see_the_same(
    speckle_filter: str, normalisation: str, event: EventPatches
) -> None:
    params = settings(speckle_filter, normalisation)
    model = model_with(params)
    split = event.index[["id", "event"]].assign(split="test", scene="e/0")
    trained = take([event], split.assign(split="train"), "train", params)
    mean, std = (
        torch.tensor(item).view(1, -1, 1, 1) for item in (model.manifest.mean, model.manifest.std)
    )
    in_training = fill(standardise(torch.from_numpy(trained.images), mean, std))
    in_use = model.normalise(event.images, model.scaling_of(event.images))
    assert torch.equal(in_training, in_use)
    with torch.inference_mode():
        expected = torch.sigmoid(model.network(in_training)).numpy()
    known = np.isfinite(event.images).all(axis=1)
    answers = map_patches(model, event.images)
    np.testing.assert_array_equal(answers[known], (expected >= 0.5)[known])
    assert event.masks is not None
    right = (answers == event.masks) & known & (event.masks < 2)
    split.loc[0, "split"] = "train"  # for the baselines
    counts = evaluate(model, [event], split).patches
    assert int((counts["tp"] + counts["tn"]).sum()) == int(right[1:].sum())


@pytest.mark.parametrize(("speckle_filter", "normalisation"), KINDS)
def test_a_patch_as_a_scene_is_answered_alike(
    speckle_filter: str, normalisation: str, event: EventPatches, tmp_path: Path
) -> None:
    model = model_with(settings(speckle_filter, normalisation))
    image = event.images[0].astype(np.float32)
    scene = write_scene(tmp_path / "s.tif", image, ("VV", "VH"), nodata=np.nan)
    np.testing.assert_array_equal(
        mapped(model, scene).mask, map_patches(model, event.images[:1])[0]
    )


@pytest.mark.parametrize("normalisation", ["event", "local"])
def test_scales_of_the_scene_make_an_event_independent_of_its_level(normalisation: str) -> None:
    model = model_with(settings("none", normalisation))
    images = np.stack([speckle(2, PATCH, PATCH, seed) for seed in range(3)])
    darker = images * 1.5 - 4.0
    one, other = (model.probabilities(item) for item in (images, darker))
    np.testing.assert_allclose(one, other, atol=0.02)


def test_an_event_is_scaled_by_all_of_it_and_a_patch_by_itself() -> None:
    images = np.stack([speckle(2, PATCH, PATCH) - 10 * number for number in range(2)])
    scaling = event_scaling(images)
    middle = np.median(images[:, :, ::8, ::8].transpose(1, 0, 2, 3).reshape(2, -1), axis=1)
    assert scaling.offset.ravel() == pytest.approx(middle, abs=0.1)
    alone = model_with(settings("none", "local")).normalise(images)
    together = model_with(settings("none", "event")).normalise(images)
    assert torch.allclose(alone[0], alone[1], atol=0.02)
    assert float((together[0] - together[1]).mean()) > 0.5


def test_the_local_scale_is_that_of_the_pixels_around_and_has_no_step() -> None:
    image = speckle(2, 700, 900)[None]
    image[:, :, :, 500:] += 10
    image[:, :, 300:500, 100:300] = np.nan
    scaling = local_scaling(block_moments(image), np.arange(700), np.arange(900))
    offset, scale = (layer.numpy() for layer in scaling.of(slice(None)))
    for row, col in ((128, 128), (256, 384), (384, 640)):
        around = image[0, :, row - 128 : row + 128, col - 128 : col + 128]
        for layer, expected in (
            (offset, np.nanmean(around, axis=(1, 2))),
            (scale, np.nanstd(around, axis=(1, 2))),
        ):
            # The four pixels around a corner of blocks lie half a pixel from it.
            near = layer[0, :, row - 1 : row + 1, col - 1 : col + 1].mean(axis=(1, 2))
            np.testing.assert_allclose(near, expected, atol=0.05)
    steps = [np.abs(np.diff(offset, axis=axis)).max() for axis in (2, 3)]
    assert max(steps) < 0.2


def test_a_window_of_a_scene_is_scaled_as_within_the_whole() -> None:
    image = speckle(2, 700, 900)[None]
    moments = block_moments(image)
    whole = local_scaling(moments, np.arange(700), np.arange(900))
    part = local_scaling(moments, np.arange(128, 500), np.arange(300, 900))
    for rows in (slice(0, 372), slice(60, 200)):
        inside = slice(128 + rows.start, 128 + rows.stop)
        for layer, of_whole in zip(part.of(rows), whole.of(inside), strict=True):
            assert torch.equal(layer, of_whole[..., 300:])


@pytest.mark.parametrize("normalisation", ["local", "both"])
def test_a_scene_that_is_scaled_locally_shows_no_seam(normalisation: str, tmp_path: Path) -> None:
    model = model_with(settings("none", normalisation))
    image = speckle(2, 1300, 1400)
    image += np.linspace(0, 10, 1400, dtype=np.float32)
    image += np.linspace(0, 10, 1300, dtype=np.float32)[:, None]
    scene = write_scene(tmp_path / "s.tif", image, ("VV", "VH"), nodata=np.nan)
    percent = mapped(model, scene).percent
    stored = image[None].astype(np.float16)
    scaling = local_scaling(block_moments(stored), np.arange(1300), np.arange(1400))
    assert np.abs(percent - 100 * model.probabilities(stored, scaling)[0]).max() < 0.6


def test_a_fixed_range_becomes_minus_one_to_one() -> None:
    model = model_with(settings("none", "fixed_db"))
    images = np.array([[[[-25.0, 0.0]], [[-32.5, -5.0]]]], np.float32)
    assert model.normalise(images).flatten().tolist() == [-1.0, 1.0, -1.0, 1.0]


def test_the_settings_travel_with_the_model(tmp_path: Path) -> None:
    model = model_with(settings("refined_lee", "event"))
    save_model(model, tmp_path)
    assert load_model(tmp_path).manifest.input == model.manifest.input


def test_settings_that_events_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"speckle_filter lee needs events in dB; these .* uint8"):
        check_input(settings("lee", "training"), ("vv",), "uint8")
    with pytest.raises(InputError, match=r"fixed_db needs events in dB \(these: uint8\)"):
        check_input(settings("none", "fixed_db"), ("vv",), "uint8")
    only_vv = settings("none", "fixed_db").model_copy(update={"fixed_db": {"vv": (-25.0, 0.0)}})
    with pytest.raises(InputError, match=r"a range in input.fixed_db for each of vv, vh"):
        check_input(only_vv, ("vv", "vh"), "db")
    check_input(settings("none", "event"), ("vv",), "uint8")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_pixel_has_data_where_all_its_bands_are_finite(dtype: type[np.floating]) -> None:
    values = [0.0, -0.0, 65504.0, 6e-8, np.nan, -np.nan, np.inf, -np.inf]
    images = np.array([[[values], [[1.0] * len(values)]]], dtype)
    assert has_data(images)[0, 0].tolist() == [True] * 4 + [False] * 4
