"""What the verbs share: the application, its consoles, tables, running a flow."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sarflood.errors import GateRefusedError
from sarflood.workspace import Workspace

app = typer.Typer(
    help="Retrain, gate and serve Sentinel-1 flood mapping models, event by event.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
out, err = Console(), Console(stderr=True)

Where = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="The workspace; by default the one you stand in."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EventId = Annotated[str, typer.Option("--event", help="Id of the event, such as `ulysses-2020`.")]


def show(rows: list[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print rows as a table or as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        err.print(empty)
        return
    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*("–" if value is None else escape(str(value)) for value in row.values()))
    out.print(table)


def page_address(port: int, token: str, place: object) -> str:
    """Return the address of the service's page, with the token on a terminal alone.

    Args:
        port: Where the service listens on the loopback.
        token: What it asks for; "" for nothing.
        place: Where the token is found, said where the output may go into a log.
    """
    address = f"http://127.0.0.1:{port}/"
    if not token:
        return f"{address} (asks for no token)"
    if sys.stdout.isatty() and sys.stderr.isatty():
        return f"{address}#token={token}"
    return f"{address} (token in {place})"


def moment(seconds: int) -> str:
    """Return a time in seconds since 1970 as `2026-11-25 10:00:00 UTC`."""
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def run_flow(workspace: Workspace, flow_name: str, /, **parameters: Any) -> Any:
    """Run a flow of the workspace by its entry point, as Prefect itself does.

    Where the workspace is up, its Prefect server sees the run.
    """
    from sarflood.operations.parts import Site

    os.environ.update(workspace.environment())
    site = Site(workspace)
    if "PREFECT_API_URL" not in os.environ and site.answers():
        os.environ.update(site.client_environment())
    # Two busy cores may need longer than Prefect's 20 s to start the server inside this process.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    sys.path.insert(0, str(workspace.root))
    from prefect.flows import load_flow_from_entrypoint

    flow: Any = load_flow_from_entrypoint(f"{workspace.root}/flows/{flow_name}.py:{flow_name}")
    return flow(workspace=str(workspace.root), **parameters)


def say_retrained(outcome: dict[str, Any]) -> None:
    """Say what became of a retraining; a refusal is raised."""
    iou = "no IoU" if outcome["iou"] is None else f"IoU {outcome['iou']:.4f}"
    line = f"{outcome['version']} ({iou}): {outcome['state'].lower()}; {outcome['message']}"
    if outcome["state"] == "Refused":
        raise GateRefusedError(f"{line}; the champion stays")
    out.print(line, highlight=False, soft_wrap=True)


def from_here(path: Path) -> str:
    """Return a path as seen from the current folder, if it lies in there."""
    full, here = path.resolve(), Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else full)
