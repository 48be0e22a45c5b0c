"""The workspace of the loop, the command line in it, and a Prefect server that sees the runs."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from sarflood.process import child_environment, git, running
from sarflood.promotion.registry import Version, versions
from sarflood.workspace import Workspace

# Small and quick; the gate asks for little, so that the first candidate passes.
SETTINGS = {
    "width: 8": "width: 4",
    "depth: 4": "depth: 2",
    "epochs: 48": "epochs: 3",
    "engine: auto": "engine: float32",  # the other takes as long to make as the training
    "min_steps: 5400": "min_steps: 1",
    "crop: 128": "crop: 64",
    "learning_rate: 0.002": "learning_rate: 0.01",
    "    iou: {min: 0.7}": "    iou: {min: 0.05}",
    "f1: {min: 0.8}": "f1: {min: 0.05}",
    "recall: {min: 0.7}": "recall: {min: 0.05}",
    "boundary_distance_px: {max: 8.0}": "boundary_distance_px: {max: 800.0}",
    "area_error: {max: 0.3}": "area_error: {max: 30.0}",
    "ece: {max: 0.05}": "ece: {max: 0.5}",
}


@dataclass
class Ran:
    """A command that was run."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Loop:
    """The workspace of the loop, the commands that were run in it, and the server that saw them."""

    workspace: Workspace
    sources: Path
    api: str
    ran: dict[str, Ran] = field(default_factory=dict)

    def sarflood(self, name: str, *arguments: object, embedded: bool = False) -> Ran:
        """Run `sarflood`; on the server, or with the one that Prefect embeds."""
        environment = child_environment({} if embedded else {"PREFECT_API_URL": self.api})
        command = [sys.executable, "-m", "sarflood.cli", *map(str, arguments)]
        started = time.monotonic()
        done = subprocess.run(
            command,
            cwd=self.workspace.root if self.workspace.root.exists() else self.sources,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr, time.monotonic() - started)
        self.ran[name] = ran
        return ran

    def post(self, path: str) -> list[dict[str, Any]]:
        """Ask the Prefect server."""
        response = httpx.post(f"{self.api}/{path}/filter", json={}, timeout=30)
        response.raise_for_status()
        found: list[dict[str, Any]] = response.json()
        return found

    def versions(self) -> list[Version]:
        return versions(self.workspace)


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Run a Prefect server on a free port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with running([*command, "--port", str(port)], home, {"PREFECT_HOME": str(home)}) as process:
        deadline = time.monotonic() + 120
        url = f"http://127.0.0.1:{port}/api"
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url


def edit(loop: Loop, changes: dict[str, str]) -> None:
    path = loop.workspace.params
    text = path.read_text("utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, "utf-8")
    git(loop.workspace.root, "commit", "--quiet", "-am", "Other settings")
