"""One module a DVC stage: read the settings, call the rooms, write files. Knows no Prefect."""

from __future__ import annotations

import sys
from collections.abc import Callable

from sarflood.errors import SarfloodError
from sarflood.workspace import Workspace, find_workspace


def run_stage(stage: Callable[[Workspace], None]) -> None:
    """Run a stage on the workspace that the process stands in; end with its error's exit code."""
    try:
        stage(find_workspace())
    except SarfloodError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
