"""What the version in production has mapped, by flow and command line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.worker import EventsWorker
from tiny import write_package
from typer.testing import CliRunner, Result
from watched import seen, training

from flows.monitor import monitor
from sarflood.cli.console import app
from sarflood.errors import InputError
from sarflood.files import sha256, write_json, write_text
from sarflood.model import WEIGHTS
from sarflood.monitoring.journal import Journal
from sarflood.monitoring.reference import REFERENCE, Reference, write_reference
from sarflood.monitoring.report import last_report
from sarflood.process import git
from sarflood.promotion.registry import assign_production, register
from sarflood.setup import make_workspace
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return training(range(2))


@pytest.fixture
def workspace(tmp_path: Path, reference: Reference) -> Workspace:
    """A workspace with v0.1.0 in production and fetched."""
    place = Workspace(tmp_path / "workspace")
    place.root.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, place.root)
    git(place.root, "init", "--quiet", "--initial-branch", "main")
    git(place.root, "config", "user.name", "test")
    git(place.root, "config", "user.email", "test@localhost")
    write_text(place.root / ".gitignore", "/.sarflood\n/reports\n")
    (place.cache / "versions").mkdir(parents=True)
    package = write_package(place.cache / "versions" / "v0.1.0")
    write_reference(reference, package)
    write_json(
        place.metrics / "gate.json", {"passed": True, "candidate": sha256(package / WEIGHTS)}
    )
    git(place.root, "add", "-A")
    git(place.root, "commit", "--quiet", "-m", "candidate")
    register(place, "candidate")
    assign_production(place, "v0.1.0", "first")
    return place


def serve(workspace: Workspace, shift_db: float = 0.0, version: str = "v0.1.0") -> None:
    """Keep five images, as the service does."""
    journal = Journal(workspace.journal)
    for seed in range(100, 105):
        journal.note(seen(seed, shift_db, version=version))


def drift(workspace: Workspace, *options: str) -> Result:
    return CliRunner().invoke(app, ["drift", *options, "--workspace", str(workspace.root)])


class TestCommand:
    def test_without_an_image_there_is_nothing_to_compare(self, workspace: Workspace) -> None:
        serve(workspace, 4.0, version="v0.2.0")  # of another version
        assert "has mapped nothing yet" in drift(workspace).stdout
        assert json.loads(drift(workspace, "--json").stdout) is None
        assert last_report(workspace) is None

    def test_quiet_images_are_said_to_be_so(self, workspace: Workspace) -> None:
        serve(workspace)
        ran = drift(workspace)
        assert ran.exit_code == 0, ran.exception
        assert "v0.1.0, 5 image(s): quiet" in ran.stdout.replace("\n", " ")
        found = last_report(workspace)
        assert found
        assert (found["drifted"], found["reasons"], found["images"]) == (False, [], 5)

    def test_a_drift_is_said_and_shown(self, workspace: Workspace) -> None:
        serve(workspace, 4.0)
        found = json.loads(drift(workspace, "--json").stdout)
        assert found["drifted"]
        assert found == last_report(workspace)
        page = (workspace.drift / "drift.html").read_text("utf-8")
        assert "The window has drifted" in page
        assert all(reason in page for reason in found["reasons"])
        assert page.count("<img ") == 3, "a histogram a band, and the course over time"
        assert "http" not in page.replace("http-equiv", ""), "loads nothing"

    def test_a_version_without_statistics_is_refused_with_the_remedy(
        self, workspace: Workspace
    ) -> None:
        serve(workspace)
        (workspace.cache / "versions" / "v0.1.0" / REFERENCE).unlink()
        refusal = drift(workspace).exception
        assert isinstance(refusal, InputError)
        assert "`sarflood retrain` makes one" in str(refusal)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
class TestFlow:
    def run(self, workspace: Workspace) -> Any:
        return monitor(str(workspace.root), return_state=True)

    def test_without_a_version_in_production_nothing_was_seen(self, tmp_path: Path) -> None:
        state = self.run(make_workspace(tmp_path / "new"))
        assert (state.type, state.name) == (StateType.COMPLETED, "Nothing seen")
        assert state.message == "no version is in production"

    def test_a_drift_is_a_state_and_an_event(self, workspace: Workspace) -> None:
        assert self.run(workspace).name == "Nothing seen"
        serve(workspace)
        assert self.run(workspace).name == "Quiet"
        serve(workspace, 4.0)
        state = self.run(workspace)
        assert state.name == "Drift"
        assert "population stability index" in state.message
        EventsWorker.drain_all()
        wanted = {"filter": {"event": {"name": ["sarflood.drift.detected"]}}}
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + 60
        with get_client(sync_client=True) as client:
            while not found and time.monotonic() < deadline:  # the server stores them in batches
                time.sleep(0.2)
                found = client.request("POST", "/events/filter", json=wanted).json()["events"]
            tables = [item.data for item in client.read_artifacts() if item.key == "drift"]
        (event,) = found
        assert event["resource"]["prefect.resource.id"] == "sarflood.model.v0.1.0"
        assert event["payload"]["reasons"] == state.result()["reasons"]
        assert len(tables) == 2
