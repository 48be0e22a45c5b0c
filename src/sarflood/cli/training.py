"""Verbs about a candidate: validate, train, evaluate, gate, retrain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sarflood.cli.console import Where, app, err, run_flow, say_retrained
from sarflood.errors import GateRefusedError
from sarflood.stages import reproduce
from sarflood.workspace import Workspace, find_workspace


@app.command()
def validate(workspace: Where = None) -> None:
    """Validate all accepted events together; leaves Data Docs in reports/validation.

    Example: `sarflood validate`
    """
    place = _stage(workspace, "validate")
    typer.echo(json.dumps(_figures(place, "validation"), indent=2))


@app.command()
def train(workspace: Where = None) -> None:
    """Train a candidate on all events, as params.yaml says.

    Example: `sarflood train`
    """
    place = _stage(workspace, "train")
    typer.echo(json.dumps(_figures(place, "training"), indent=2))


@app.command()
def evaluate(workspace: Where = None) -> None:
    """Score the candidate and the baselines on the test patches; leaves metrics/evaluation.json.

    Example: `sarflood evaluate`
    """
    place = _stage(workspace, "evaluate")
    typer.echo(json.dumps(_figures(place, "evaluation"), indent=2))


@app.command()
def gate(workspace: Where = None) -> None:
    """Judge the candidate against the thresholds and the champion; leaves reports/report.html.

    Exit code 4: the gate refused.

    Example: `sarflood gate`
    """
    from sarflood.promotion.registry import note_champion

    verdict = _figures(_stage(workspace, "gate", first=note_champion), "gate")
    typer.echo(json.dumps(verdict, indent=2))
    if not verdict["passed"]:
        raise GateRefusedError("the gate refused the candidate; the champion stays")


@app.command()
def retrain(
    event: Annotated[
        str | None, typer.Option("--event", help="The event that asks for it.")
    ] = None,
    workspace: Where = None,
) -> None:
    """Train on all events, judge, register, and promote if it is proven better.

    With nothing new it ends at once. Exit code 4: the gate refused, the champion stays.

    Example: `sarflood retrain --event ulysses-2020`
    """
    say_retrained(run_flow(find_workspace(workspace), "retrain", event=event))


def _stage(
    workspace: Path | None, name: str, first: Callable[[Workspace], object] | None = None
) -> Workspace:
    """Reproduce a DVC stage, its lines shown as they come; `first` is done right before it."""
    place = find_workspace(workspace)
    with place.exclusive(err.print):
        if first:
            first(place)
        reproduce(place, name, lambda line: err.print(line, markup=False, highlight=False))
    return place


def _figures(place: Workspace, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place.metrics / f"{name}.json").read_text("utf-8"))
    return content
