"""What the flows share: plain errors, the streamed output of stages, artifacts."""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

# GTO sets logging up as it is imported, and waits for Prefect's log to be sent while it holds the
# lock that the sending needs: within a flow that takes five seconds, and sometimes never ends.
import gto  # noqa: F401
from prefect import get_client, get_run_logger, runtime
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from sarflood.errors import InputError, NetworkError, SarfloodError
from sarflood.operations.parts import REPORTS_URL
from sarflood.params import load_params
from sarflood.stages import reproduce
from sarflood.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner

    from sarflood.ingest.reading import Workers  # imports rasterio and pandas

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _PlainErrors(logging.Filter):
    """Log an error that speaks for itself in its own words, cause and remedy first."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], SarfloodError):
            record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_PlainErrors())


def _may_pass(_task: object, _run: object, state: State[Any]) -> bool:
    """Say whether another try can help; of an error that it cannot, Prefect would log a state."""
    if isinstance(state.data, SarfloodError) and not isinstance(state.data, NetworkError):
        get_run_logger().error("%s", state.data)
    return isinstance(state.data, NetworkError)


# Of tasks that need a server or the DVC remote: tried again after about 10, 20 and 40 s, but not
# where that cannot help.
RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=10),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _may_pass,
}
FOLDED = "Folded"  # the state of a run that another one has done the work of
_EPOCH = re.compile(r"epoch +(\d+)/(\d+) .*")  # as the stage `train` prints it
# A scene's network takes all cores: the second is read, or its maps written, meanwhile.
SCENES_AT_ONCE = 2
CONNECT_WITHIN_S = 10
AT_ONCE = 200  # runs that Prefect's server gives at most


def open_workspace(path: str | None) -> Workspace:
    """Return the workspace at `path`, or the one that the process stands in.

    The run is told which process works on it, so that it can be found when that is gone.
    """
    if runtime.flow_run.id:
        with get_client(sync_client=True) as client:
            pid = f"{socket.gethostname()}:{os.getpid()}"
            client.update_flow_run(UUID(runtime.flow_run.id), infrastructure_pid=pid)
    return find_workspace(Path(path) if path else None)


def run_stages(workspace: Workspace, last: str) -> None:
    """Run the DVC stages up to `last`, their output streamed into the run's log.

    While a model is trained, a progress artifact shows epoch, IoU and what is left.
    """
    logger = get_run_logger()
    bar: UUID | None = None

    def see(line: str) -> None:
        nonlocal bar
        logger.info("%s", line)
        epoch = _EPOCH.match(line)
        if not epoch:
            return
        done = 100 * int(epoch[1]) / int(epoch[2])
        if bar is None:
            bar = cast("UUID", create_progress_artifact(done, key="training", description=line))
        else:
            update_progress_artifact(bar, done, line)

    reproduce(workspace, last, see)


def tell(event: str, resource: str, payload: Mapping[str, Any], **labels: str) -> None:
    """Send an event to Prefect, and see it off before the process can end.

    Args:
        event: Such as `sarflood.model.promoted`.
        resource: What it is about, such as `sarflood.model.v0.2.0`.
        payload: What there is to say.
        labels: Of the resource.
    """
    emit_event(event, {"prefect.resource.id": resource, **labels}, payload=dict(payload))
    EventsWorker.instance().wait_until_empty()


def fold() -> int:
    """Cancel the runs of this deployment that are due: this one does their work; say how many.

    To be called before the data are read: what asked for those runs is there by now.
    """
    if not runtime.deployment.id:
        return 0
    due = {
        "deployment_id": {"any_": [runtime.deployment.id]},
        "state": {"type": {"any_": [StateType.SCHEDULED]}},
    }
    with get_client(sync_client=True) as client:
        waiting = [item for item in read_runs(client, due) if not is_future(item)]
        state: State = Cancelled(
            name=FOLDED, message=f"{runtime.flow_run.name} sees what this one would"
        )
        for item in waiting:
            client.set_flow_run_state(item.id, state)
    return len(waiting)


def read_runs(
    client: SyncPrefectClient, chosen: Mapping[str, Any], flow: str | None = None
) -> list[FlowRun]:
    """Return all runs that a filter chooses, of one flow or of all.

    Args:
        client: Of the server.
        chosen: What `FlowRunFilter` is made of.
        flow: Its name.
    """
    of_flow = FlowFilter.model_validate({"name": {"any_": [flow]}}) if flow else None
    found: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            flow_filter=of_flow,
            flow_run_filter=FlowRunFilter.model_validate(chosen),
            sort=FlowRunSort.ID_DESC,
            limit=AT_ONCE,
            offset=len(found),
        )
        found += page
        if len(page) < AT_ONCE:
            return found


def is_future(flow_run: FlowRun) -> bool:
    """Say whether a run is one that a schedule has planned for later."""
    due = flow_run.expected_start_time
    return bool(flow_run.auto_scheduled and due and due.timestamp() > time.time())


def show_link(key: str, page: str, text: str, description: str) -> None:
    """Leave a link to a page that the part `pages` serves, where that is up."""
    served = os.environ.get(REPORTS_URL)
    if served:
        create_link_artifact(
            link=f"{served}/{page}", link_text=text, key=_key(key), description=description
        )


def task_runner(workspace: Workspace) -> ThreadPoolTaskRunner[Any] | DaskTaskRunner:
    """Return what runs tasks that fan out, by the one setting `run.dask`.

    Raises:
        InputError: Dask is set, and no Prefect server that its workers could report to.
    """
    address = load_params(workspace.params).run.dask
    if address is None:
        return ThreadPoolTaskRunner(max_workers=SCENES_AT_ONCE)
    from prefect.settings import PREFECT_API_URL
    from prefect_dask.task_runners import DaskTaskRunner

    if not PREFECT_API_URL.value():
        raise InputError(
            f"{workspace.params}: run.dask is {address}, and its workers report to a Prefect "
            "server: start `prefect server start --host ADDRESS`, and set "
            "PREFECT_API_URL=http://ADDRESS:4200/api here"
        )
    return DaskTaskRunner(address=address, client_kwargs={"timeout": CONNECT_WITHIN_S})


@contextmanager
def fan_out(workspace: Workspace) -> Iterator[ThreadPoolTaskRunner[Any] | DaskTaskRunner]:
    """Start what runs tasks that fan out; end it after the block.

    Raises:
        InputError: Dask's scheduler does not answer; or as `task_runner`.
    """
    with task_runner(workspace) as runner:
        if not isinstance(runner, ThreadPoolTaskRunner):
            try:
                client: Any = runner.client
            except OSError as error:
                raise InputError(
                    f"{workspace.params}: run.dask is {runner.address}, where no scheduler answers "
                    f"within {CONNECT_WITHIN_S} s; start `dask scheduler` there, or set it to null"
                ) from error
            if not client.nthreads():
                get_run_logger().warning("%s has no worker yet; waiting", runner.address)
        yield runner


def tasks_at_once(runner: ThreadPoolTaskRunner[Any] | DaskTaskRunner) -> int:
    """Return how many tasks a runner works on at a time, at the moment: workers come and go."""
    if isinstance(runner, ThreadPoolTaskRunner):
        return SCENES_AT_ONCE
    client: Any = runner.client
    threads: dict[str, int] = client.nthreads()
    return max(SCENES_AT_ONCE, sum(threads.values()))


def submitted_ahead(
    items: Sequence[_Item],
    submit: Callable[[_Item], PrefectFuture[_Result]],
    most: Callable[[], int],
) -> Iterator[tuple[_Item, PrefectFuture[_Result]]]:
    """Submit a task for each item, and give both in order; no more than `most` says are ahead."""
    waiting, ahead = iter(items), deque[PrefectFuture[_Result]]()
    for item in items:
        ahead.extend(map(submit, itertools.islice(waiting, max(0, most() - len(ahead)))))
        yield item, ahead.popleft()


def end_of_maps(
    maps: dict[str, dict[str, Any]], failed: dict[str, str], version: str, folder: Path
) -> State[dict[str, Any]]:
    """Show what became of each scene, and return the state that the flow ends in."""
    rows = [{"scene": name, "flooded km²": row["flooded_km2"]} for name, row in maps.items()]
    rows += [{"scene": name, "failed": reason} for name, reason in failed.items()]
    show_table("maps", rows, f"Maps by {version} in {folder}")
    if failed:
        message = "\n".join(
            [
                f"{len(failed)} of {len(rows)} scenes failed, {len(maps)} are in {folder}:",
                *(f"  {name}: {reason}" for name, reason in failed.items()),
            ]
        )
        state = "Partly" if maps else "Failed"
        return Failed(name=state, message=message, data=SarfloodError(message))
    new = sum(row["new"] for row in maps.values())
    message = f"{new} mapped by {version}, {len(maps) - new} known"
    return Completed(name="Mapped" if new else "Nothing new", message=message, data=maps)


@contextmanager
def dask_workers(workspace: Workspace) -> Iterator[Workers | None]:
    """Give the workers of `run.dask`; None where it is not set.

    Raises:
        SarfloodError: Workers died again and again with one piece, or the scheduler is gone.
        InputError: As `fan_out`.
    """
    with fan_out(workspace) as runner:
        if isinstance(runner, ThreadPoolTaskRunner):
            yield None
            return
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        from sarflood.ingest.reading import Workers

        client: Any = runner.client
        waiting = 2 * sum(client.nthreads().values()) + 2
        try:
            yield Workers(client.get_executor(pure=False), waiting)
        except KilledWorker as error:
            raise SarfloodError(f"{error}; has each worker enough memory?") from error
        except CancelledError as error:
            raise SarfloodError(f"{runner.address}: this Dask scheduler is gone") from error


def show_table(key: str, rows: Iterable[Mapping[str, Any]], description: str) -> None:
    """Leave a table artifact; `key` is turned into what Prefect takes for one."""
    table = [
        {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows
    ]
    create_table_artifact(key=_key(key), table=table, description=description)


def show_text(key: str, markdown: str, description: str) -> None:
    """Leave a Markdown artifact."""
    create_markdown_artifact(key=_key(key), markdown=markdown, description=description)


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
