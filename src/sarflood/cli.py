"""`sarflood …`: one verb a user intention, each importing the heavy libraries that it uses."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sarflood.errors import GateRefusedError, InputError, SarfloodError
from sarflood.process import NO_TELEMETRY, dvc
from sarflood.workspace import Workspace, find_workspace

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
Day = Annotated[dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day of acquisition.")]


def main() -> None:
    """Run the command line; errors that a user can mend are one message and an exit code."""
    os.environ.update(NO_TELEMETRY)
    try:
        app(prog_name="sarflood")
    except SarfloodError as error:
        err.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _show(rows: list[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print rows as a table or as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        err.print(empty)
        return
    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*("–" if value is None else str(value) for value in row.values()))
    out.print(table)


def _flow(workspace: Workspace, flow_name: str, /, **parameters: Any) -> Any:
    """Run a flow of the workspace by its entry point, as Prefect itself does."""
    os.environ.update(workspace.environment())
    # Two busy cores may need longer than Prefect's 20 s to start the server inside this process.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    sys.path.insert(0, str(workspace.root))
    from prefect.flows import load_flow_from_entrypoint

    flow: Any = load_flow_from_entrypoint(f"{workspace.root}/flows/{flow_name}.py:{flow_name}")
    return flow(workspace=str(workspace.root), **parameters)


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
    _show(rows, as_json=as_json, empty="nothing to check")
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
    source: Annotated[Path, typer.Argument(help="A folder or file of a known layout.")],
    event: EventId,
    name: Annotated[str | None, typer.Option(help="Readable name of the event.")] = None,
    acquired: Day = None,
    region: Annotated[str | None, typer.Option(help="Where it was.")] = None,
    hold_out: Annotated[bool, typer.Option("--hold-out", help="Score on it, never train.")] = False,
    retrain_after: Annotated[
        bool, typer.Option("--retrain", help="Start a retraining once the event is accepted.")
    ] = False,
    workspace: Where = None,
) -> None:
    """Read a source, validate it, and keep it as an event; bad patches go to quarantine.

    Exit code 3: the event was refused, the reasons are in data/quarantine/ID/reasons.jsonl.

    Example: `sarflood ingest incoming/ulysses --event ulysses-2020 --acquired 2020-11-12 --retrain`
    """
    outcome = _flow(
        find_workspace(workspace),
        "ingest",
        source=str(source.resolve()),
        event=event,
        name=name,
        acquired=acquired.date() if acquired else None,
        region=region,
        hold_out=hold_out,
        retrain_after=retrain_after,
    )
    state = "accepted" if outcome["changed"] else "nothing new"
    out.print(
        f"{event}: {state}; {outcome['accepted']} patches, {outcome['refused']} in quarantine, "
        f"{outcome['empty']} empty"
    )
    if retrain_after:
        _say_retrained(outcome["retrain"])


@app.command()
def events(workspace: Where = None, as_json: AsJson = False) -> None:
    """List the accepted events.

    Example: `sarflood events --json`
    """
    from sarflood.patches.store import open_events

    rows = [
        {
            "event": item.event.id,
            "acquired": str(item.event.acquired) if item.event.acquired else None,
            "patches": len(item.index),
            "bands": ", ".join(item.event.bands),
            "units": item.event.units,
            "label": item.event.label,
            "wet share": round(float(item.index["wet_share"].mean()), 4)
            if item.masks is not None
            else None,
            "use": "held out" if item.event.hold_out else "training",
        }
        for item in open_events(find_workspace(workspace).events)
    ]
    _show(rows, as_json=as_json, empty="no event yet; `sarflood ingest SOURCE --event ID`")


def _stage(workspace: Path | None, name: str) -> Workspace:
    """Reproduce a DVC stage, its lines shown as they come."""
    place = find_workspace(workspace)
    dvc(place.root, "repro", name, on_line=lambda line: err.print(line, markup=False))
    return place


def _figures(place: Workspace, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place.metrics / f"{name}.json").read_text("utf-8"))
    return content


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
    """Score the candidate and the baselines on the test patches; leaves reports/report.html.

    Example: `sarflood evaluate`
    """
    place = _stage(workspace, "evaluate")
    typer.echo(json.dumps(_figures(place, "evaluation"), indent=2))


@app.command()
def gate(workspace: Where = None) -> None:
    """Judge the candidate against the thresholds and the champion. Exit code 4: refused.

    Example: `sarflood gate`
    """
    from sarflood.promotion.registry import note_champion

    note_champion(find_workspace(workspace))
    verdict = _figures(_stage(workspace, "gate"), "gate")
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
    _say_retrained(_flow(find_workspace(workspace), "retrain", event=event))


def _say_retrained(outcome: dict[str, Any]) -> None:
    new = "" if outcome["new"] else ", nothing new"
    iou = outcome["iou"]
    line = f"{outcome['version']}{new}: IoU {iou:.4f}, gate {outcome['verdict']}"
    if outcome["verdict"] == "refused":
        raise GateRefusedError(f"{line}: {'; '.join(outcome['refusals'])}; the champion stays")
    out.print(line)


@app.command()
def models(
    version: Annotated[str | None, typer.Argument(help="Show this version's card.")] = None,
    workspace: Where = None,
    as_json: AsJson = False,
) -> None:
    """List the registered versions, or show the card of one.

    Example: `sarflood models v0.2.0`
    """
    from sarflood.promotion.registry import fetch_version, find_version, versions

    place = find_workspace(workspace)
    if version:
        found = find_version(place, version)
        out.print((fetch_version(place, found) / "card.md").read_text("utf-8"), markup=False)
        return
    rows = [
        {
            "version": item.version,
            "stage": "production" if item.production else None,
            "iou": None if item.iou is None else round(item.iou, 4),
            "gate": "passed" if item.gate_passed else "refused",
            "events": ", ".join(item.events),
            "commit": item.commit[:12],
        }
        for item in versions(place)
    ]
    _show(rows, as_json=as_json, empty="no version yet; `sarflood retrain` makes one")


@app.command()
def promote(version: str, workspace: Where = None) -> None:
    """Put a version that passed the gate into production.

    Example: `sarflood promote v0.2.0`
    """
    from sarflood.promotion.promote import promote as put_in_production
    from sarflood.promotion.registry import find_version

    place = find_workspace(workspace)
    found = find_version(place, version)
    if not found.production:
        if not found.gate_passed:
            raise GateRefusedError(f"{version}: refused by the gate; the champion stays")
        _flow(place, "deploy", version=version)
        put_in_production(place, found, "Promoted by hand")
    out.print(f"{version} is in production")


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option("--to", help="Version to go back to.")] = None,
    workspace: Where = None,
) -> None:
    """Put the previous champion back into production.

    Example: `sarflood rollback --to v0.1.0`
    """
    from sarflood.promotion.promote import previous_champion
    from sarflood.promotion.promote import promote as put_in_production
    from sarflood.promotion.registry import find_version

    place = find_workspace(workspace)
    found = find_version(place, to) if to else previous_champion(place)
    if found is None:
        raise InputError(f"{place.root}: no earlier champion to go back to (see `sarflood models`)")
    _flow(place, "deploy", version=found.version)
    put_in_production(place, found, "Rollback")
    out.print(f"{found.version} is in production")


@app.command()
def deploy(
    version: Annotated[str | None, typer.Argument(help="By default the one in production.")] = None,
    workspace: Where = None,
) -> None:
    """Build the bundle of a version from its tag, start it once, and check its answers.

    Example: `sarflood deploy v0.2.0`
    """
    outcome = _flow(find_workspace(workspace), "deploy", version=version)
    typer.echo(json.dumps(outcome, indent=2))


@app.command()
def serve(
    version: Annotated[str | None, typer.Argument(help="By default the one in production.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback.")] = 3000,
    workspace: Where = None,
) -> None:
    """Serve a version's bundle on this machine until Ctrl-C.

    Example: `sarflood serve --port 3000`, then
    `curl -F scene=@scene.tif -H 'Accept: application/geo+json' http://127.0.0.1:3000/predict`
    """
    import tempfile

    from sarflood.params import load_params
    from sarflood.promotion.registry import find_version
    from sarflood.serving.bundle import bundle_folder, serve_command, stored_tag
    from sarflood.serving.server import server, wait_until_ready

    place = find_workspace(workspace)
    tag = stored_tag(find_version(place, version).version, place.bentos)
    limit = load_params(place.params).serving.ready_within_s
    command = serve_command(str(bundle_folder(tag, place.bentos)), port)
    log = place.cache / f"serve-{port}.log"
    with (
        tempfile.TemporaryDirectory(prefix="sarflood-serve-") as home,
        server(command, Path(home), log) as process,
    ):
        wait_until_ready(process, port, ready_within_s=limit, name=tag, log=log)
        err.print(f"{tag} answers on http://127.0.0.1:{port}; log in {log}; Ctrl-C ends it")
        process.wait()
    raise SarfloodError(f"{tag}: the service ended; see {log}")


@app.command("map")
def map_(
    scene: Annotated[Path, typer.Argument(help="GeoTIFF of the flood.")],
    folder: Annotated[Path, typer.Option("--out", help="Where the maps go.")],
    pre: Annotated[Path | None, typer.Option(help="GeoTIFF from before the flood.")] = None,
    version: Annotated[str | None, typer.Option(help="By default the one in production.")] = None,
    workspace: Where = None,
) -> None:
    """Map a scene: mask and probability as GeoTIFF, polygons as GeoJSON, a picture, a summary.

    Example: `sarflood map scene.tif --pre before.tif --out maps/ulysses`
    """
    from rich.progress import Progress

    from sarflood.mapping.outputs import write_map
    from sarflood.mapping.scene import map_scene
    from sarflood.model.package import load_model
    from sarflood.params import load_params
    from sarflood.promotion.registry import fetch_version, find_version

    place = find_workspace(workspace)
    found = find_version(place, version)
    model = load_model(fetch_version(place, found))
    limit = load_params(place.params).serving.max_megapixels
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task(f"mapping {scene.name} with {found.version}", total=1.0)
        result = map_scene(
            model,
            scene,
            pre,
            on_progress=lambda done: progress.update(task, completed=done),
            max_megapixels=limit,
        )
    files = write_map(result, folder, version=found.version, scene=scene)
    typer.echo(json.dumps({name: str(path) for name, path in files.items()}, indent=2))


if __name__ == "__main__":
    main()
