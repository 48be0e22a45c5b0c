"""Verbs about workspaces and events: init, doctor, simulate, ingest, poll, events."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sarflood.cli.console import (
    AsJson,
    EventId,
    Where,
    app,
    err,
    out,
    run_flow,
    say_retrained,
    show,
)
from sarflood.errors import InputError
from sarflood.workspace import find_workspace

if TYPE_CHECKING:
    from sarflood.patches.store import EventPatches

Day = Annotated[dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day of acquisition.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    remote: Annotated[
        str | None, typer.Option(help="DVC remote; by default a folder beside the workspace.")
    ] = None,
) -> None:
    """Make a fresh workspace: a clone with a DVC remote and an identity, no events, no versions.

    Example: `sarflood init ~/floods`
    """
    from sarflood.setup import make_workspace

    workspace = make_workspace(folder, remote)
    out.print(
        f"workspace {workspace.root}\nnext: cd there, then `sarflood ingest SOURCE --event ID`"
    )


@app.command()
def doctor(workspace: Where = None, as_json: AsJson = False) -> None:
    """Say whether this machine and this workspace can do the job, and what to mend.

    Example: `sarflood doctor`
    """
    from sarflood.setup import examine

    findings = examine(workspace)
    rows = [
        {"check": item.check, "ok": "yes" if item.ok else "NO", "found": item.found}
        for item in findings
    ]
    show(rows, as_json=as_json, empty="nothing to check")
    if not all(item.ok for item in findings):
        raise InputError("; ".join(item.remedy for item in findings if not item.ok))


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for the scene.")],
    event: EventId,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another place.")] = 0,
    size: Annotated[int, typer.Option(min=256, help="Edge of the scene in pixels of 10 m.")] = 2048,
) -> None:
    """Simulate a flood event: scenes before and after with truth, as a georeferenced source.

    Example: `sarflood simulate build/typhoon --event typhoon --seed 7 --size 2048`
    """
    from rich.progress import Progress

    from sarflood.sources.event import check_event_id
    from sarflood.sources.simulate import simulate_event

    check_event_id(event)
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task(f"simulating {event}", total=1.0)
        simulate_event(
            folder,
            seed=seed,
            size=size,
            on_progress=lambda done: progress.update(task, completed=done),
        )
    out.print(f"{folder}: {size}×{size} pixels, seed {seed}")


@app.command()
def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, file or archive of a known layout, or a STAC item or catalogue by path "
            "or address."
        ),
    ],
    event: EventId,
    name: Annotated[str | None, typer.Option(help="Readable name of the event.")] = None,
    acquired: Day = None,
    region: Annotated[str | None, typer.Option(help="Where it was.")] = None,
    hold_out: Annotated[bool, typer.Option("--hold-out", help="Score on it, never train.")] = False,
    units: Annotated[
        str | None,
        typer.Option(help="db, linear or uint8: what the values are; refused if they are not."),
    ] = None,
    reproject: Annotated[
        bool, typer.Option("--reproject", help="Warp masks and bands onto their scene's grid.")
    ] = False,
    classes: Annotated[
        str | None,
        typer.Option(help="Names of the codes 0, 1 (water), 2, … of masks of land cover."),
    ] = None,
    retrain_after: Annotated[
        bool, typer.Option("--retrain", help="Start a retraining once the event is accepted.")
    ] = False,
    workspace: Where = None,
) -> None:
    """Read a source, validate it, and keep it as an event; bad patches go to quarantine.

    Exit code 3: the event was refused; data/quarantine/ID/index.html shows what and why.

    Examples:
    `sarflood ingest incoming/ulysses --event ulysses-2020 --acquired 2020-11-12 --retrain`

    `sarflood ingest chips.zip --event elbe-2013 --units db`

    `sarflood ingest https://example.org/stac/item.json --event vamco --reproject`

    `sarflood ingest incoming/po --event po-2023 --classes other,water,forest,crops`
    """
    outcome = run_flow(
        find_workspace(workspace),
        "ingest",
        source=source if "://" in source else str(Path(source).resolve()),
        event=event,
        name=name,
        acquired=acquired.date() if acquired else None,
        region=region,
        hold_out=hold_out,
        units=units,
        reproject=reproject,
        classes=classes,
        retrain_after=retrain_after,
    )
    state = "accepted" if outcome["changed"] else "nothing new"
    out.print(
        f"{event}: {state}; {outcome['accepted']} patches, {outcome['refused']} in quarantine, "
        f"{outcome['empty']} empty"
    )
    for warning in outcome["warnings"]:
        err.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    if outcome["refused"]:
        err.print(f"see data/quarantine/{event}/index.html", highlight=False)
    if retrain_after:
        say_retrained(outcome["retrain"])


@app.command()
def poll(
    retrain_after: Annotated[
        bool, typer.Option("--retrain", help="Start a retraining where an item was taken in.")
    ] = False,
    workspace: Where = None,
) -> None:
    """Ask the STAC APIs under `poll` in params.yaml for new items, and keep each as an event.

    An item that was taken in or refused is known for good. Exit code 1: a server failed; the next
    poll goes on.

    Example: `sarflood poll --retrain`
    """
    outcome = run_flow(find_workspace(workspace), "poll", retrain_after=retrain_after)
    areas = outcome["areas"]
    show(outcome["items"], as_json=False, empty=f"nothing new; areas in params.yaml: {areas}")
    if "retrain" in outcome:
        say_retrained(outcome["retrain"])


@app.command()
def events(workspace: Where = None, as_json: AsJson = False) -> None:
    """List the accepted events.

    Example: `sarflood events --json`
    """
    from sarflood.patches.store import open_events

    rows = [
        {
            "number": item.event.number,
            "event": item.event.id,
            "acquired": str(item.event.acquired) if item.event.acquired else None,
            "patches": len(item.index),
            "bands": ", ".join(item.event.bands),
            "units": item.event.units,
            "label": item.event.label,
            "wet share": round(float(item.index["wet_share"].mean()), 4)
            if item.masks is not None
            else None,
            "use": _use(item),
        }
        for item in sorted(
            open_events(find_workspace(workspace).events), key=lambda item: item.event.number
        )
    ]
    show(rows, as_json=as_json, empty="no event yet; `sarflood ingest SOURCE --event ID`")


def _use(patches: EventPatches) -> str:
    if patches.masks is None:
        return "mapping and drift"
    return "held out" if patches.event.hold_out else "training"
