"""What the flows share: plain errors, the streamed output of stages, artifacts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# GTO sets logging up as it is imported, and waits for Prefect's log to be sent while it holds the
# lock that the sending needs: within a flow that takes five seconds, and sometimes never ends.
import gto  # noqa: F401
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from sarflood.errors import InputError, SarfloodError
from sarflood.ingest.reading import Workers
from sarflood.params import load_params
from sarflood.stages import reproduce
from sarflood.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner


class _PlainErrors(logging.Filter):
    """Log an error that speaks for itself without its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], SarfloodError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_PlainErrors())


# A scene's network takes all cores: the second is read, or its maps written, meanwhile.
SCENES_AT_ONCE = 2
CONNECT_WITHIN_S = 10


def open_workspace(path: str | None) -> Workspace:
    """Return the workspace at `path`, or the one that the process stands in."""
    return find_workspace(Path(path) if path else None)


def run_stages(workspace: Workspace, last: str) -> None:
    """Run the DVC stages up to `last`, their output streamed into the run's log."""
    reproduce(workspace, last, get_run_logger().info)


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
