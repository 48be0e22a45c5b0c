"""All parts on one machine, as `sarflood up` runs them: triggers, deaths, cancellation, the end."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from loop_workspace import SETTINGS

from sarflood.operations.parts import Ports, Site, marked
from sarflood.process import child_environment, git
from sarflood.promotion.registry import versions
from sarflood.serving.server import free_port
from sarflood.setup import make_workspace
from sarflood.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PARTS = ("pages", "serve", "server", "watch", "worker")


@dataclass
class Up:
    """A workspace that is up."""

    workspace: Workspace
    sources: Path
    ports: Ports
    told: list[str]

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
        return httpx.Client(base_url=url, auth=(user, token), timeout=30)

    def ask(self, what: str, query: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        with self.api() as client:
            answer = client.post(f"/{what}/filter", json=query or {})
            answer.raise_for_status()
            rows: list[dict[str, Any]] = answer.json()
        return rows

    def runs(self, flow: str) -> list[dict[str, Any]]:
        ids = [row["id"] for row in self.ask("flows") if row["name"] == flow]
        found = self.ask("flow_runs", {"sort": "START_TIME_ASC"})
        return [row for row in found if row["flow_id"] in ids and row["start_time"]]

    def simulate(self, name: str, seed: int) -> Path:
        folder = self.sources / name
        ran = self.sarflood("simulate", folder, "--event", name, "--seed", seed, "--size", 1536)
        assert ran.returncode == 0, ran.stderr
        return folder

    def served(self) -> str | None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.ports.serve}/model", timeout=5)
        except httpx.TransportError:
            return None
        return str(answer.json()["version"]) if answer.status_code == 200 else None

    def processes(self) -> dict[str, int]:
        return {row["name"]: row["pid"] for row in self.status()["parts"]}


def until(true: Callable[[], Any], what: str, within_s: float = 300) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.3)
    pytest.fail(f"not within {within_s:g} s: {what}")


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    told: list[str] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # its name
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with (
        tempfile.TemporaryDirectory(prefix="sarflood-up-") as name,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver,
    ):
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        root = Path(name)
        workspace = make_workspace(root / "workspace")
        text = workspace.params.read_text("utf-8")
        for old, new in SETTINGS.items():
            assert old in text
            text = text.replace(old, new)
        workspace.params.write_text(text, "utf-8")
        git(workspace.root, "commit", "--quiet", "-am", "Small and quick")
        ports = Ports(free_port(), free_port(), free_port())
        found = Up(workspace, root, ports, told)
        try:
            found.up()
            _notify(found, receiver.server_port)
            yield found
        finally:
            found.sarflood("down")
            receiver.shutdown()


def _notify(up: Up, port: int) -> None:
    """Save a webhook block on the server, name it in params.yaml, and start the watcher anew."""
    code = (
        "from prefect.blocks.webhook import Webhook\n"
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
        f"Block(name='duty', url='http://127.0.0.1:{port}/', "
        "json_data={'text': '{{subject}}: {{body}}'}).save('duty')\n"
    )
    environment = child_environment(up.site.client_environment())
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    text = up.workspace.params.read_text("utf-8")
    up.workspace.params.write_text(text.replace("notify: []", "notify: [custom-webhook/duty]"))
    git(up.workspace.root, "commit", "--quiet", "-am", "Tell the duty officer")
    up.sarflood("down")
    up.up()


def test_all_parts_run_and_say_so(up: Up) -> None:
    found = up.status()
    assert sorted(item["name"] for item in found["parts"]) == sorted(PARTS)
    assert {item["state"] for item in found["parts"]} == {"RUNNING"}
    assert found["trouble"] == []


def test_prefects_server_and_the_pages_ask_for_the_token(up: Up) -> None:
    api = f"http://127.0.0.1:{up.ports.prefect}/api/flows/filter"
    assert httpx.post(api, json={}).status_code == 401
    pages = f"http://127.0.0.1:{up.ports.reports}/report.html"
    assert httpx.get(pages).status_code == 401
    assert httpx.get(pages, auth=("sarflood", "wrong")).status_code == 401
    assert (up.site.folder / "token").stat().st_mode & 0o077 == 0


def test_a_drop_becomes_an_event_a_retraining_and_a_version_that_serves(up: Up) -> None:
    made = up.simulate("one", 1)
    made.rename(up.workspace.inbox / "one")
    until(lambda: up.runs("retrain"), "a retraining runs", 120)
    until(lambda: up.served() == "v0.1.0", "v0.1.0 serves")
    assert (up.workspace.inbox / "done" / "one" / "scene.tif").is_file()
    first = up.runs("retrain")[0]
    assert first["name"] == "retrain after one"
    kinds = {row["type"] for row in up.ask("artifacts")}
    assert {"progress", "table", "markdown"} <= kinds
    auth = httpx.BasicAuth("sarflood", up.site.token())
    page = httpx.get(f"http://127.0.0.1:{up.ports.reports}/report.html", auth=auth)
    assert page.status_code == 200
    assert page.text == (up.workspace.reports / "report.html").read_text("utf-8")


def test_people_are_told_of_a_promotion(up: Up) -> None:
    until(lambda: any("sarflood.model.promoted" in text for text in up.told), "a message", 60)


def test_a_bad_drop_is_refused_with_its_reason_and_others_go_on(up: Up) -> None:
    bad = up.workspace.inbox / "not-a-radar-image"
    bad.mkdir()
    (bad / "readme.txt").write_text("nothing here")
    reason = up.workspace.inbox / "refused" / "not-a-radar-image.reason.txt"
    until(reason.exists, "the reason", 120)
    assert "layout" in reason.read_text()
    assert up.status()["refused"] == 1
    until(lambda: any("sarflood.event.refused" in text for text in up.told), "a message", 60)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_comes_back(up: Up, part: str) -> None:
    before = up.processes()[part]
    psutil.Process(before).kill()
    until(lambda: up.processes().get(part) not in (None, before), f"{part} runs again", 60)
    until(lambda: up.status()["trouble"] == [], "no trouble", 120)
    if part == "serve":
        until(lambda: up.served() == "v0.1.0", "v0.1.0 serves again")


def test_a_run_cancelled_by_a_person_ends_its_training(up: Up) -> None:
    text = up.workspace.params.read_text("utf-8")
    long = text.replace("epochs: 3 ", "epochs: 500 ").replace("seed: 0", "seed: 1")
    assert long != text
    up.workspace.params.write_text(long)
    git(up.workspace.root, "commit", "--quiet", "-am", "A long training")
    run = _start(up, "retrain/retrain")
    training = until(lambda: _trainings(up), "a training")
    with up.api() as client:
        state = {"type": "CANCELLING", "name": "Cancelling"}
        client.post(f"/flow_runs/{run}/set_state", json={"state": state}).raise_for_status()
    _, alive = psutil.wait_procs(training, timeout=30)
    assert not alive, "the training goes on"
    until(lambda: _state(up, run) == "CANCELLED", "the run is cancelled", 60)
    up.workspace.params.write_text(text)
    git(up.workspace.root, "commit", "--quiet", "-am", "A short one again")


def test_after_all_was_killed_up_goes_on_and_loses_no_event(up: Up) -> None:
    made = [up.simulate(name, seed) for seed, name in ((2, "two"), (3, "three"))]
    for folder in made:
        folder.rename(up.workspace.inbox / folder.name)
    until(lambda: not up.workspace.inbox.joinpath("two").exists(), "the first was taken in", 180)
    for process in marked(up.workspace):
        process.kill()
    up.site.socket.unlink(missing_ok=True)
    assert up.status()["parts"] == []
    up.up()

    def all_seen() -> bool:
        newest = versions(up.workspace)[0]
        return set(newest.events) == {"one", "two", "three"}

    until(all_seen, "a version that knows all events", 600)
    work = ("RUNNING", "PENDING")
    until(
        lambda: not [row for row in up.ask("flow_runs") if row["state_type"] in work],
        "no run is left of what was killed",
    )
    log = git(up.workspace.root, "log", "--format=%s")
    for name in ("one", "two", "three"):
        assert sum(f"Ingest event {name}" in line for line in log.splitlines()) == 1


def test_no_log_has_the_token(up: Up) -> None:
    logs = list(up.site.folder.glob("*.log"))
    assert len(logs) == len(PARTS) + 1, "and supervisord's own"
    for file in (*logs, up.site.folder / "supervisord.conf"):
        assert up.site.token() not in file.read_text("utf-8", "replace"), file


def test_down_leaves_nothing_behind(up: Up) -> None:
    assert up.sarflood("down").returncode == 0
    assert list(marked(up.workspace)) == []
    assert not up.site.socket.exists()
    assert up.served() is None
    again = up.sarflood("down")
    assert "was not up" in again.stdout.replace("\n", " ")


def _start(up: Up, deployment: str) -> str:
    with up.api() as client:
        found = client.get(f"/deployments/name/{deployment}").json()["id"]
        answer = client.post(f"/deployments/{found}/create_flow_run", json={})
        answer.raise_for_status()
    return str(answer.json()["id"])


def _state(up: Up, run: str) -> str:
    with up.api() as client:
        return str(client.get(f"/flow_runs/{run}").json()["state_type"])


def _trainings(up: Up) -> list[psutil.Process]:
    return [
        process
        for process in marked(up.workspace)
        if "sarflood.stages.train" in " ".join(process.cmdline()) and "python" in process.name()
    ]
