"""Verbs under `study`: comparisons that a user can repeat on own events."""

from __future__ import annotations

from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sarflood.cli.console import AsJson, Where, app, err, out
from sarflood.errors import InputError
from sarflood.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from sarflood.patches.store import EventPatches

study = typer.Typer(
    help="Compare losses, inputs or skip connections on your events; ask which loss suits them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(study, name="study")

Events = Annotated[
    list[str] | None, typer.Option("--event", help="May be repeated; by default all with labels.")
]
WetShare = Annotated[
    float | None,
    typer.Option(min=0.001, max=0.9, help="Leave patches out until so much is wet."),
]
Seeds = Annotated[int, typer.Option(min=1, max=100, help="Trainings of each kind.")]
Epochs = Annotated[
    int, typer.Option(min=1, max=10_000, help="Passes over the patches of each training, at most.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder for runs, table and picture.")]


_COMPARED = {
    "losses": """Train with each loss, same budget, several seeds; leaves losses.md and losses.svg.

    What was run already is kept in losses.csv, so that a study that was ended goes on.

    Example: `sarflood study losses --event ombria --wet-share 0.08 --out studies`
    """,
    "skips": """Train with and without skip connections; leaves skips.md and skips.svg.

    Example: `sarflood study skips --event alabama-2019 --out studies`
    """,
    "inputs": """Train with each `input.normalisation`; leaves inputs.md and inputs.svg.

    With an event in `split.leave_out` of params.yaml it shows which of them travels: that event is
    for testing, the others for training.

    Example: `sarflood study inputs --event ombria --event france --out studies`
    """,
}


def _compare(
    context: typer.Context,
    folder: Out,
    event: Events = None,
    seeds: Seeds = 3,
    epochs: Epochs = 10,
    wet_share: WetShare = None,
    workspace: Where = None,
) -> None:
    """Run the study that the command is named by."""
    from rich.progress import Progress

    from sarflood.mapping.folder import make_folder
    from sarflood.params import load_params
    from sarflood.sources.event import common_kind
    from sarflood.studies.results import markdown, write_results
    from sarflood.studies.study import (
        Study,
        input_settings,
        loss_settings,
        run_study,
        skip_settings,
    )

    name = str(context.info_name)
    place = find_workspace(workspace)
    params = load_params(place.params)
    events = _labelled(place, event)
    _, units = common_kind(item.event for item in events)
    settings = {
        "losses": loss_settings(params),
        "skips": skip_settings(params),
        "inputs": input_settings(params, units),
    }[name]
    chosen = Study(name, settings, seeds, epochs, wet_share)
    make_folder(folder)
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task(name, total=len(chosen.settings) * seeds)

        def on_run(setting: str, seed: int, done: int, total: int) -> None:
            progress.update(task, completed=done, description=f"{setting}, seed {seed}")
            if not err.is_terminal:
                err.print(f"{done + 1}/{total}: {setting}, seed {seed}", highlight=False)

        runs = run_study(chosen, events, folder / f"{name}.csv", on_run)
    named = ", ".join(item.event.id for item in events)
    paths = write_results(folder, chosen, runs, named)
    typer.echo(markdown(chosen, runs, named))
    err.print("in " + " and ".join(map(str, paths)), highlight=False, soft_wrap=True)


for _name, _help in _COMPARED.items():
    study.command(_name, help=cleandoc(_help))(_compare)


@study.command()
def advice(event: Events = None, workspace: Where = None, as_json: AsJson = False) -> None:
    """Look at the training masks and say which loss suits them, and why; `loss: auto` does that.

    Example: `sarflood study advice`
    """
    import json

    from sarflood.model.advice import advise
    from sarflood.params import load_params
    from sarflood.patches.loader import take
    from sarflood.patches.split import split_events

    place = find_workspace(workspace)
    params = load_params(place.params)
    events = _labelled(place, event)
    patches = take(events, split_events(events, params.split), "train", params.input)
    found = advise(patches.masks)
    loss = params.loss.model_copy(update={"terms": found.terms})
    if as_json:
        told = {"terms": found.terms, "reason": found.reason, "figures": found.figures.model_dump()}
        typer.echo(json.dumps(told, indent=2))
        return
    figures = found.figures
    out.print(
        f"{loss.sentence()}\n{found.reason}\n"
        f"looked at {figures.patches} training patches: {figures.wet_share:.1%} of the pixels wet, "
        f"{figures.dry_patches:.0%} of the patches dry, half of the water in areas of "
        f"{figures.object_pixels} pixels or more, {figures.border_share:.0%} of it border",
        highlight=False,
        soft_wrap=True,
    )


def _labelled(place: Workspace, wanted: list[str] | None) -> list[EventPatches]:
    from sarflood.patches.store import open_events

    events = [item for item in open_events(place.events) if item.masks is not None]
    known = [item.event.id for item in events]
    for name in wanted or []:
        if name not in known:
            raise InputError(f"--event {name}: labelled events are {', '.join(known) or 'none'}")
    chosen = [item for item in events if not wanted or item.event.id in wanted]
    if not chosen:
        raise InputError(f"{place.events}: no labelled event; ingest one first")
    return chosen
