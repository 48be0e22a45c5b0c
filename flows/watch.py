"""The watcher: takes in what is dropped into the inbox, and looks after runs that nobody ends.

The files are the truth. Events of Prefect start a retraining at once; what they miss, because a
part was down, is found here: drops that lie in the inbox, events that no retraining has seen, runs
whose process is gone.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import watchfiles
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException

from flows.ingest import ingest
from flows.lost import AT_WORK, in_state, mark_lost
from flows.register import register
from flows.support import FOLDED, is_future, read_runs, tell
from sarflood.errors import DataRefusedError, InputError, SarfloodError
from sarflood.ingest.track import seen_events, tracked_events
from sarflood.operations.inbox import Inbox, check_drop, event_id
from sarflood.operations.parts import Site, registered_mark
from sarflood.params import load_params
from sarflood.workspace import Workspace, find_workspace

LOG = logging.getLogger("sarflood.watch")
LOOK_EVERY_MS = 1000
SWEEP_EVERY_S = 2.0  # a cancelled run's slot is free a little later than this
SETTLED_S = 30.0  # an event known this long has been noticed by Prefect, if it ever will be
PAUSE_S = 900.0  # after a retraining that failed, such as for want of the remote
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
    import great_expectations  # noqa: F401  # takes seconds, which the first drop need not wait for

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
        self._began: float | None = None  # when the drop at work was begun with
        self._ended = 0.0  # when the last one was done with
        self._sweep = threading.Thread(target=self._sweeps, daemon=True)
        self._sweep.start()

    def look(self) -> None:
        """Take in the drops that are ready; a retraining waits until there are none."""
        drops = self._due()
        if not drops:
            return
        with self._inbox.taking_in():
            while drops:
                for drop in drops:
                    self._try(drop)
                drops = self._due()

    def _due(self) -> list[Path]:
        quiet_s = load_params(self._workspace.params).operations.inbox_quiet_s
        now = time.monotonic()
        ready = self._inbox.ready(quiet_s)
        return [drop for drop in ready if self._later.get(drop.name, (0.0,))[0] <= now]

    def _try(self, drop: Path) -> None:
        """Take a drop in; where that fails for what passes, leave it for later."""
        _, wait = self._later.get(drop.name, (0.0, WAIT_S[0]))
        try:
            self._take_in(drop)
        except FAILURES as error:  # a full disk, a remote or a server that is gone
            LOG.warning("%s: tried again in %.0f s: %s", drop.name, wait, error)
            self._later[drop.name] = time.monotonic() + wait, min(2 * wait, WAIT_S[1])
        else:
            self._later.pop(drop.name, None)

    def _take_in(self, drop: Path) -> None:
        """Ingest a drop, and move it to `done` or `refused`."""
        try:
            check_drop(drop)
            event = event_id(drop.name)
            self._inbox.attempt(drop)
            LOG.info("%s is taken in as event %s", drop.name, event)
            self._began = time.time()
            try:
                ingest(source=str(drop), event=event, workspace=str(self._workspace.root))
            finally:
                self._ended = time.time()
                self._began = None
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
                self._workspace.clear(LOG.warning)
                with get_client(sync_client=True) as client:
                    mark_lost(client, self._began or time.time())
                    busy_until = time.time() if self._began else self._ended
                    if owes_retraining(self._workspace, client, busy_until):
                        run_deployment(
                            "retrain/retrain",
                            parameters={"event": newest_unseen(self._workspace)},
                            timeout=0,
                            as_subflow=False,
                        )
            except FAILURES as error:
                LOG.warning("runs could not be looked at: %s", error)
            time.sleep(SWEEP_EVERY_S)


def owes_retraining(
    workspace: Workspace, client: SyncPrefectClient, busy_until: float = 0.0
) -> bool:
    """Say whether an event waits for a retraining, and none is on its way, was cancelled or failed.

    One that a person has cancelled is not started again for the same events; one that failed is,
    after a while.

    Args:
        workspace: Whose events.
        client: Of the server that knows the runs.
        busy_until: When the watcher was last taking a drop in, in seconds since 1970; the drop's
            own retraining may only just be due.
    """
    events = tracked_events(workspace)
    if not events or seen_events(workspace) == events:
        return False
    newest = max(_moment(workspace, name) for name in events)
    now = time.time()
    if now - max(newest, busy_until) < SETTLED_S:
        return False
    on_its_way = in_state(*AT_WORK, StateType.SCHEDULED)
    cancelled = in_state(StateType.CANCELLED, but=FOLDED) | _ended_after(newest)
    failed = in_state(StateType.FAILED) | _ended_after(now - PAUSE_S)
    return not (
        any(not is_future(run) for run in read_runs(client, on_its_way, "retrain"))
        or read_runs(client, cancelled, "retrain")
        or read_runs(client, failed, "retrain")
    )


def newest_unseen(workspace: Workspace) -> str | None:
    """Return the newest event that no retraining has seen, for which one is started."""
    seen = (seen_events(workspace) or {}).items()
    unseen = [name for name, now in tracked_events(workspace).items() if (name, now) not in seen]
    return max(unseen, key=lambda name: _moment(workspace, name), default=None)


def _moment(workspace: Workspace, event: str) -> float:
    return (workspace.events / f"{event}.dvc").stat().st_mtime


def _ended_after(moment: float) -> dict[str, Any]:
    return {"end_time": {"after_": dt.datetime.fromtimestamp(moment, dt.UTC)}}


if __name__ == "__main__":
    main()
