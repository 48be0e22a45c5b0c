"""A workspace that is up, as `sarflood up` runs it, and ways to ask its server."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.support import FOLDED
from sarflood.operations.parts import Ports, Site, marked
from sarflood.process import child_environment, git
from sarflood.serving.access import bearer
from sarflood.serving.server import free_port
from sarflood.setup import make_workspace
from sarflood.workspace import Workspace

_TRIES = 5


class _Patient(httpx.HTTPTransport):
    """Asks a busy server again, later and later: SQLite may be locked (HTTP 503).

    Nothing of what was asked is done then, so that this is safe.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for number in range(_TRIES - 1):
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer
            answer.close()
            time.sleep(2**number)
        return super().handle_request(request)


@dataclass
class Up:
    """A workspace that is up."""

    workspace: Workspace
    sources: Path
    ports: Ports
    told: list[str] = field(default_factory=list)

    @property
    def site(self) -> Site:
        return Site(self.workspace)

    def sarflood(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sarflood.cli", *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=self.workspace.root,
            env=child_environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self) -> None:
        ports = self.ports
        ran = self.sarflood(
            *("up", "--prefect-port", ports.prefect),
            *("--serve-port", ports.serve, "--reports-port", ports.reports),
        )
        assert ran.returncode == 0, ran.stderr

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sarflood("status", "--json").stdout)
        return found

    def api(self) -> httpx.Client:
        user, _, token = self.site.auth().partition(":")
        url = f"http://127.0.0.1:{self.ports.prefect}/api"
        transport = _Patient()
        return httpx.Client(base_url=url, auth=(user, token), timeout=120, transport=transport)

    def ask(self, what: str, query: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        with self.api() as client:
            answer = client.post(f"/{what}/filter", json=query or {})
            answer.raise_for_status()
            rows: list[dict[str, Any]] = answer.json()
        return rows

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow that began, without those that another one did the work of."""
        ids = [row["id"] for row in self.ask("flows") if row["name"] == flow]
        found = self.ask("flow_runs", {"sort": "START_TIME_ASC"})
        began = [row for row in found if row["flow_id"] in ids and row["start_time"]]
        return [row for row in began if row["state_name"] != FOLDED]

    def start(self, deployment: str) -> str:
        """Start a run; return its id."""
        with self.api() as client:
            found = client.get(f"/deployments/name/{deployment}").json()["id"]
            answer = client.post(f"/deployments/{found}/create_flow_run", json={})
            answer.raise_for_status()
        return str(answer.json()["id"])

    def state(self, run: str) -> str:
        with self.api() as client:
            return str(client.get(f"/flow_runs/{run}").json()["state_type"])

    def cancel(self, run: str) -> None:
        """Cancel a run as the button of Prefect's UI does."""
        with self.api() as client:
            state = {"type": "CANCELLING", "name": "Cancelling"}
            client.post(f"/flow_runs/{run}/set_state", json={"state": state}).raise_for_status()

    def trainings(self) -> list[psutil.Process]:
        return [
            process
            for process in marked(self.workspace)
            if "sarflood.stages.train" in " ".join(process.cmdline()) and "python" in process.name()
        ]

    def simulate(self, name: str, seed: int) -> Path:
        folder = self.sources / name
        ran = self.sarflood("simulate", folder, "--event", name, "--seed", seed, "--size", 1536)
        assert ran.returncode == 0, ran.stderr
        return folder

    def served(self) -> str | None:
        try:
            url = f"http://127.0.0.1:{self.ports.serve}/model"
            answer = httpx.get(url, headers=bearer(self.site.token()), timeout=5)
        except httpx.TransportError:
            return None
        return str(answer.json()["version"]) if answer.status_code == 200 else None

    def message(self, event: str) -> str:
        """What people were told of an event; waits for it."""
        found: list[str] = until(
            lambda: [text for text in self.told if event in text], f"a message of {event}", 120
        )
        return found[-1]

    def idle(self) -> bool:
        work = ("RUNNING", "PENDING", "CANCELLING")
        return not [row for row in self.ask("flow_runs") if row["state_type"] in work]

    def processes(self) -> dict[str, int]:
        return {row["name"]: row["pid"] for row in self.status()["parts"]}


def until(true: Callable[[], Any], what: str, within_s: float = 900) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.3)
    pytest.fail(f"not within {within_s:g} s: {what}")


def edit(workspace: Workspace, changes: Mapping[str, str]) -> None:
    """Change settings, and commit them."""
    text = workspace.params.read_text("utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    workspace.params.write_text(text, "utf-8")
    git(workspace.root, "commit", "--quiet", "-am", "Other settings")


@contextmanager
def workspace_up(settings: Mapping[str, str]) -> Iterator[Up]:
    """Make a workspace, change its settings, bring it up; take all of it away at the end."""
    with tempfile.TemporaryDirectory(prefix="sarflood-up-") as name:
        root = Path(name)
        workspace = make_workspace(root / "workspace")
        edit(workspace, settings)
        found = Up(workspace, root, Ports(free_port(), free_port(), free_port()))
        try:
            found.up()
            yield found
        finally:
            found.sarflood("down")
