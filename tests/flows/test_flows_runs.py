"""What becomes of runs: tried again or not, what their log says, those that are lost or owed."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import rasterio
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, LogFilter
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.flows import Flow
from prefect.states import Cancelled, Cancelling, Completed, Failed, Running, Scheduled

from flows import lost, support, watch
from flows.ingest import ingest, track
from flows.lost import LOST, mark_lost
from flows.support import FOLDED, read_runs
from flows.watch import newest_unseen, owes_retraining
from sarflood.errors import DataRefusedError, InputError
from sarflood.ingest.track import note_seen, tracked_events
from sarflood.operations.parts import RUN_MARK
from sarflood.process import git
from sarflood.setup import make_workspace
from sarflood.sources.simulate import simulate_event
from sarflood.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace")


def run(workspace: Workspace, source: Path, event: str) -> tuple[State[Any], UUID]:
    """Ingest; return the run's state and id."""
    state: Any = ingest(str(source), event, workspace=str(workspace.root), return_state=True)
    return state, state.state_details.flow_run_id


def steps(client: SyncPrefectClient, flow_run: UUID) -> dict[str, TaskRun]:
    """The tasks of a run by name."""
    chosen = FlowRunFilter.model_validate({"id": {"any_": [flow_run]}})
    found: list[TaskRun] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # the server hears of tasks by events
        found = client.read_task_runs(flow_run_filter=chosen)
        if found and all(item.state and item.state.is_final() for item in found):
            break
        time.sleep(0.1)
    return {item.name: item for item in found}


def first_error(client: SyncPrefectClient, flow_run: UUID) -> str:
    """The first line of the first error in the log of a run."""
    chosen = LogFilter.model_validate(
        {"flow_run_id": {"any_": [flow_run]}, "level": {"ge_": logging.ERROR}}
    )
    deadline = time.monotonic() + 60
    while not (found := client.read_logs(chosen)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return min(found, key=lambda line: line.timestamp).message.splitlines()[0]


def test_a_remote_that_comes_back_is_pushed_to_in_the_same_run(
    workspace: Workspace, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = workspace.root.parent / "po"
    simulate_event(source, seed=1, size=512)
    remote = Path(f"{workspace.root}-remote")
    remote.rename(remote.with_name("unmounted"))
    waits = threading.Event()

    def comes_back(record: logging.LogRecord) -> bool:
        if "Retry 1/3" in record.getMessage():
            remote.with_name("unmounted").rename(remote)
            waits.set()
        return True

    monkeypatch.setattr(track, "retry_delay_seconds", [0.1])
    logger = logging.getLogger("prefect.task_runs")
    logger.addFilter(comes_back)
    try:
        state, flow_run = run(workspace, source, "po")
    finally:
        logger.removeFilter(comes_back)
    assert waits.is_set()
    assert state.name == "Accepted"
    done = steps(client, flow_run)
    assert (done["track"].run_count, done["read and validate po"].run_count) == (2, 1)
    assert "data/events/po.dvc" in git(workspace.root, "ls-files")
    assert any(path.is_file() for path in remote.rglob("*"))


def test_refused_data_are_not_tried_again_and_say_why_at_once(
    workspace: Workspace, client: SyncPrefectClient
) -> None:
    source = workspace.root.parent / "po"
    simulate_event(source, seed=1, size=512)
    with rasterio.open(source / "scene.tif", "r+") as scene:
        scene.write(0 * scene.read() - 12)
    state, flow_run = run(workspace, source, "po")
    assert (state.name, state.type) == ("Refused", StateType.FAILED)
    with pytest.raises(DataRefusedError):
        state.result()
    assert steps(client, flow_run)["read and validate po"].run_count == 1
    said = first_error(client, flow_run)
    assert said.startswith("event po was refused: 100% of the patches are bad")
    assert said.endswith("see data/quarantine/po/index.html")
    tables = client.read_artifacts(
        artifact_filter=ArtifactFilter.model_validate({"key": {"any_": ["validation-po"]}})
    )
    table = json.loads(str(max(tables, key=lambda item: str(item.created)).data))
    assert table[0]["patches that fail"] == 4
    assert not table[0]["passed"], "what failed comes first"
    assert table[0]["such as"]


def test_a_wrong_source_is_named_in_the_first_line_of_the_log(
    workspace: Workspace, client: SyncPrefectClient
) -> None:
    state, flow_run = run(workspace, workspace.root.parent / "nowhere", "po")
    with pytest.raises(InputError):
        state.result()
    assert first_error(client, flow_run).endswith("nowhere: no such file or folder")


def make_run(
    client: SyncPrefectClient,
    flow: str,
    state: State[Any],
    pid: int | None = None,
    host: str | None = None,
) -> FlowRun:
    made = client.create_flow_run(Flow(lambda: None, name=flow), state=state)
    if pid:
        place = f"{host or socket.gethostname()}:{pid}"
        client.update_flow_run(made.id, infrastructure_pid=place)
    return made


def test_a_lost_run_is_found_among_more_than_the_server_gives_at_once(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "AT_ONCE", 2)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    lost = make_run(client, "lost", Running(), gone.pid)
    cancelled = make_run(client, "lost", Cancelling(), gone.pid)
    for _ in range(5):
        make_run(client, "busy", Running())
    works = make_run(client, "lost", Running(), os.getpid())
    mark_lost(client, since=0)
    after = {item.id: item for item in read_runs(client, {}, "lost")}
    assert [after[item.id].state_type for item in (lost, cancelled, works)] == [
        StateType.CRASHED,
        StateType.CANCELLED,
        StateType.RUNNING,
    ]
    assert len(read_runs(client, {}, "busy")) == 5
    assert first_error(client, lost.id) == LOST


def test_a_run_of_the_watcher_that_it_could_not_end_is_marked(client: SyncPrefectClient) -> None:
    before = make_run(client, "before", Running(), os.getpid())
    now = time.time()
    during = make_run(client, "during", Running(), os.getpid())
    mark_lost(client, since=now)
    after = {item.id: item.state_type for item in read_runs(client, {})}
    assert (after[before.id], after[during.id]) == (StateType.CRASHED, StateType.RUNNING)


def test_a_cancelled_run_that_goes_on_is_ended_and_then_marked(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "SETTLED_S", 0.0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        made = make_run(client, "cancelled", Cancelling(), process.pid)
        mark_lost(client, since=0)
        assert process.wait(30) == -signal.SIGKILL
    mark_lost(client, since=0)
    assert read_runs(client, {}, "cancelled")[0].state_type == StateType.CANCELLED
    assert made.id == read_runs(client, {}, "cancelled")[0].id


def test_runs_of_the_machine_that_a_workspace_was_restored_from_are_marked(
    client: SyncPrefectClient,
) -> None:
    states: tuple[State[Any], ...] = (Running(), Cancelling(), Running())
    runs = [make_run(client, "restored", state, os.getpid(), "old-host") for state in states]
    mark = {**os.environ, RUN_MARK: str(runs[2].id)}
    waits = [sys.executable, "-c", "input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, env=mark) as process:
        mark_lost(client, since=0)
        process.communicate(b"\n")
    after = {item.id: item.state_type for item in read_runs(client, {}, "restored")}
    expected = [StateType.CRASHED, StateType.CANCELLED, StateType.RUNNING]
    assert [after[item.id] for item in runs] == expected, "the last one is at work here"
    assert first_error(client, runs[0].id) == LOST


@pytest.mark.parametrize(
    ("within_s", "expected"), [(1000, StateType.RUNNING), (0, StateType.CRASHED)]
)
def test_a_run_that_nobody_has_begun_is_marked_after_a_while(
    client: SyncPrefectClient,
    monkeypatch: pytest.MonkeyPatch,
    within_s: int,
    expected: StateType,
) -> None:
    monkeypatch.setattr(lost, "SETTLED_S", 0.0)
    monkeypatch.setattr(lost, "BEGINS_WITHIN_S", within_s)
    made = make_run(client, "begun", Running())
    mark_lost(client, since=0)
    after = {item.id: item.state_type for item in read_runs(client, {}, "begun")}
    assert after[made.id] == expected


@pytest.fixture
def waiting(tmp_path: Path, client: SyncPrefectClient) -> Workspace:
    """A workspace with an event that no retraining has seen, old enough to be looked at."""
    for old in read_runs(client, {}, "retrain"):
        client.delete_flow_run(old.id)
    place = Workspace(tmp_path)
    place.events.mkdir(parents=True)
    arrive(place, time.time() - watch.SETTLED_S - 60)
    return place


def arrive(workspace: Workspace, moment: float, event: str = "po") -> None:
    file = workspace.events / f"{event}.dvc"
    file.write_text("outs: []\n")
    os.utime(file, (moment, moment))


@pytest.mark.parametrize(
    ("states", "owed"),
    [
        pytest.param((), True, id="none"),
        pytest.param((Running,), False, id="one works"),
        pytest.param((Scheduled,), False, id="one is due"),
        pytest.param((Cancelled,), False, id="a person cancelled it"),
        pytest.param((partial(Cancelled, name=FOLDED),), True, id="folded into another"),
        pytest.param((Failed,), False, id="one has just failed"),
        pytest.param((Completed,), True, id="one ended without the event"),
        pytest.param((Completed, Running), False, id="another one works"),
    ],
)
def test_when_a_retraining_is_owed(
    waiting: Workspace,
    client: SyncPrefectClient,
    states: tuple[Callable[[], State[Any]], ...],
    owed: bool,
) -> None:
    for make in states:
        make_run(client, "retrain", make())
    assert owes_retraining(waiting, client) is owed


def test_what_was_cancelled_before_the_event_came_or_failed_long_ago_does_not_count(
    waiting: Workspace, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SETTLED_S", 0.0)
    make_run(client, "retrain", Cancelled())
    assert not owes_retraining(waiting, client)
    arrive(waiting, time.time())
    assert owes_retraining(waiting, client)
    make_run(client, "retrain", Failed())
    assert not owes_retraining(waiting, client)
    monkeypatch.setattr(watch, "PAUSE_S", 0.0)
    assert owes_retraining(waiting, client)


def test_nothing_is_owed_while_a_drop_is_taken_in_and_shortly_after(
    waiting: Workspace, client: SyncPrefectClient
) -> None:
    now = time.time()
    assert not owes_retraining(waiting, client, busy_until=now)
    assert owes_retraining(waiting, client, busy_until=now - watch.SETTLED_S - 1)


def test_nothing_is_owed_for_events_that_were_seen(
    waiting: Workspace, client: SyncPrefectClient
) -> None:
    note_seen(waiting, tracked_events(waiting))
    assert not owes_retraining(waiting, client)


def test_a_retraining_that_was_missed_is_started_for_the_newest_event_not_seen(
    waiting: Workspace,
) -> None:
    now = time.time()
    arrive(waiting, now - 100, "indus")
    assert newest_unseen(waiting) == "po"
    arrive(waiting, now, "indus")
    assert newest_unseen(waiting) == "indus"
    note_seen(waiting, {"indus": tracked_events(waiting)["indus"]})
    assert newest_unseen(waiting) == "po"
    note_seen(waiting, tracked_events(waiting))
    assert newest_unseen(waiting) is None
