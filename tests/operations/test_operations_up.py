"""All parts on one machine, as `sarflood up` runs them: triggers, deaths, cancellation, the end."""

from __future__ import annotations

import http.server
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx
import numpy as np
import psutil
import pytest
from loop_workspace import SETTINGS
from running import Up, until, workspace_up

from sarflood.operations.parts import RUN_MARK, marked
from sarflood.process import child_environment, git
from sarflood.promotion.registry import assign_production, versions
from sarflood.serving.access import bearer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
PARTS = ("pages", "serve", "server", "watch", "worker")


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

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        try:
            with workspace_up(SETTINGS) as found:
                found.told = told
                _notify(found, receiver.server_port)
                yield found
        finally:
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
    until(lambda: up.runs("retrain"), "a retraining runs")
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
    assert "gate passed" in up.message("sarflood.model.promoted")


def test_a_run_leads_to_the_page_of_its_bundle(up: Up) -> None:
    found = {row["key"]: row["data"] for row in up.ask("artifacts")}
    address = f"http://127.0.0.1:{up.ports.reports}/bundles/v0.1.0"
    assert address in found["bundle-v0-1-0-page"]
    assert httpx.get(address).status_code == 401
    auth = httpx.BasicAuth("sarflood", up.site.token())
    page = httpx.get(address, auth=auth).text
    assert "flood-unet:v0.1.0" in page
    assert "Known weaknesses" in page, "the model card"
    assert "src/package/weights.safetensors" in page
    assert httpx.get(address.replace("v0.1.0", "v9.9.9"), auth=auth).status_code == 404


def test_a_bad_drop_is_refused_with_its_reason_and_others_go_on(up: Up) -> None:
    bad = up.workspace.inbox / "not-a-radar-image"
    bad.mkdir()
    (bad / "readme.txt").write_text("nothing here")
    reason = up.workspace.inbox / "refused" / "not-a-radar-image.reason.txt"
    until(reason.exists, "the reason", 120)
    assert "layout" in reason.read_text()
    assert up.status()["refused"] == 1
    assert "layout" in up.message("sarflood.event.refused")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_comes_back(up: Up, part: str) -> None:
    before = up.processes()[part]
    psutil.Process(before).kill()
    until(lambda: up.processes().get(part) not in (None, before), f"{part} runs again", 60)
    until(lambda: up.status()["trouble"] == [], "no trouble", 120)
    if part == "serve":
        until(lambda: up.served() == "v0.1.0", "v0.1.0 serves again")


def test_a_drift_of_what_is_mapped_is_told_and_starts_a_retraining(up: Up) -> None:
    images = np.load(up.workspace.events / "one" / "images.npy", mmap_mode="r")[:8]
    body = io.BytesIO()
    np.save(body, (images + np.float16(8)).astype(np.float16))
    url = f"http://127.0.0.1:{up.ports.serve}/predict/patches"
    headers = bearer(up.site.token())
    httpx.post(url, content=body.getvalue(), headers=headers, timeout=120).raise_for_status()
    up.start("monitor/monitor")
    assert "population stability index" in up.message("sarflood.drift.detected")
    until(lambda: len(up.runs("retrain")) == 2, "a retraining runs")
    until(up.idle, "it ends")
    assert up.runs("retrain")[1]["state"]["name"] == "Nothing new"


@pytest.fixture
def long_training(up: Up) -> Iterator[tuple[str, list[psutil.Process]]]:
    """A retraining that works for long, and the processes of its training."""
    text = up.workspace.params.read_text("utf-8")
    long = text.replace("epochs: 3 ", "epochs: 500 ").replace("seed: 0", "seed: 1")
    assert long != text
    up.workspace.params.write_text(long)
    git(up.workspace.root, "commit", "--quiet", "-am", "A long training")
    run = up.start("retrain/retrain")
    yield run, until(up.trainings, "a training")
    up.workspace.params.write_text(text)
    git(up.workspace.root, "commit", "--quiet", "-am", "A short one again")


Long = tuple[str, list[psutil.Process]]


def test_a_run_whose_process_is_killed_ends_with_its_training_and_is_told(
    up: Up, long_training: Long
) -> None:
    run, training = long_training
    for process in marked(up.workspace):
        with suppress(psutil.NoSuchProcess):
            if process.environ().get(RUN_MARK) == run and "prefect" in " ".join(process.cmdline()):
                process.kill()
    until(lambda: up.state(run) == "CRASHED", "the run is marked", 60)
    _, alive = psutil.wait_procs(training, timeout=60)
    assert not alive, "the training goes on"
    assert "SIGKILL" in up.message("prefect.flow-run.Crashed retrain")


def test_a_run_cancelled_by_a_person_ends_its_training_and_frees_its_slot(
    up: Up, long_training: Long
) -> None:
    run, training = long_training
    up.cancel(run)
    _, alive = psutil.wait_procs(training, timeout=10)
    assert not alive, "the training goes on"
    until(lambda: up.state(run) == "CANCELLED", "the run is cancelled", 60)


def test_after_all_was_killed_up_goes_on_and_loses_no_event(up: Up) -> None:
    text = up.workspace.params.read_text("utf-8")
    up.workspace.params.write_text(text.replace("iou: {min: 0.05}", "iou: {min: 0.999}"), "utf-8")
    git(up.workspace.root, "commit", "--quiet", "-am", "A gate that nothing passes")
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

    until(all_seen, "a version that knows all events", 1800)
    until(up.idle, "no run is left of what was killed")
    log = git(up.workspace.root, "log", "--format=%s")
    for name in ("one", "two", "three"):
        assert sum(f"Ingest event {name}" in line for line in log.splitlines()) == 1


def test_people_are_told_of_a_refused_candidate(up: Up) -> None:
    assert "needs at least 0.999" in up.message("sarflood.model.refused")
    assert up.served() == "v0.1.0"


def test_people_are_told_of_a_rollback(up: Up) -> None:
    assign_production(up.workspace, versions(up.workspace)[0].version, "As if it had passed")
    ran = up.sarflood("rollback", "--reason", "sees water on runways")
    assert ran.returncode == 0, ran.stderr
    assert "sees water on runways" in up.message("sarflood.model.rolled-back")
    assert sum("sarflood.model.promoted" in text for text in up.told) == 1


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
