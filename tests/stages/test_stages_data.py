from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import rasterio
import torch
from affine import Affine
from safetensors.torch import load_file, save_file
from tiny import write_quick_params

from sarflood.errors import DataRefusedError
from sarflood.files import sha256
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.model.package import load_model
from sarflood.params import load_params
from sarflood.process import git
from sarflood.sources.simulate import simulate_event
from sarflood.stages.evaluate import evaluate
from sarflood.stages.leaks import leaks
from sarflood.stages.split import split
from sarflood.stages.train import train
from sarflood.stages.validate import validate
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[2]

TRAIN = [sys.executable, "-m", "sarflood.stages.train"]

pytestmark = pytest.mark.slow


def change_params(workspace: Workspace, changes: dict[str, str]) -> None:
    text = workspace.params.read_text("utf-8")
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    workspace.params.write_text(text, "utf-8")


def kill_in_training(workspace: Workspace) -> None:
    """Train, and kill it after the second of four epochs."""
    with subprocess.Popen(TRAIN, cwd=workspace.root, stderr=subprocess.PIPE, text=True) as killed:
        assert killed.stderr is not None
        for line in killed.stderr:
            if line.startswith("epoch 2/4"):
                killed.kill()
                break


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two labelled events, then one without labels."""
    folder = tmp_path_factory.mktemp("accepted")
    root = folder / "workspace"
    root.mkdir()
    write_quick_params(root)
    (root / ".gitignore").write_text("*\n!params.yaml\n", "utf-8")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "Start")
    workspace = Workspace(root)
    for seed, event in enumerate(("alpha", "bravo", "charlie")):
        source = folder / event
        simulate_event(source, seed=seed, size=256 * 7)
        for path in source.iterdir():
            with rasterio.open(path, "r+") as raster:  # each event on ground of its own
                raster.transform = Affine.translation(0, -100_000 * seed) @ raster.transform
        if event == "charlie":
            (source / "mask.tif").unlink()
        params = load_params(workspace.params).validation
        ingest_event(workspace, str(source), event, Said(), params)
    return workspace


@pytest.fixture
def workspace(accepted: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(accepted.root, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


def metrics(workspace: Workspace, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.metrics / f"{name}.json").read_text("utf-8"))
    return found


def test_an_event_without_labels_is_judged_but_neither_trains_nor_scores(
    workspace: Workspace,
) -> None:
    for stage in (validate, split, leaks, train, evaluate):
        stage(workspace)
    table = pd.read_parquet(workspace.split)
    assert set(table.loc[table["event"] == "charlie", "split"]) == {"unlabelled"}
    assert set(metrics(workspace, "validation")["drift"]["charlie"]) == {
        "vv",
        "vh",
        "vv_pre",
        "vh_pre",
    }
    assert metrics(workspace, "leaks")["passed"]
    assert metrics(workspace, "training")["train_patches"] == (table["split"] == "train").sum()
    model = json.loads((workspace.model / "model.json").read_text("utf-8"))
    assert [item["event"] for item in model["trained_on"]] == ["alpha", "bravo"]
    assert set(metrics(workspace, "evaluation")["events"]) == {"alpha", "bravo"}


def test_an_event_that_is_left_out_is_all_that_is_tested(workspace: Workspace) -> None:
    text = workspace.params.read_text("utf-8")
    assert "leave_out: []" in text
    workspace.params.write_text(text.replace("leave_out: []", "leave_out: [bravo]"), "utf-8")
    for stage in (validate, split, leaks, train, evaluate):
        stage(workspace)
    table = pd.read_parquet(workspace.split)
    assert set(table.loc[table["event"] == "bravo", "split"]) == {"test"}
    assert set(table.loc[table["event"] == "alpha", "split"]) == {"train", "val", "guard"}
    model = json.loads((workspace.model / "model.json").read_text("utf-8"))
    assert [item["event"] for item in model["trained_on"]] == ["alpha"]
    found = metrics(workspace, "evaluation")
    assert set(found["events"]) == {"bravo"}
    assert found["test"]["patches"] == (table["event"] == "bravo").sum()


def test_a_split_that_leaks_ends_the_pipeline_before_training(workspace: Workspace) -> None:
    validate(workspace)
    split(workspace)
    table = pd.read_parquet(workspace.split)
    moved = table.index[(table["event"] == "alpha") & (table["split"] == "guard")]
    table.loc[moved, "split"] = "train"
    table.to_parquet(workspace.split, index=False)
    with pytest.raises(DataRefusedError, match=r"alpha/.*nearer than 1"):
        leaks(workspace)
    found = metrics(workspace, "leaks")
    assert not found["passed"]
    assert found["leaking"] > 0


@pytest.mark.parametrize("reduction", ["batch", "image"])
def test_two_processes_that_share_each_batch_train_as_one_does(
    workspace: Workspace, tmp_path: Path, reduction: str
) -> None:
    """But for the order of sums; areas are compared over the batch of both."""
    (workspace.root / "dvc.yaml").write_text("stages: {}\n", "utf-8")
    change_params(
        workspace,
        {
            "epochs: 1": "epochs: 3",
            "normalisation: batch": "normalisation: group",
            "width: 2": "width: 8",
            "reduction: batch": f"reduction: {reduction}",
            "jitter: 0.2": "jitter: 0.0",
            "contrast: 0.1": "contrast: 0.0",
            "speckle: 0.2": "speckle: 0.0",
            "holes: 0.1": "holes: 0.0",
        },
    )
    validate(workspace)
    split(workspace)
    both = Workspace(shutil.copytree(workspace.root, tmp_path / "both"))
    change_params(both, {"processes: 1": "processes: 2"})
    train(workspace)
    done = subprocess.run(TRAIN, cwd=both.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1/3") == 1, "one process speaks"
    one, two = (
        pd.read_csv(place.plots / "training.csv")[["epoch", "train_loss", "temperature"]]
        for place in (workspace, both)
    )
    assert two["train_loss"].tolist() == pytest.approx(one["train_loss"].tolist(), rel=1e-4)
    assert two["temperature"].tolist() == pytest.approx(one["temperature"].tolist(), rel=2e-3)


def test_a_killed_training_goes_on_and_ends_as_an_unbroken_one(
    workspace: Workspace, tmp_path: Path
) -> None:
    (workspace.root / "dvc.yaml").write_text("stages: {}\n", "utf-8")
    change_params(workspace, {"epochs: 1": "epochs: 4"})
    validate(workspace)
    split(workspace)
    whole = Workspace(shutil.copytree(workspace.root, tmp_path / "whole"))
    subprocess.run(TRAIN, cwd=whole.root, capture_output=True, check=True)
    kill_in_training(workspace)
    done = subprocess.run(TRAIN, cwd=workspace.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "goes on after its epoch" in done.stderr
    names = ["epoch", "train_loss", "val_iou", "temperature", "threshold"]
    one, other = (pd.read_csv(place.plots / "training.csv")[names] for place in (workspace, whole))
    pd.testing.assert_frame_equal(one, other)
    live = pd.read_csv(workspace.plots / "training/plots/metrics/val_iou.tsv", sep="\t")
    assert live["val_iou"].tolist() == pytest.approx(one["val_iou"].tolist())
    weights = [(place.model / "weights.safetensors").read_bytes() for place in (workspace, whole)]
    assert weights[0] == weights[1]
    assert not (workspace.cache / "training.safetensors").exists()


def test_a_training_begins_with_an_encoder_of_a_file_and_refuses_another(
    workspace: Workspace,
) -> None:
    (workspace.root / "dvc.yaml").write_text("stages: {}\n", "utf-8")
    validate(workspace)
    split(workspace)
    train(workspace)
    trained = load_file(workspace.model / "weights.safetensors")
    encoder = {name: value for name, value in trained.items() if name.startswith("down.")}
    path = workspace.root / "encoder.safetensors"
    save_file(encoder, path)
    named = sha256(path)
    change_params(
        workspace,
        {
            "epochs: 1": "epochs: 4",
            "start_from: null": f"start_from: {{file: encoder.safetensors, sha256: {named}}}",
            "learning_rate: 0.002": "learning_rate: 0.0000001",
            "ema: 0.99": "ema: 0.0",
        },
    )
    kill_in_training(workspace)
    changed = {name: value + 1 for name, value in encoder.items()}
    save_file(changed, path)
    done = subprocess.run(TRAIN, cwd=workspace.root, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "encoder.safetensors: is not the file that was meant" in done.stderr
    change_params(workspace, {named: sha256(path)})
    done = subprocess.run(TRAIN, cwd=workspace.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "goes on after" not in done.stderr
    assert load_model(workspace.model).manifest.started_from == "encoder.safetensors"
    name = "down.0.first.0.weight"
    found = load_file(workspace.model / "weights.safetensors")[name]
    torch.testing.assert_close(found, changed[name], rtol=0.01, atol=0.01)
