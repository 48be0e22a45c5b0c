"""Land cover of several classes from a source to the report, by the stages."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from landcover import CLASSES, write_land_cover
from tiny import write_quick_params

from sarflood.evaluation.evaluate import evaluate as evaluate_model
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.mapping.patches import map_patches
from sarflood.model.package import load_model
from sarflood.params import load_params
from sarflood.patches.store import open_events
from sarflood.process import git
from sarflood.promotion.registry import note_champion
from sarflood.stages.evaluate import evaluate
from sarflood.stages.gate import gate
from sarflood.stages.leaks import leaks
from sarflood.stages.split import split
from sarflood.stages.train import train
from sarflood.stages.validate import validate
from sarflood.workspace import Workspace

pytestmark = pytest.mark.slow

SETTINGS = {
    "width: 2": "width: 4",
    "depth: 1": "depth: 2",
    "epochs: 1": "epochs: 4",
    "crop: 128": "crop: 64",
    "batch_size: 8": "batch_size: 4",
    "learning_rate: 0.002": "learning_rate: 0.01",
    "    dice: 1.0": "    dice: 1.0\n    boundary: [0.0, 0.01]",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("classes")
    root = folder / "workspace"
    root.mkdir()
    write_quick_params(root)
    workspace = Workspace(root)
    text = workspace.params.read_text("utf-8")
    for old, new in SETTINGS.items():
        assert old in text, old
        text = text.replace(old, new)
    workspace.params.write_text(text, "utf-8")
    (root / ".gitignore").write_text("*\n!params.yaml\n", "utf-8")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "Start")
    write_land_cover(folder / "po", 7 * 256)
    said, params = Said(classes=CLASSES), load_params(workspace.params).validation
    ingest_event(workspace, str(folder / "po"), "po", said, params)
    for stage in (validate, split, leaks, train, evaluate):
        stage(workspace)
    note_champion(workspace)
    gate(workspace)
    return workspace


def metrics(workspace: Workspace, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.metrics / f"{name}.json").read_text("utf-8"))
    return found


def test_each_class_is_found_in_the_test_patches(workspace: Workspace) -> None:
    found = metrics(workspace, "evaluation")
    assert list(found["classes"]) == [*CLASSES, "mean"]
    assert min(found["classes"].values()) > 0.6, "by chance it would be about 0.14"
    assert found["test"]["iou"] > 0.85
    assert 0.2 < found["test"]["wet_share"] < 0.4


def test_the_figures_of_water_are_those_of_masks_of_water(workspace: Workspace) -> None:
    (opened,) = open_events(workspace.events)
    assert opened.masks is not None
    masks = np.where(opened.masks == 255, opened.masks, opened.masks == 1).astype(np.uint8)
    event = opened.event.model_copy(update={"classes": None})
    table = pd.read_parquet(workspace.split)
    model = load_model(workspace.model)
    plain = evaluate_model(model, [replace(opened, event=event, masks=masks)], table).metrics
    assert plain == metrics(workspace, "evaluation") | {"classes": None}


def test_the_package_and_the_pages_know_the_classes(workspace: Workspace) -> None:
    model = load_model(workspace.model)
    assert model.manifest.classes == CLASSES
    found = metrics(workspace, "evaluation")["classes"]
    assert f"forest {found['forest']:.3f}" in (workspace.model / "card.md").read_text("utf-8")
    report = (workspace.reports / "report.html").read_text("utf-8")
    assert f"<td>forest</td><td>{found['forest']:.3f}</td>" in report
    with np.load(workspace.model / "recorded.npz") as recorded:
        np.testing.assert_array_equal(map_patches(model, recorded["images"]), recorded["masks"])
        assert set(np.unique(recorded["masks"])) <= {0, 1, 255}, "maps are of water"
