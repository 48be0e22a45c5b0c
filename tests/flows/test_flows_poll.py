"""The flow `poll` in a workspace of its own, on Prefect's own server, against a real STAC API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import State
from stac_server import DROP, StacServer, stac_server

from flows import poll as flow
from flows.ingest import take_in
from sarflood.errors import SarfloodError
from sarflood.patches.store import open_events
from sarflood.process import child_environment, git
from sarflood.setup import make_workspace
from sarflood.sources import remote
from sarflood.workspace import Workspace

pytestmark = pytest.mark.slow

AREAS = (("manila", "sentinel-1-rtc"), ("other", "other"))


@dataclass
class Polls:
    """A workspace that watches two areas, the server of both, and what became of each poll."""

    workspace: Workspace
    server: StacServer
    states: dict[str, State[dict[str, Any]]] = field(default_factory=dict)
    events: dict[str, list[str]] = field(default_factory=dict)  # names in the order of arrival
    asked: dict[str, list[str]] = field(default_factory=dict)
    commits: dict[str, int] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)

    def poll(self, name: str) -> None:
        self.server.asked.clear()
        state: Any = flow.poll(str(self.workspace.root), return_state=True)
        self.states[name] = state
        self.asked[name] = self.server.asked.copy()
        found = [item.event for item in open_events(self.workspace.events)]
        self.events[name] = [item.name for item in sorted(found, key=lambda item: item.number)]
        self.commits[name] = int(git(self.workspace.root, "rev-list", "--count", "HEAD"))
        with get_client(sync_client=True) as client:
            tables = client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["poll"]))
            )
        self.tables[name] = json.loads(str(tables[-1].data)) if tables else None

    def known(self) -> dict[str, dict[str, str | None]]:
        held: dict[str, dict[str, str | None]] = json.loads(self.memory.read_text("utf-8"))
        return held

    @property
    def memory(self) -> Path:
        return self.workspace.cache / "poll" / "manila.json"


def watch(workspace: Workspace, url: str) -> None:
    areas = [
        {"name": name, "url": url, "collections": [collection], "bbox": [120.0, 14.0, 121.0, 15.0]}
        for name, collection in AREAS
    ]
    settings = yaml.safe_load(workspace.params.read_text("utf-8"))
    workspace.params.write_text(yaml.safe_dump({**settings, "poll": areas}), "utf-8")


@pytest.fixture(scope="module")
def polls(
    tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path], prefect: None
) -> Iterator[Polls]:
    folder = tmp_path_factory.mktemp("poll")
    workspace = make_workspace(folder / "workspace")
    with (
        pytest.MonkeyPatch.context() as patch,
        stac_server(folder / "files") as server,
    ):
        patch.setattr(remote, "_WAIT_S", 0.0)
        for step in (flow.look, take_in):
            patch.setattr(step, "retry_delay_seconds", [0.0])
        watch(workspace, server.url)
        polls = Polls(workspace, server)
        for seed, name in enumerate(("third", "second", "first", "late"), 1):
            server.scene(name, seed, write_raster)
        server.publish("third", 1, files=("vv", "vh"), collection="other")
        server.faults["/search"] = [503] * 16  # more than are tried for the first area
        server.faults["/files/third-vh.tif"] = [DROP] * 4
        polls.poll("server fails")

        server.publish("second", 2, files=("vv", "vh"))
        server.publish("first", 3, files=("vv", "vh"))
        server.publish("half", 5, files=("vv",))
        server.publish("gone", 4, files=("vv", "vh"))
        for key in ("vv", "vh"):
            (server.folder / f"damaged-{key}.tif").write_bytes(b"II*\0" + bytes(100))
        server.publish("damaged", 1, files=("vv", "vh"))
        server.faults["/search"] = [DROP]  # is mended by asking again, as are these
        server.faults["/files/first-vv.tif"] = [DROP, 503]
        polls.poll("much is new")
        polls.poll("nothing is new")

        server.publish("late", 20, files=("vv", "vh"))
        polls.poll("one is late")

        known = polls.known()  # as if a poll had been killed between an ingest and its note
        del known["sentinel-1-rtc/first"]
        polls.memory.write_text(json.dumps(known), "utf-8")
        polls.poll("after a kill")
        yield polls


def test_a_failing_server_ends_the_poll_with_its_name(polls: Polls) -> None:
    state = polls.states["server fails"]
    assert state.is_failed()
    with pytest.raises(SarfloodError) as caught:
        state.result()
    head, api, file = str(caught.value).splitlines()
    url = polls.server.url
    assert head == "0 taken in, 0 refused; the next poll goes on"
    assert api.startswith(f"manila: {url}search: does not answer as it should")
    assert file.startswith(f"other: third: {url}files/third-vh.tif: does not answer")
    assert polls.events["server fails"] == []


def test_the_next_poll_takes_in_what_there_is_in_the_order_of_acquisition(polls: Polls) -> None:
    state = polls.states["much is new"]
    assert (state.name, state.message) == ("6 new items", "3 taken in, 3 refused")
    assert polls.events["much is new"] == ["first", "second", "third"]
    one = open_events(polls.workspace.events)[0].event
    assert (one.label, one.region) == (None, "manila"), "for maps and drift, never for training"
    tracked = git(polls.workspace.root, "ls-files", "data/events")
    assert f"data/events/{polls.known()['sentinel-1-rtc/second']['event']}.dvc" in tracked


def test_broken_items_are_refused_with_their_reasons(polls: Polls) -> None:
    refused = {key.split("/")[1]: fate["refused"] or "" for key, fate in polls.known().items()}
    assert "item half has the assets vv; needed are" in refused["half"]
    assert "gone-vv.tif: 404 Not Found" in refused["gone"]
    assert "no usable patch" in refused["damaged"]
    assert refused["first"] == refused["second"] == refused["late"] == ""
    rows = {row["item"]: row for row in polls.tables["much is new"]}
    assert list(rows) == ["half", "gone", "first", "second", "damaged", "third"]
    assert rows["gone"]["refused"] == refused["gone"]
    assert rows["third"]["area"] == "other"


def test_what_is_known_is_not_brought_again(polls: Polls) -> None:
    state = polls.states["nothing is new"]
    assert (state.name, state.message) == ("Nothing new", "0 taken in, 0 refused")
    assert not [path for path in polls.asked["nothing is new"] if path.startswith("/files")]


def test_an_item_that_appears_late_is_found(polls: Polls) -> None:
    assert polls.states["one is late"].name == "1 new item"
    assert polls.events["one is late"] == ["first", "second", "third", "late"]


def test_an_item_that_was_not_noted_changes_nothing(polls: Polls) -> None:
    assert polls.states["after a kill"].name == "1 new item"
    assert polls.events["after a kill"] == polls.events["one is late"]
    assert polls.commits["after a kill"] == polls.commits["one is late"]
    assert polls.known()["sentinel-1-rtc/first"]["refused"] is None


def test_the_command_says_what_came(polls: Polls) -> None:
    def sarflood(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sarflood.cli", *arguments],
            cwd=polls.workspace.root,
            env=child_environment({"COLUMNS": "200"}),
            capture_output=True,
            text=True,
            check=False,
        )

    polls.server.publish("[bold]", 1)
    ran = sarflood("poll")
    assert ran.returncode == 0, ran.stderr
    assert "[bold]" in ran.stdout
    assert "has the assets none" in ran.stdout
    again = sarflood("poll")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing new; areas in params.yaml: 2" in again.stderr
