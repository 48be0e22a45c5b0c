"""Verbs about versions: models, promote, rollback, deploy, serve, map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sarflood.cli.console import AsJson, Where, app, err, out, run_flow, show
from sarflood.errors import GateRefusedError, InputError, SarfloodError
from sarflood.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from sarflood.promotion.registry import Version


@app.command()
def models(
    version: Annotated[str | None, typer.Argument(help="Show this version's card.")] = None,
    workspace: Where = None,
    as_json: AsJson = False,
) -> None:
    """List the registered versions, or show the card of one.

    Example: `sarflood models v0.2.0`
    """
    from sarflood.process import git
    from sarflood.promotion.registry import find_version, versions

    place = find_workspace(workspace)
    if version and not as_json:
        tag = find_version(place, version).tag
        card = (place.model / "card.md").relative_to(place.root).as_posix()
        typer.echo(git(place.root, "show", f"{tag}:{card}"), nl=False)
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
        for item in ([find_version(place, version)] if version else versions(place))
    ]
    show(rows, as_json=as_json, empty="no version yet; `sarflood retrain` makes one")


@app.command()
def promote(version: str, workspace: Where = None) -> None:
    """Put a version that passed the gate into production.

    Example: `sarflood promote v0.2.0`
    """
    from sarflood.promotion.registry import find_version

    place = find_workspace(workspace)
    found = find_version(place, version)
    if found.production:
        out.print(f"{version} is in production")
    else:
        _put_in_production(place, found, "Promoted by hand")


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option("--to", help="Version to go back to.")] = None,
    workspace: Where = None,
) -> None:
    """Put the previous champion back into production.

    Example: `sarflood rollback --to v0.1.0`
    """
    from sarflood.promotion.promote import previous_champion
    from sarflood.promotion.registry import find_version

    place = find_workspace(workspace)
    found = find_version(place, to) if to else previous_champion(place)
    if found is None:
        raise InputError(f"{place.root}: no earlier champion to go back to (see `sarflood models`)")
    _put_in_production(place, found, "Rollback")


def _put_in_production(place: Workspace, version: Version, message: str) -> None:
    """Build and check a version's bundle, then promote it; refused before if the gate did."""
    from sarflood.promotion.promote import promote as assign

    if not version.gate_passed:
        raise GateRefusedError(f"{version.version}: refused by the gate; the champion stays")
    run_flow(place, "deploy", version=version.version)
    assign(place, version, message)
    out.print(f"{version.version} is in production")


@app.command()
def deploy(
    version: Annotated[str | None, typer.Argument(help="By default the one in production.")] = None,
    workspace: Where = None,
) -> None:
    """Build the bundle of a version from its tag, start it once, and check its answers.

    Example: `sarflood deploy v0.2.0`
    """
    outcome = run_flow(find_workspace(workspace), "deploy", version=version)
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
    from sarflood.serving.server import check_port, server, wait_until_ready

    place = find_workspace(workspace)
    check_port(port)
    tag = stored_tag(find_version(place, version).version, place.bentos)
    limit = load_params(place.params).serving.ready_within_s
    command = serve_command(str(bundle_folder(tag, place.bentos)), port)
    log = place.cache / f"serve-{port}.log"
    with (
        tempfile.TemporaryDirectory(prefix="sarflood-serve-") as home,
        server(command, Path(home), log) as process,
    ):
        wait_until_ready(process, port, ready_within_s=limit, tag=tag, log=log)
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

    from sarflood.mapping.outputs import make_folder, write_map
    from sarflood.mapping.scene import map_scene
    from sarflood.model.package import load_model
    from sarflood.params import load_params
    from sarflood.promotion.registry import fetch_version, find_version

    place = find_workspace(workspace)
    found = find_version(place, version)
    make_folder(folder)
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
    err.print(
        f"{found.version}: {result.manifest.label} on {result.flooded_km2:.6g} km², "
        f"{result.flooded_share:.1%} of the pixels with data",
        highlight=False,
        soft_wrap=True,
    )
    typer.echo(json.dumps({name: _from_here(path) for name, path in files.items()}, indent=2))


def _from_here(path: Path) -> str:
    """Return a path as seen from the current folder, if it lies in there."""
    full, here = path.resolve(), Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else full)
