"""Runs that nobody ends: their process, or what should have started or ended it, was killed."""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import time
from contextlib import suppress
from typing import Any

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Crashed

from flows.support import read_runs
from sarflood.operations.parts import PART_MARK, POOL, RUN_MARK, WORKER, WORKSPACE_MARK
from sarflood.process import is_alive

LOG = logging.getLogger("sarflood.watch")
SETTLED_S = 30.0  # what the worker does about a run at once, it has done by then
BEGINS_WITHIN_S = 300.0  # a run has told the server of its process, also on a busy machine
AT_WORK = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
LOST = (
    "its process is gone: killed, perhaps for want of memory, or the machine went down; nothing is "
    "half done, so start it again; a drop or a retraining that is owed starts again by itself"
)


def in_state(*kinds: StateType, but: str | None = None) -> dict[str, Any]:
    """Return what chooses the runs in some states, but not in one of that name."""
    name = {"name": {"not_any_": [but]}} if but else {}
    return {"state": {"type": {"any_": kinds}, **name}}


def mark_lost(client: SyncPrefectClient, since: float) -> None:
    """Mark the runs that no process of this machine works on, so that their slots are free.

    One that was cancelled and goes on is ended, and marked the next time: its worker was killed, or
    has missed the word while the server was gone.

    Args:
        client: Of the server.
        since: Runs of this process that began before have ended, though the server, which was gone
            then, has not heard of it.
    """
    for flow_run in read_runs(client, in_state(*AT_WORK)):
        cancelling = flow_run.state_type == StateType.CANCELLING
        if not _is_lost(flow_run, since):
            if cancelling and _age_s(flow_run) > SETTLED_S:
                _kill(flow_run)
            continue
        state: State = Crashed(message=LOST)
        if cancelling:
            state = Cancelled(message="cancelled; its process has ended")
        else:
            _log(client, flow_run, LOST)
        client.set_flow_run_state(flow_run.id, state)
        LOG.warning("run %s: %s", flow_run.name, state.message)


def _log(client: SyncPrefectClient, flow_run: FlowRun, message: str) -> None:
    """Say something in the log of a run that cannot speak any more."""
    line = {
        "name": LOG.name,
        "level": logging.ERROR,
        "message": message,
        "timestamp": dt.datetime.now(dt.UTC).isoformat(),
        "flow_run_id": str(flow_run.id),
    }
    client.create_logs([line])


def _is_lost(flow_run: FlowRun, since: float) -> bool:
    if not flow_run.infrastructure_pid:
        return _never_began(flow_run)
    host, pid = _place(flow_run)
    if pid is None:
        return False
    if host != socket.gethostname():
        # The server listens on the loopback alone: the workspace comes from another machine, or
        # this one was given another name.
        return not _is_at_work(flow_run)
    started = flow_run.start_time.timestamp() if flow_run.start_time else time.time()
    if pid == os.getpid():
        return started < since
    return not is_alive(pid, started)


def _is_at_work(flow_run: FlowRun) -> bool:
    """Say whether a process of this machine was started for a run."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(RUN_MARK) == str(flow_run.id):
                return True
    return False


def _never_began(flow_run: FlowRun) -> bool:
    """Say whether the worker was killed while it started a run.

    Or nobody starts it: a server that was killed has made it, and its answer was not heard.
    """
    age = _age_s(flow_run)
    if age < SETTLED_S or _is_at_work(flow_run):
        return False
    somebody_starts_it = flow_run.work_pool_name != POOL
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            environment = process.environ()
            ours = environment.get(WORKSPACE_MARK) == os.environ.get(WORKSPACE_MARK)
            if ours and environment.get(PART_MARK) == WORKER and RUN_MARK not in environment:
                somebody_starts_it |= process.create_time() < time.time() - age
    return not somebody_starts_it or age > BEGINS_WITHIN_S


def _kill(flow_run: FlowRun) -> None:
    """End the process of a run; what it leaves at work is cleared away as after any kill.

    It is not asked to end: it would say that it crashed, and not that it was cancelled.
    """
    host, pid = _place(flow_run)
    if host != socket.gethostname() or pid is None or pid == os.getpid():
        return
    LOG.warning("run %s was cancelled and goes on: it is ended", flow_run.name)
    with suppress(psutil.Error):  # it has ended by itself
        psutil.Process(pid).kill()


def _place(flow_run: FlowRun) -> tuple[str, int | None]:
    """Return the machine and the process of a run; None where a container is named."""
    host, _, pid = (flow_run.infrastructure_pid or "").rpartition(":")
    return host, int(pid) if host and pid.isdigit() else None


def _age_s(flow_run: FlowRun) -> float:
    """Return for how long a run has been in its state."""
    return time.time() - flow_run.state.timestamp.timestamp() if flow_run.state else 0.0
