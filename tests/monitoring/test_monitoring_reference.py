from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import speckle, tiny_model

from sarflood.errors import InputError
from sarflood.monitoring.histograms import count_values
from sarflood.monitoring.reference import REFERENCE, make_reference, read_reference, write_reference
from sarflood.patches.store import EventPatches
from sarflood.sources.event import Event, Origin


@pytest.fixture(scope="module")
def event() -> EventPatches:
    """Six patches with the model's bands in another order; the last one has no data."""
    images = np.stack([speckle(2, 256, 256, seed)[::-1] for seed in range(6)]).astype(np.float16)
    images[5] = np.nan
    manifest = Event(
        id="e", name="e", bands=("vh", "vv"), units="db", label="flood", source=Origin(name="t")
    )
    index = pd.DataFrame({"id": [f"e/{number}" for number in range(6)]})
    return EventPatches(manifest, index, images, np.zeros((6, 256, 256), np.uint8))


@pytest.fixture(scope="module")
def split() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"e/{number}" for number in range(6)],
            "split": ["train", "val", "train", "test", "guard", "train"],
            "scene": ["e/0", "e/0", "e/1", "e/1", "e/1", "e/1"],
        }
    )


def test_it_tells_of_training_and_validation_patches_alone(
    event: EventPatches, split: pd.DataFrame, tmp_path: Path
) -> None:
    model = tiny_model()
    write_reference(make_reference(model, [event], split), tmp_path)
    reference = read_reference(tmp_path)
    assert [patch.scene for patch in reference.train] == ["e/0", "e/1"], "one has no data"
    counts = count_values(event.images[2, 1, ::8, ::8], "db")
    np.testing.assert_allclose(reference.train[1].bands["vv"].shares("db"), counts / counts.sum())
    (answer,) = reference.val
    probabilities = model.probabilities(event.images[1:2, [1, 0]])[0, ::8, ::8]
    assert answer.wet_share == pytest.approx((probabilities >= 0.5).mean())
    assert answer.scene == "e/0"


def test_many_patches_are_thinned(event: EventPatches, tmp_path: Path) -> None:
    number = 1000
    images = np.broadcast_to(event.images[:1], (number, *event.images.shape[1:]))
    index = pd.DataFrame({"id": [f"e/{place}" for place in range(number)]})
    split = index.assign(split=["train"] * 998 + ["val"] * 2, scene=index["id"])
    many = EventPatches(event.event, index, images, event.masks)
    reference = make_reference(tiny_model(), [many], split)
    assert len(reference.train) == 512
    assert {reference.train[0].scene, reference.train[-1].scene} == {"e/0", "e/997"}
    assert len(reference.model_dump_json()) < 1_000_000


def test_a_version_from_before_there_was_one_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"reference\.json: .*`sarflood retrain` makes one"):
        read_reference(tmp_path)


@pytest.mark.parametrize("change", [{"more": 1}, {"train": []}, {"units": "dB"}, {"bands": ["vv"]}])
def test_a_damaged_one_is_named(
    event: EventPatches, split: pd.DataFrame, tmp_path: Path, change: dict[str, object]
) -> None:
    write_reference(make_reference(tiny_model(), [event], split), tmp_path)
    path = tmp_path / REFERENCE
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(InputError, match=r"reference\.json: not the statistics of a training"):
        read_reference(tmp_path)
