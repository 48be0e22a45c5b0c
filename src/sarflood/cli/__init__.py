"""`sarflood …`: one verb a user intention, each importing the heavy libraries that it uses."""

from __future__ import annotations

import os
import signal
import sys

from rich.markup import escape

# Importing a module of verbs registers them, in the order in which `--help` shows them.
from sarflood.cli import (  # noqa: F401
    events,
    maps,
    operations,
    serving,
    studies,
    training,
    versions,
)
from sarflood.cli.console import app, err
from sarflood.errors import SarfloodError
from sarflood.process import NO_TELEMETRY


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; errors that a user can mend are one message and an exit code."""
    os.environ.update(NO_TELEMETRY)
    # A closed terminal and a polite kill end what was started, as Ctrl-C does; nohup still holds.
    for sign in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sign) is not signal.SIG_IGN:
            signal.signal(sign, _interrupt)
    try:
        app(prog_name="sarflood")
    except SarfloodError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
