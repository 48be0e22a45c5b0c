"""What the flows share: plain errors, the streamed output of stages, artifacts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from sarflood.errors import SarfloodError
from sarflood.stages import reproduce
from sarflood.workspace import Workspace, find_workspace


class _PlainErrors(logging.Filter):
    """Log an error that speaks for itself without its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], SarfloodError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_PlainErrors())


def open_workspace(path: str | None) -> Workspace:
    """Return the workspace at `path`, or the one that the process stands in."""
    return find_workspace(Path(path) if path else None)


def run_stages(workspace: Workspace, last: str) -> None:
    """Run the DVC stages up to `last`, their output streamed into the run's log."""
    reproduce(workspace, last, get_run_logger().info)


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
