from __future__ import annotations

import datetime as dt
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LOSS, PLAIN, network_params

from sarflood.errors import InputError
from sarflood.model import MANIFEST, WEIGHTS
from sarflood.model.package import (
    FloodModel,
    ModelManifest,
    TrainedOn,
    load_model,
    save_model,
)
from sarflood.model.unet import UNet, mean_logits


@pytest.fixture
def model() -> FloodModel:
    torch.manual_seed(3)
    manifest = ModelManifest(
        bands=("vv", "vh"),
        units="db",
        label="water",
        network=network_params(),
        input=PLAIN,
        mean=(-12.0, -18.5),
        std=(3.0, 4.0),
        temperature=1.5,
        threshold=0.4,
        loss=LOSS,
        trained_on=(TrainedOn(event="alabama-2019", index_sha256="ab" * 32),),
        params_sha256="cd" * 32,
        commit="0123abc",
        sarflood="0.1.0",
        created=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    )
    return FloodModel(manifest, UNet(2, network_params()).eval())


@pytest.fixture
def several(model: FloodModel) -> FloodModel:
    """A model of four classes, at temperature 1."""
    changed = {"classes": ("other", "water", "forest", "crops"), "temperature": 1.0}
    network = UNet(2, network_params(), 4).eval()
    return FloodModel(model.manifest.model_copy(update=changed), network)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(5).normal(-14, 4, (3, 2, 48, 48)).astype(np.float32)


def test_a_loaded_model_answers_bit_by_bit_like_the_saved_one(
    model: FloodModel, images: np.ndarray, tmp_path: Path
) -> None:
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.manifest == model.manifest
    for name, value in model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name
    save_model(again, tmp_path / "again")
    other = load_model(tmp_path / "again")
    np.testing.assert_array_equal(other.probabilities(images), again.probabilities(images))
    np.testing.assert_allclose(again.probabilities(images), model.probabilities(images), atol=1e-6)


def test_a_package_is_two_files_and_no_pickle(model: FloodModel, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, WEIGHTS]
    content = json.loads((tmp_path / MANIFEST).read_text())
    assert content["trained_on"] == [{"event": "alabama-2019", "index_sha256": "ab" * 32}]


def test_a_model_of_several_classes_comes_back_and_answers_alike(
    several: FloodModel, images: np.ndarray, tmp_path: Path
) -> None:
    save_model(several, tmp_path)
    again = load_model(tmp_path)
    assert again.manifest.classes == ("other", "water", "forest", "crops")
    save_model(again, tmp_path / "again")
    other = load_model(tmp_path / "again")
    np.testing.assert_array_equal(other.probabilities(images), again.probabilities(images))
    np.testing.assert_array_equal(other.classes(images), again.classes(images))
    np.testing.assert_allclose(
        again.probabilities(images), several.probabilities(images), atol=1e-6
    )


@pytest.mark.parametrize("flips", [1, 4])
def test_of_several_classes_water_is_answered_as_the_softmax_has_it(
    several: FloodModel, images: np.ndarray, flips: int
) -> None:
    changed = several.manifest.network.model_copy(update={"flips": flips})
    manifest = several.manifest.model_copy(update={"network": changed})
    model = FloodModel(manifest, several.network)
    images[0, 1, 5, 6] = np.nan
    with torch.inference_mode():
        logits = mean_logits(several.network, model.normalise(images), flips, several.network.step)
    probabilities, classes = model.probabilities(images), model.classes(images)
    known = np.isfinite(images).all(axis=1)
    np.testing.assert_allclose(
        probabilities[known], logits.softmax(dim=1)[:, 1].numpy()[known], atol=1e-6
    )
    np.testing.assert_array_equal(classes[known], logits.argmax(dim=1).numpy()[known])
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes == 255, ~known)
    assert set(np.unique(model.masks(probabilities))) <= {0, 1, 255}


def test_a_model_of_dry_and_wet_has_no_other_classes(model: FloodModel, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="has no other classes"):
        model.classes(images)


def test_a_manifest_from_before_there_were_classes_is_of_two(
    model: FloodModel, images: np.ndarray, tmp_path: Path
) -> None:
    save_model(model, tmp_path)
    expected = load_model(tmp_path).probabilities(images)
    path = tmp_path / MANIFEST
    content = json.loads(path.read_text())
    del content["classes"]
    path.write_text(json.dumps(content))
    np.testing.assert_array_equal(load_model(tmp_path).probabilities(images), expected)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def scribble(path: Path) -> None:
    path.write_bytes(b"\xff" * 400)


@pytest.mark.parametrize("damage", [Path.unlink, cut, scribble])
@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST])
def test_a_damaged_package_is_named(
    model: FloodModel, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    save_model(model, tmp_path)
    damage(tmp_path / name)
    with pytest.raises(InputError, match=str(tmp_path / name)):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 8},
        {"bands": ["vv"]},
        {"threshold": 1.5},
        {"colour": "red"},
        {"depth": "two"},
        {"classes": ["other", "water", "forest"]},
        {"classes": ["dry", "wet"]},
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    model: FloodModel, tmp_path: Path, change: dict[str, object]
) -> None:
    save_model(model, tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=str(tmp_path)):
        load_model(tmp_path)


def test_inputs_have_the_training_mean_zero_and_no_data_is_the_mean(model: FloodModel) -> None:
    images = np.empty((1, 2, 4, 4), np.float16)
    images[:, 0], images[:, 1] = -9.0, -22.5
    images[0, 1, 0, 0] = np.nan
    inputs = model.normalise(images)
    assert inputs.dtype == torch.float32
    assert (inputs[0, 0] == 1.0).all()
    assert inputs[0, 1, 0, 0] == 0.0
    assert (inputs[0, 1].flatten()[1:] == -1.0).all()
    assert images[0, 0, 0, 0] == -9.0  # the caller's array is left alone


def test_no_data_in_any_band_gives_no_answer_there(model: FloodModel, images: np.ndarray) -> None:
    images[0, 1, 5, 6] = np.nan
    images[2, 0, :10] = np.nan
    probabilities = model.probabilities(images)
    masks = model.masks(probabilities)
    absent = np.zeros((3, 48, 48), bool)
    absent[0, 5, 6] = absent[2, :10] = True
    np.testing.assert_array_equal(np.isnan(probabilities), absent)
    np.testing.assert_array_equal(masks == 255, absent)
    assert set(np.unique(masks[~absent])) <= {0, 1}


def test_an_infinite_value_is_no_data_too(model: FloodModel, images: np.ndarray) -> None:
    absent = images.copy()
    images[0, 1, 5, 6], images[0, 0, 7, 8] = np.inf, -np.inf
    absent[0, 1, 5, 6] = absent[0, 0, 7, 8] = np.nan
    assert torch.equal(model.normalise(images), model.normalise(absent))
    probabilities = model.probabilities(images)
    assert np.isnan(probabilities[0, 5, 6])
    np.testing.assert_array_equal(probabilities, model.probabilities(absent))


def test_masks_are_made_without_a_wider_copy(model: FloodModel) -> None:
    probabilities = np.full((1, 2000, 1000), 0.7, np.float32)
    tracemalloc.start()
    masks = model.masks(probabilities)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert masks.dtype == np.uint8
    assert peak < 2.2 * masks.nbytes


def test_the_threshold_itself_is_wet(model: FloodModel) -> None:
    threshold = model.manifest.threshold
    probabilities = np.array([[[threshold + 1e-3, threshold - 1e-3, np.nan]]], np.float32)
    np.testing.assert_array_equal(model.masks(probabilities), [[[1, 0, 255]]])
