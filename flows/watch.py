"""The watcher: takes in what is dropped into the inbox, and looks after runs that nobody ends.

The files are the truth. Events of Prefect start a retraining at once; what they miss, because a
part was down, is found here: drops that lie in the inbox, events that no retraining has seen, runs
whose process is gone.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import watchfiles
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Crashed

from flows.ingest import ingest
from flows.register import register
from flows.support import FOLDED, is_future, tell
from sarflood.errors import DataRefusedError, InputError, SarfloodError
from sarflood.ingest.track import seen_events, tracked_events
from sarflood.operations.inbox import Inbox, check_drop, event_id
from sarflood.operations.parts import POOL, RUN_MARK, Site, registered_mark
from sarflood.params import load_params
from sarflood.workspace import Workspace, find_workspace

LOG = logging.getLogger("sarflood.watch")
LOOK_EVERY_MS = 1000
SWEEP_EVERY_S = 10.0
SETTLED_S = 30.0  # an event this old has been noticed by Prefect, if it ever will be
# What passes, or is mended elsewhere. Prefect raises RuntimeError where no server answers.
FAILURES = (SarfloodError, PrefectException, httpx.HTTPError, OSError, RuntimeError)
WAIT_S = (10.0, 600.0)  # before a drop is tried again that could not be taken in, first and at most


def main() -> None:
    """Register the workspace, then watch it until the process is ended."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    workspace = find_workspace()
    site = Site(workspace)
    registered_mark(site).unlink(missing_ok=True)
    register(workspace)
    registered_mark(site).touch()
    inbox = Inbox(workspace.inbox, workspace.cache / "inbox")
    inbox.make()
    watcher = Watcher(workspace, inbox)
    for _ in _ticks(inbox):
        watcher.look()


def _ticks(inbox: Inbox) -> Iterator[None]:
    """Give a turn at each change in the inbox, and each second."""
    yield
    for _ in watchfiles.watch(
        inbox.folder, rust_timeout=LOOK_EVERY_MS, yield_on_timeout=True, step=200, debounce=500
    ):
        yield


class Watcher:
    """Looks at inbox and runs, a turn at a time."""

    def __init__(self, workspace: Workspace, inbox: Inbox) -> None:
        self._workspace, self._inbox = workspace, inbox
        self._later: dict[str, tuple[float, float]] = {}  # drop: not before, and the wait after
        self._sweep = threading.Thread(target=self._sweeps, daemon=True)
        self._sweep.start()

    def look(self) -> None:
        """Take in the drops that are ready."""
        quiet_s = load_params(self._workspace.params).operations.inbox_quiet_s
        for drop in self._inbox.ready(quiet_s):
            not_before, wait = self._later.get(drop.name, (0.0, WAIT_S[0]))
            if time.monotonic() < not_before:
                continue
            try:
                self._take_in(drop)
            except FAILURES as error:  # a full disk, a remote or a server that is gone
                LOG.warning("%s: tried again in %.0f s: %s", drop.name, wait, error)
                self._later[drop.name] = time.monotonic() + wait, min(2 * wait, WAIT_S[1])
            else:
                self._later.pop(drop.name, None)

    def _take_in(self, drop: Any) -> None:
        """Ingest a drop, and move it to `done` or `refused`."""
        try:
            check_drop(drop)
            event = event_id(drop.name)
            self._inbox.attempt(drop)
            LOG.info("%s is taken in as event %s", drop.name, event)
            try:
                ingest(source=str(drop), event=event, workspace=str(self._workspace.root))
            finally:
                self._inbox.forgive(drop)
        except (InputError, DataRefusedError) as error:
            where = self._inbox.finish(drop, str(error))
            if isinstance(error, InputError):  # of refused data the flow has told
                tell("sarflood.event.refused", "sarflood.inbox", {"why": str(error)})
            LOG.warning("%s is refused: %s", where, error)
        else:
            LOG.info("%s: done", self._inbox.finish(drop))

    def _sweeps(self) -> None:
        """Look after runs and missed events, now and then, while the process lives."""
        while True:
            try:
                with get_client(sync_client=True) as client:
                    mark_lost(client)
                    if owes_retraining(self._workspace, client):
                        run_deployment("retrain/retrain", timeout=0, as_subflow=False)
            except FAILURES as error:
                LOG.warning("runs could not be looked at: %s", error)
            time.sleep(SWEEP_EVERY_S)


def owes_retraining(workspace: Workspace, client: SyncPrefectClient) -> bool:
    """Say whether an event waits for a retraining, and none is on its way."""
    events = tracked_events(workspace)
    if not events or seen_events(workspace) == events:
        return False
    newest = max((workspace.events / f"{name}.dvc").stat().st_mtime for name in events)
    if time.time() - newest < SETTLED_S:
        return False
    flow = client.read_flow_by_name("retrain")
    runs = [item for item in _runs(client, list(StateType)) if item.flow_id == flow.id]
    return not any(_works(item) or _was_cancelled(item, newest) for item in runs)


def mark_lost(client: SyncPrefectClient) -> None:
    """Mark the runs of this machine whose process is gone, so that their slots are free."""
    kinds = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    for flow_run in _runs(client, kinds):
        if not _is_lost(flow_run):
            continue
        message = "its process is gone: killed, or the machine went down; it is run again"
        cancelling = flow_run.state_type == StateType.CANCELLING
        state: State = Cancelled(message=message) if cancelling else Crashed(message=message)
        client.set_flow_run_state(flow_run.id, state)
        LOG.warning("run %s: %s", flow_run.name, message)


def _is_lost(flow_run: FlowRun) -> bool:
    host, _, pid = (flow_run.infrastructure_pid or "").rpartition(":")
    if not host and flow_run.work_pool_name == POOL:
        return _never_began(flow_run)
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        process = psutil.Process(int(pid))
        if flow_run.start_time and process.create_time() > flow_run.start_time.timestamp() + 1:
            return True  # another process has its number now
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _never_began(flow_run: FlowRun) -> bool:
    """Say whether the worker of this machine was killed while it started a run."""
    state = flow_run.state
    if state is None or time.time() - state.timestamp.timestamp() < SETTLED_S:
        return False
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(RUN_MARK) == str(flow_run.id):
                return False
    return True


def _works(flow_run: FlowRun) -> bool:
    """Say whether a run works, or is due."""
    kind = flow_run.state_type
    if kind == StateType.SCHEDULED:
        return not is_future(flow_run)
    return kind in (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


def _was_cancelled(flow_run: FlowRun, since: float) -> bool:
    """Say whether a person has cancelled a run since a moment; then another one is not started."""
    ended = flow_run.end_time
    by_person = flow_run.state_type == StateType.CANCELLED and flow_run.state_name != FOLDED
    return bool(by_person and ended and ended.timestamp() > since)


def _runs(client: SyncPrefectClient, kinds: list[StateType]) -> list[FlowRun]:
    chosen = FlowRunFilter.model_validate({"state": {"type": {"any_": kinds}}})
    latest = FlowRunSort.START_TIME_DESC
    return client.read_flow_runs(flow_run_filter=chosen, sort=latest, limit=200)


if __name__ == "__main__":
    main()
