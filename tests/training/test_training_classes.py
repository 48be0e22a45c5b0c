"""Training on land cover of several classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from landcover import CLASSES, land_cover
from tiny import PLAIN, network_params, tiny_model

from sarflood.errors import InputError
from sarflood.model.unet import UNet
from sarflood.params import LossName, Params, load_params
from sarflood.patches.loader import LabelledPatches
from sarflood.sources.event import Event, Origin
from sarflood.training.calibrate import count_logits
from sarflood.training.fit import Fitted, fit
from sarflood.training.start import Start

ROOT = Path(__file__).parents[2]
BANDS = ("vv", "vh")
EVENT = Event(
    id="po-2023",
    name="Po",
    bands=("vv", "vh"),
    units="db",
    label="water",
    classes=CLASSES,
    source=Origin(name="synthetic"),
)
Terms = dict[LossName, tuple[float, float]]


def patches(seed: int) -> LabelledPatches:
    """Four patches of land cover."""
    image, mask = land_cover(512, seed)
    images = image.reshape(2, 2, 256, 2, 256).transpose(1, 3, 0, 2, 4).reshape(4, 2, 256, 256)
    masks = mask.reshape(2, 256, 2, 256).transpose(0, 2, 1, 3).reshape(4, 256, 256).copy()
    masks[:, :8] = 255
    names = np.array([f"{seed}-{number}" for number in range(4)])
    return LabelledPatches(images.astype(np.float16), masks, names, names, CLASSES)


def settings(terms: Terms, class_weights: Any = "inverse_frequency", epochs: int = 1) -> Params:
    params = load_params(ROOT / "params.yaml")
    train = {"epochs": epochs, "min_steps": 1, "batch_size": 2, "crop": 64, "learning_rate": 0.01}
    loss = {"terms": terms, "class_weights": class_weights}
    return params.model_copy(
        update={
            "input": PLAIN,
            "train": params.train.model_copy(update=train),
            "model": params.model.model_copy(update={"width": 4, "depth": 2, "flips": 1}),
            "loss": params.loss.model_copy(update=loss),
        }
    )


def trained(params: Params, **changes: Any) -> Fitted:
    return fit(patches(0), replace(patches(1), **changes), BANDS, params, lambda _: None)


def test_a_network_learns_the_classes_and_answers_of_water() -> None:
    terms: Terms = {"weighted_cross_entropy": (1.0, 1.0), "boundary": (0.0, 0.02)}
    params = settings(terms, epochs=6)
    fitted = trained(params)
    assert fitted.epochs["val_iou"].max() > 0.9
    model = fitted.model(EVENT, params)
    assert model.manifest.classes == CLASSES
    test = patches(2)
    known = test.masks != 255
    said = model.classes(test.images)
    for code, name in enumerate(CLASSES):
        found, true = (said == code) & known, (test.masks == code) & known
        assert (found & true).sum() / (found | true).sum() > 0.7, name
    wet = model.masks(model.probabilities(test.images)) == 1
    true = test.masks == 1
    assert ((wet & true).sum() / ((wet & known) | true).sum()) > 0.9


def test_validation_judges_water_alone() -> None:
    """Other kinds of dry land than code 0 count as dry, neither as unknown nor as water."""
    params = settings({"cross_entropy": (1.0, 1.0)})
    masks = patches(1).masks
    water = np.where(masks == 255, masks, masks == 1).astype(np.uint8)
    classes, binary = trained(params), trained(params, masks=water)
    names = ["val_iou", "temperature", "threshold"]
    assert classes.epochs[names].equals(binary.epochs[names])
    logits = torch.linspace(-3, 3, 5)[None, None]
    codes = torch.tensor([[[0, 1, 2, 3, 255]]], dtype=torch.uint8)
    assert count_logits(logits, codes).sum(axis=1).tolist() == [3, 1]


@pytest.mark.parametrize("reduction", ["batch", "image"])
def test_each_loss_runs_with_several_classes(reduction: str) -> None:
    names: tuple[LossName, ...] = ("dice", "focal", "focal_tversky", "lovasz", "boundary")
    params = settings(dict.fromkeys(names, (1.0, 1.0)))
    params = params.model_copy(
        update={"loss": params.loss.model_copy(update={"reduction": reduction})}
    )
    assert np.isfinite(trained(params).epochs["train_loss"]).all()


def test_class_weights_are_one_for_each_class() -> None:
    terms: Terms = {"weighted_cross_entropy": (1.0, 1.0)}
    with pytest.raises(
        InputError,
        match=r"class_weights \[1\.0, 4\.0\]: the masks have the classes other, water, forest, cr",
    ):
        trained(settings(terms, (1.0, 4.0)))
    four = trained(settings(terms, (1.0, 4.0, 1.0, 1.0)))
    assert four.network.head.out_channels == 4
    unused = trained(settings({"dice": (1.0, 1.0)}, (1.0, 4.0)))
    assert unused.network.head.out_channels == 4, "weights that no term asks for do not matter"


def test_training_does_not_begin_with_a_model_of_other_classes() -> None:
    binary = Start.of_model("v0.1.0", tiny_model(BANDS))
    with pytest.raises(
        InputError, match=r"v0\.1\.0: was trained on the classes dry, wet; these events have other"
    ):
        binary.into(UNet(2, network_params(), 4), BANDS, PLAIN, CLASSES)
    model = tiny_model(BANDS)
    manifest = model.manifest.model_copy(update={"classes": CLASSES})
    several = Start.of_model(
        "v0.2.0", replace(model, manifest=manifest, network=UNet(2, network_params(), 4))
    )
    with pytest.raises(InputError, match="was trained on the classes other, water, forest, crops"):
        several.into(UNet(2, network_params()), BANDS, PLAIN)
    renamed = (*CLASSES[:3], "towns")
    with pytest.raises(InputError, match="these events have other, water, forest, towns"):
        several.into(UNet(2, network_params(), 4), BANDS, PLAIN, renamed)
    same = UNet(2, network_params(), 4)
    several.into(same, BANDS, PLAIN, CLASSES)
    assert torch.equal(same.head.weight, several.state["head.weight"])


def test_an_encoder_fits_any_classes() -> None:
    state = tiny_model(BANDS).network.state_dict()
    down = {name: value for name, value in state.items() if name.startswith("down.")}
    network = UNet(2, network_params(), 4)
    Start("encoder", down).into(network, BANDS, PLAIN, CLASSES)
    name = "down.0.first.0.weight"
    assert torch.equal(network.state_dict()[name], down[name])
