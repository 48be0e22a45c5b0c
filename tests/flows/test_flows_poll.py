"""The flow `poll` in a workspace of its own, on Prefect's own server, against a real STAC API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import State
from prefect.testing.utilities import prefect_test_harness
from stac_server import DROP, StacServer, stac_server

from flows import poll as flow
from sarflood.errors import SarfloodError
from sarflood.patches.store import open_events
from sarflood.process import child_environment, git
from sarflood.setup import make_workspace
from sarflood.sources import remote
from sarflood.workspace import Workspace

pytestmark = pytest.mark.slow


@dataclass
class Polled:
    """A workspace that watches two areas, and the server of both."""

    workspace: Workspace
    server: StacServer

    def poll(self) -> State[dict[str, Any]]:
        state: State[dict[str, Any]] = flow.poll(str(self.workspace.root), return_state=True)
        return state

    def known(self, area: str) -> dict[str, dict[str, str | None]]:
        path = self.workspace.cache / "poll" / f"{area}.json"
        held: dict[str, dict[str, str | None]] = json.loads(path.read_text("utf-8"))
        return held

    def events(self) -> dict[str, int]:
        found = open_events(self.workspace.events)
        return {item.event.name: item.event.number for item in found}

    def commits(self) -> int:
        return int(git(self.workspace.root, "rev-list", "--count", "HEAD"))


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def polled(
    prefect: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_raster: Any
) -> Iterator[Polled]:
    monkeypatch.setattr(remote, "_WAIT_S", 0.0)
    for step in (flow.look, flow.take):
        monkeypatch.setattr(step, "retry_delay_seconds", [0.0, 0.0])
    workspace = make_workspace(tmp_path / "workspace")
    with stac_server(tmp_path / "files") as server:
        areas = [
            {
                "name": name,
                "url": server.url,
                "collections": [collection],
                "bbox": [120.0, 14.0, 121.0, 15.0],
            }
            for name, collection in (("manila", "sentinel-1-rtc"), ("other", "other"))
        ]
        settings = yaml.safe_load(workspace.params.read_text("utf-8"))
        workspace.params.write_text(yaml.safe_dump({**settings, "poll": areas}), "utf-8")
        for seed, (name, days_ago) in enumerate((("second", 2), ("first", 3)), 1):
            server.scene(name, seed, write_raster)
            server.publish(name, days_ago, files=("vv", "vh"))
        yield Polled(workspace, server)


def test_what_is_new_becomes_events_and_only_once(polled: Polled, write_raster: Any) -> None:
    server = polled.server
    server.publish("no-vh", 5, files=("vv",))
    server.publish("gone", 4, files=("vv", "vh"))
    (server.folder / "damaged-vv.tif").write_bytes(b"II*\0" + bytes(100))
    (server.folder / "damaged-vh.tif").write_bytes(b"<html>")
    server.publish("damaged", 1, files=("vv", "vh"))
    first = polled.poll()
    assert (first.name, first.message) == ("5 new items", "2 taken in, 3 refused")
    assert polled.events() == {"first": 1, "second": 2}, "in the order of acquisition"
    (one, two) = open_events(polled.workspace.events)
    assert {one.event.region, two.event.region} == {"manila"}
    assert one.event.label is None, "for maps and drift, never for training"
    known = polled.known("manila")
    assert "no-vh has the assets vv; needed" in (known["sentinel-1-rtc/no-vh"]["refused"] or "")
    assert "gone-vv.tif: 404 Not Found" in (known["sentinel-1-rtc/gone"]["refused"] or "")
    assert "no usable patch" in (known["sentinel-1-rtc/damaged"]["refused"] or "")
    assert known["sentinel-1-rtc/first"]["refused"] is None
    tracked = git(polled.workspace.root, "ls-files", "data/events")
    assert f"data/events/{known['sentinel-1-rtc/first']['event']}.dvc" in tracked

    server.asked.clear()
    second = polled.poll()
    assert (second.name, second.message) == ("Nothing new", "0 taken in, 0 refused")
    assert not [path for path in server.asked if path.startswith("/files")]

    server.scene("late", 3, write_raster)
    server.publish("late", 20, files=("vv", "vh"))
    assert polled.poll().name == "1 new item"
    assert polled.events()["late"] == 3

    # As if it had been killed between an ingest and its note.
    (polled.workspace.cache / "poll" / "manila.json").unlink()
    commits = polled.commits()
    assert polled.poll().message == "3 taken in, 3 refused"
    assert polled.commits() == commits
    assert len(polled.events()) == 3


def test_a_failing_server_ends_the_poll_and_the_next_goes_on(
    polled: Polled, write_raster: Any
) -> None:
    server = polled.server
    server.scene("third", 4, write_raster)
    server.publish("third", 1, files=("vv", "vh"), collection="other")
    server.faults["/search"] = [503] * 12  # more than are tried for the first area
    server.faults["/files/third-vh.tif"] = [DROP] * 3
    state = polled.poll()
    assert state.is_failed()
    with pytest.raises(SarfloodError) as caught:
        state.result()
    lines = str(caught.value).splitlines()
    assert lines[0] == "0 taken in, 0 refused; the next poll goes on"
    assert lines[1].startswith(f"manila: {server.url}search: does not answer as it should")
    assert lines[2].startswith(f"other: third: {server.url}files/third-vh.tif: does not answer")
    assert len(lines) == 3

    server.faults["/search"] = [DROP]  # is mended by asking again
    server.faults["/files/first-vv.tif"] = [DROP, 503]
    assert polled.poll().name == "3 new items"
    assert polled.events() == {"first": 1, "second": 2, "third": 3}


def test_the_command_polls_and_says_what_came(polled: Polled) -> None:
    polled.server.publish("[/odd]", 1)

    def sarflood(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sarflood.cli", *arguments],
            cwd=polled.workspace.root,
            env=child_environment({"COLUMNS": "200"}),
            capture_output=True,
            text=True,
            check=False,
        )

    ran = sarflood("poll")
    assert ran.returncode == 0, ran.stderr
    assert [line.split()[1] for line in ran.stdout.splitlines()[1:4]] == [
        "first",
        "second",
        "[/odd]",
    ]
    assert "has the assets none" in ran.stdout
    again = sarflood("poll")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing new; areas in params.yaml: 2" in again.stderr
