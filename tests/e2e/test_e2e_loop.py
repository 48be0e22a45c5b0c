"""The whole loop by the command line, as a user runs it, with a real Prefect server to look at."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
import rasterio
from loop_workspace import SETTINGS, Loop, edit, prefect_server

from sarflood.process import dvc, git
from sarflood.serving.access import bearer
from sarflood.serving.check import serving_bundle
from sarflood.workspace import Workspace

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-tests"


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with (
        tempfile.TemporaryDirectory(prefix="sarflood-loop-") as name,
        prefect_server(Path(name)) as api,
    ):
        folder = Path(name)
        loop = Loop(Workspace(folder / "workspace"), folder, api)
        made = loop.sarflood("init", "init", loop.workspace.root)
        assert made.code == 0, made.err
        edit(loop, SETTINGS)
        for event, seed in (("one", 1), ("two", 2)):
            loop.sarflood(
                event, "simulate", folder / event, "--event", event, "--seed", seed, "--size", 1536
            )
        loop.sarflood("ingest one", "ingest", folder / "one", "--event", "one")
        ran = loop.sarflood("retrain", "retrain")
        assert ran.code == 0, ran.err
        # As if the run had been killed just before the promotion.
        git(loop.workspace.root, "tag", "--delete", "flood-unet#production#1")
        loop.sarflood("retrain resumed", "retrain")
        loop.sarflood("retrain again", "retrain")
        edit(
            loop,
            {"iou: {min: 0.05}": "iou: {min: 0.999}", "start_from: null": "start_from: v0.1.0"},
        )
        loop.sarflood("ingest two", "ingest", folder / "two", "--event", "two", "--retrain")
        yield loop


def test_an_event_is_accepted_and_tracked(loop: Loop) -> None:
    ran = loop.ran["ingest one"]
    assert ran.code == 0, ran.err
    assert "one: accepted; 36 patches" in ran.out
    assert "data/events/one.dvc" in git(loop.workspace.root, "ls-files")


def test_the_first_candidate_is_promoted(loop: Loop) -> None:
    ran = loop.ran["retrain"]
    assert ran.code == 0, ran.err
    first = loop.versions()[-1]
    assert f"v0.1.0 (IoU {first.iou:.4f}): promoted; v0.1.0 serves" in ran.out
    assert (first.version, first.production, first.events) == ("v0.1.0", True, ("one",))
    assert "epoch 3/3" in ran.err, "progress goes to stderr"


def test_a_run_killed_before_the_promotion_is_finished_by_the_next(loop: Loop) -> None:
    ran = loop.ran["retrain resumed"]
    assert ran.code == 0, ran.err
    assert "v0.1.0 serves" in ran.out
    assert "Running stage" not in ran.err, "nothing is trained or judged again"


def test_a_second_retraining_finds_nothing_new(loop: Loop) -> None:
    ran = loop.ran["retrain again"]
    assert ran.code == 0, ran.err
    assert "nothing new; the present data and settings give v0.1.0, which is in pro" in ran.out
    assert "Running stage" not in ran.err
    assert [item.version for item in loop.versions()] == ["v0.2.0", "v0.1.0"]


def test_a_refused_candidate_is_a_version_and_the_champion_stays(loop: Loop) -> None:
    ran = loop.ran["ingest two"]
    assert ran.code == 4, ran.err
    assert "needs at least 0.999" in ran.err
    assert "the champion stays" in ran.err
    assert "Traceback" not in ran.err
    second, first = loop.versions()
    assert (second.events, second.gate_passed, second.production) == (("one", "two"), False, False)
    assert first.production


def test_the_second_candidate_began_with_the_weights_of_the_first(loop: Loop) -> None:
    card = loop.sarflood("card", "models", "show", "v0.2.0").out
    assert "began with the weights of v0.1.0" in card
    curves = [
        git(loop.workspace.root, "show", f"{version.tag}:plots/training.csv")
        for version in reversed(loop.versions())
    ]
    first, second = (pd.read_csv(io.StringIO(curve))["train_loss"].iloc[0] for curve in curves)
    assert second < first, "it knew something already"


def test_the_gate_compared_with_the_champion_on_todays_patches(loop: Loop) -> None:
    gate = json.loads((loop.workspace.metrics / "gate.json").read_text("utf-8"))
    assert gate["champion"] == "v0.1.0"
    names = [check["name"] for check in gate["checks"]]
    against = "IoU above champion v0.1.0"
    assert {"IoU, event one", "IoU, event two", f"{against}, event one"} <= set(names)
    assert f"{against}, new: two" in names


def test_the_run_left_nothing_uncommitted_and_nothing_to_do(loop: Loop) -> None:
    root = loop.workspace.root
    assert git(root, "status", "--porcelain") == ""
    assert "Data and pipelines are up to date" in dvc(root, "repro")
    assert dvc(root, "status", "--cloud", "--json").strip() == "{}"


def test_any_version_is_scored_on_any_event_and_nothing_is_written(loop: Loop) -> None:
    first = loop.versions()[-1]
    known = json.loads(loop.sarflood("score one", "evaluate", "--event", "one").out)
    assert (known["version"], known["trained_on"]) == ("v0.1.0", True)
    assert known["iou"] == first.iou, "its own test patches, as when it was judged"
    other = loop.sarflood("score two", "evaluate", "--event", "two", "--version", "v0.1.0")
    new = json.loads(other.out)
    assert not new["trained_on"]
    assert new["patches"] == known["patches"], "two shows the ground of one: only where one is test"
    assert new["iou_low"] <= new["iou"] <= new["iou_high"]
    second = json.loads(
        loop.sarflood("again", "evaluate", "--event", "two", "--version", "v0.2.0").out
    )
    assert second["trained_on"]
    assert second["patches"] < 36
    missing = loop.sarflood("score none", "evaluate", "--event", "none")
    assert missing.code == 2
    assert "event none: is not there" in missing.err
    assert loop.sarflood("no event", "evaluate", "--version", "v0.1.0").code == 2
    assert git(loop.workspace.root, "status", "--porcelain") == ""


def test_metrics_and_plots_can_be_compared_between_versions(loop: Loop) -> None:
    root = loop.workspace.root
    tags = ("flood-unet@v0.1.0", "flood-unet@v0.2.0")
    changed = json.loads(dvc(root, "metrics", "diff", "--json", *tags))
    assert "test.iou" in changed["metrics/evaluation.json"]
    page = dvc(root, "plots", "show", "--out", str(loop.sources / "plots"))
    assert (loop.sources / "plots" / "index.html").is_file()
    assert "index.html" in page


def test_every_run_can_be_seen_in_prefect(loop: Loop) -> None:
    runs = {run["name"]: run["state"]["name"] for run in loop.post("flow_runs")}
    assert runs["ingest one"] == "Accepted"
    assert runs["retrain after two"] == "Refused"
    states = sorted(run["state"]["name"] for run in loop.post("flow_runs"))
    assert states.count("Promoted") == 2
    assert states.count("Nothing new") == 1
    left = {artifact["key"]: artifact["data"] for artifact in loop.post("artifacts")}
    tables = {"validation-one", "validation", "evaluation", "gate", "champion"}
    assert tables | {"model-card", "bundle-v0-1-0", "worst-patches"} <= set(left)
    compared = {row["test patches of"]: row for row in json.loads(left["champion"])}
    assert {"all test patches", "event one", "event two", "new: two"} == set(compared)
    evaluation = json.loads((loop.workspace.metrics / "evaluation.json").read_text("utf-8"))
    ours = compared["all test patches"]
    assert ours["candidate"] == round(evaluation["test"]["iou"], 4)
    assert ours["champion"] == pytest.approx(ours["candidate"] - ours["difference"], abs=2e-4)
    assert left["worst-patches"].count("](data:image/png;base64,") == 9


def test_the_bundle_maps_a_scene_as_the_command_line_does(loop: Loop) -> None:
    scene = loop.sources / "two"
    ran = loop.sarflood(
        "map", "map", scene / "scene.tif", "--pre", scene / "pre.tif", "--out", scene / "map"
    )
    assert ran.code == 0, ran.err
    store, log = loop.workspace.bentos, loop.sources / "serve.log"
    with serving_bundle(
        "flood-unet:v0.1.0", store, token=TOKEN, ready_within_s=120, log=log
    ) as url:
        with (scene / "scene.tif").open("rb") as post, (scene / "pre.tif").open("rb") as pre:
            response = httpx.post(
                f"{url}/predict",
                files={"scene": post, "pre": pre},
                headers={"Accept": "image/tiff", **bearer(TOKEN)},
                timeout=120,
            )
        version = httpx.get(f"{url}/model", headers=bearer(TOKEN)).json()["version"]
    assert response.status_code == 200, response.text
    assert version == "v0.1.0"
    served = scene / "served.tif"
    served.write_bytes(response.content)
    with rasterio.open(served) as one, rasterio.open(scene / "map" / "flood.tif") as other:
        assert one.crs == other.crs
        assert one.transform == other.transform
        np.testing.assert_array_equal(one.read(1), other.read(1))
    summary = json.loads((scene / "map" / "summary.json").read_text("utf-8"))
    assert summary["version"] == "v0.1.0"
    assert summary["flooded_km2"] > 0


def test_models_and_events_are_listed_as_json(loop: Loop) -> None:
    listed = json.loads(loop.sarflood("models", "models", "--json").out)
    assert [(row["version"], row["stage"], row["gate"]) for row in listed] == [
        ("v0.2.0", None, "refused"),
        ("v0.1.0", "production", "passed"),
    ]
    events = json.loads(loop.sarflood("events", "events", "--json").out)
    assert [row["event"] for row in events] == ["one", "two"]
    card = loop.sarflood("card", "models", "show", "v0.1.0").out
    assert "Gate: passed" in card


def test_a_refused_version_cannot_be_promoted_by_hand(loop: Loop) -> None:
    ran = loop.sarflood("promote", "promote", "v0.2.0")
    assert ran.code == 4
    assert [item.version for item in loop.versions() if item.production] == ["v0.1.0"]


def test_the_gate_is_overridden_and_that_is_undone(loop: Loop) -> None:
    root = loop.workspace.root
    git(root, "config", "user.name", "Maria Reyes")
    asked = ("promote", "v0.2.0", "--override", "--reason", "nothing else maps Samar")
    ran = loop.sarflood("override", *asked)
    assert ran.code == 0, ran.err
    live = json.loads(loop.sarflood("status", "status", "--json").out)["production"]
    assert (live["version"], live["override"], live["gate"]) == ("v0.2.0", True, "refused")
    assert live["bundle"]
    card = loop.sarflood("card", "models", "show", "v0.2.0").out
    assert "by Maria Reyes: Override of the gate: nothing else maps Samar" in card
    again = loop.sarflood("after override", "retrain")
    assert "v0.2.0, which is in production" in again.out
    ran = loop.sarflood("rollback", "rollback", "--reason", "sees water on runways")
    assert ran.code == 0, ran.err
    live = json.loads(loop.sarflood("status", "status", "--json").out)["production"]
    assert (live["version"], live["override"]) == ("v0.1.0", False)
    assert live["why"] == "Rollback from v0.2.0: sees water on runways"
    again = loop.sarflood("after rollback", "retrain")
    assert again.code == 0, again.err
    assert "was rolled back; `sarflood promote v0.2.0` brings it back" in again.out
    assert [item.version for item in loop.versions() if item.production] == ["v0.1.0"]


def test_the_gate_judges_anew_when_it_is_asked(loop: Loop) -> None:
    ran = loop.sarflood("gate", "gate")
    assert ran.code == 4, ran.err
    assert "Running stage 'gate'" in ran.err
    assert "Running stage 'evaluate'" not in ran.err
    assert json.loads(ran.out)["passed"] is False
    assert git(loop.workspace.root, "status", "--porcelain") == "", "the same verdict"


def test_two_versions_are_compared(loop: Loop) -> None:
    found = json.loads(loop.sarflood("diff", "models", "diff", "v0.1.0", "v0.2.0", "--json").out)
    assert list(found["events"]) == ["two"]
    assert found["events"]["two"]["old"] is None
    assert found["params"]["params.yaml: train.start_from"] == {"old": None, "new": "v0.1.0"}
    iou = found["metrics"]["metrics/evaluation.json: test.iou"]
    assert [iou["old"], iou["new"]] == [item.iou for item in reversed(loop.versions())]
    assert found["code"] == []
    table = loop.sarflood("diff", "models", "diff", "v0.1.0", "v0.2.0").out
    assert "train.start_from" in table


def test_a_version_alone_gives_the_same_figures_again(loop: Loop, tmp_path: Path) -> None:
    root, tag = tmp_path / "again", "flood-unet@v0.1.0"
    git(tmp_path, "clone", "--quiet", str(loop.workspace.root), str(root))
    git(root, "checkout", "--quiet", tag)
    remote = f"{loop.workspace.root}-remote"
    dvc(root, "remote", "add", "--quiet", "--local", "--default", "storage", remote)
    dvc(root, "pull", "--quiet")
    path = root / "metrics" / "evaluation.json"
    path.unlink()
    dvc(root, "repro", "--force", "--single-item", "evaluate")
    assert path.read_text("utf-8") == git(root, "show", f"{tag}:metrics/evaluation.json")
    assert dvc(root, "status", "--json", "evaluate").strip() == "{}"


def test_a_bad_source_is_one_clear_error_without_a_server(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no radar here")
    ran = loop.sarflood("bad", "ingest", tmp_path, "--event", "bad", embedded=True)
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert str(tmp_path) in ran.err
    assert "etci2021" in ran.err, "the error lists the layouts that were looked for"


def test_a_wrong_setting_stops_the_run_before_it_starts(loop: Loop) -> None:
    text = loop.workspace.params.read_text("utf-8")
    try:
        loop.workspace.params.write_text(text.replace("width: 4", "width: 1"), "utf-8")
        ran = loop.sarflood("wrong", "train")
    finally:
        loop.workspace.params.write_text(text, "utf-8")
    assert ran.code == 2
    assert "model.width = 1" in ran.err
    assert "2 to 128" in ran.err


def test_code_that_is_not_committed_makes_no_version(loop: Loop) -> None:
    path = loop.workspace.root / "src" / "sarflood" / "errors.py"
    text = path.read_text("utf-8")
    try:
        path.write_text(f"{text}# changed\n", "utf-8")
        ran = loop.sarflood("changed code", "retrain")
    finally:
        path.write_text(text, "utf-8")
    assert ran.code == 2
    assert "not committed: src/sarflood/errors.py" in ran.err
    assert "Traceback" not in ran.err


def test_without_an_earlier_champion_there_is_no_rollback(loop: Loop) -> None:
    ran = loop.sarflood("rollback", "rollback")
    assert ran.code == 2
    assert "no earlier champion" in ran.err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_training_and_all_that_it_started(loop: Loop, sign: signal.Signals) -> None:
    text = loop.workspace.params.read_text("utf-8")
    command = [sys.executable, "-m", "sarflood.cli", "train"]
    try:
        loop.workspace.params.write_text(text.replace("epochs: 3", "epochs: 999"), "utf-8")
        process = subprocess.Popen(
            command,
            cwd=loop.workspace.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A job in the background of a script is started with signals ignored.
            preexec_fn=lambda: signal.signal(sign, signal.SIG_DFL),  # noqa: PLW1509
        )
        assert process.stderr
        for line in process.stderr:
            if line.startswith("epoch 1/"):
                break
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 2
        process.send_signal(sign)
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130
        _, alive = psutil.wait_procs(started, timeout=10)
        assert not alive
    finally:
        loop.workspace.params.write_text(text, "utf-8")
        git(loop.workspace.root, "checkout", "--", ".")


def test_the_report_and_the_docs_load_nothing_from_elsewhere(loop: Loop) -> None:
    pages = [loop.workspace.reports / "report.html"]
    pages += (loop.workspace.reports / "validation").rglob("*.html")
    assert len(pages) >= 3
    for page in pages:
        text = page.read_text("utf-8")
        assert 'src="http' not in text
        assert '<link rel="stylesheet" href="http' not in text
        assert str(loop.workspace.root) not in text
        assert os.environ.get("HOME", "/root") + "/" not in text
