"""Verbs about a candidate: validate, train, evaluate, gate, retrain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sarflood.cli.console import Where, app, err, run_flow, say_retrained
from sarflood.errors import GateRefusedError, InputError
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
def evaluate(
    event: Annotated[
        str | None, typer.Option("--event", help="Score a version on this event alone.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="With --event: which; by default the one in production.")
    ] = None,
    workspace: Where = None,
) -> None:
    """Score the candidate and the baselines on the test patches; leaves metrics/evaluation.json.

    With --event any version is scored on any labelled event, and nothing is written: on its test
    patches where the version was trained on it, else on all that show other ground than training.

    Example: `sarflood evaluate`, or `sarflood evaluate --event ulysses-2020 --version v0.2.0`
    """
    if event is None:
        if version is not None:
            raise InputError("--version: say with --event on which event to score it")
        place = _stage(workspace, "evaluate")
    else:
        typer.echo(json.dumps(_score(find_workspace(workspace), event, version), indent=2))
        return
    typer.echo(json.dumps(_figures(place, "evaluation"), indent=2))


def _score(place: Workspace, event: str, version: str | None) -> dict[str, Any]:
    from rich.progress import Progress

    from sarflood.promotion.registry import find_version
    from sarflood.promotion.score import score

    found = find_version(place, version)
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task(f"scoring {found.version} on {event}", total=None)
        return score(
            place,
            found,
            event,
            lambda done, total: progress.update(task, completed=done, total=total),
        )


@app.command()
def gate(workspace: Where = None) -> None:
    """Judge the candidate against the thresholds and the champion; leaves reports/report.html.

    Judges anew each time, so that a bundle that was slow on a busy machine gets another chance;
    `sarflood retrain` then goes on with the verdict. Exit code 4: the gate refused.

    Example: `sarflood gate`
    """
    from sarflood.promotion.registry import note_champion

    place = _stage(workspace, "evaluate")
    verdict = _figures(_stage(place.root, "gate", first=note_champion, again=True), "gate")
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
    workspace: Path | None,
    name: str,
    first: Callable[[Workspace], object] | None = None,
    *,
    again: bool = False,
) -> Workspace:
    """Reproduce a DVC stage, its lines shown as they come; `first` is done right before it."""
    place = find_workspace(workspace)
    with place.exclusive(err.print):
        if first:
            first(place)
        reproduce(
            place, name, lambda line: err.print(line, markup=False, highlight=False), again=again
        )
    return place


def _figures(place: Workspace, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place.metrics / f"{name}.json").read_text("utf-8"))
    return content
