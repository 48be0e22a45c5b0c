"""Verbs about versions: models, status, drift, promote, rollback, deploy, serve, map."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sarflood.cli.console import AsJson, Where, app, err, moment, out, run_flow, show
from sarflood.errors import InputError, SarfloodError
from sarflood.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from sarflood.promotion.registry import Version


models = typer.Typer(
    help="List the registered versions; show one; compare two.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
)
app.add_typer(models, name="models")


@models.callback()
def list_models(context: typer.Context, workspace: Where = None, as_json: AsJson = False) -> None:
    """List the registered versions; `show` one, `diff` two.

    Example: `sarflood models`, `sarflood models show v0.2.0`, `sarflood models diff v0.1.0 v0.2.0`
    """
    from sarflood.promotion.registry import versions

    if context.invoked_subcommand and (workspace or as_json):
        asked = context.invoked_subcommand
        raise InputError(f"--workspace and --json come after the verb: sarflood models {asked} …")
    if context.invoked_subcommand is None:
        rows = [_row(item) for item in versions(find_workspace(workspace))]
        show(rows, as_json=as_json, empty="no version yet; `sarflood retrain` makes one")


def _row(version: Version) -> dict[str, Any]:
    return {
        "version": version.version,
        "stage": "production" if version.production else None,
        "iou": None if version.iou is None else round(version.iou, 4),
        "gate": "passed" if version.gate_passed else "refused",
        "override": any(promotion.override for promotion in version.promotions),
        "events": ", ".join(version.events),
        "commit": version.commit[:12],
    }


@models.command("show")
def show_model(version: str, workspace: Where = None, as_json: AsJson = False) -> None:
    """Show a version's card, and when and by whom it was promoted.

    Example: `sarflood models show v0.2.0`
    """
    from sarflood.process import git
    from sarflood.promotion.registry import find_version, json_at

    place = find_workspace(workspace)
    found = find_version(place, version)
    promotions = [
        {"at": moment(item.at), "by": item.by, "why": item.message, "override": item.override}
        for item in found.promotions
    ]
    if as_json:
        content = _row(found) | {"commit": found.commit, "promotions": promotions}
        content["evaluation"] = json_at(place, found.commit, "metrics/evaluation.json")
        content["checks"] = json_at(place, found.commit, "metrics/gate.json").get("checks")
        package = place.model.relative_to(place.root).as_posix()
        content["manifest"] = json_at(place, found.commit, f"{package}/model.json")
        typer.echo(json.dumps(content, indent=2))
        return
    card = (place.model / "card.md").relative_to(place.root).as_posix()
    typer.echo(git(place.root, "show", f"{found.tag}:{card}"), nl=False)
    typer.echo("\n## In production\n")
    for item in promotions:
        typer.echo(f"- {item['at']}, by {item['by']}: {item['why']}")
    if not promotions:
        typer.echo("never")


@models.command("diff")
def diff_models(old: str, new: str, workspace: Where = None, as_json: AsJson = False) -> None:
    """Compare two versions: metrics, settings, events by the hashes of their data, code.

    Example: `sarflood models diff v0.1.0 v0.2.0`
    """
    from sarflood.promotion.compare import compare
    from sarflood.promotion.registry import find_version

    place = find_workspace(workspace)
    found = compare(place, find_version(place, old), find_version(place, new))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [
        {"": kind, "what": key, old: _short(values["old"]), new: _short(values["new"])}
        for kind in ("metrics", "params", "events")
        for key, values in found[kind].items()
    ]
    rows += [{"": "code", "what": name, old: None, new: "changed"} for name in found["code"]]
    show(rows, as_json=False, empty="no difference")


def _short(value: Any) -> str | None:
    if isinstance(value, float):
        return f"{value:.4f}"
    return None if value is None else str(value)[:40]


@app.command()
def drift(workspace: Where = None, as_json: AsJson = False) -> None:
    """Say whether what the service maps still looks as what the model was trained on.

    Writes reports/drift/drift.html with histograms. `sarflood serve` keeps what is compared.

    Example: `sarflood drift`
    """
    from sarflood.promotion.watch import watch

    place = find_workspace(workspace)
    found = watch(place)
    if as_json:
        typer.echo(json.dumps(found.as_json() if found else None, indent=2))
        return
    if found is None:
        out.print("the version in production has mapped nothing yet; `sarflood serve` keeps count")
        return
    rows = [
        {
            "figure": item.name.replace("_", " "),
            "band": item.band,
            "seen": f"{item.value:.3f}",
            "at most": f"{item.limit:.3f}",
            "": "drifted" if item.drifted else "",
        }
        for item in found.figures
    ]
    show(rows, as_json=False, empty="")
    word = "drifted" if found.reasons else "quiet"
    out.print(f"{found.version}, {found.images} image(s): {word}; see {place.drift}/drift.html")


Override = Annotated[
    bool, typer.Option("--override", help="Promote in spite of the gate; needs a --reason.")
]
Reason = Annotated[str | None, typer.Option(help="Why; stands in the tag for ever.")]


@app.command()
def promote(
    version: str, override: Override = False, reason: Reason = None, workspace: Where = None
) -> None:
    """Put a version that passed the gate into production.

    One that was refused needs `--override` and a reason; both stay visible, with your name.

    Example: `sarflood promote v0.2.0 --override --reason "typhoon, old model blind in Luzon"`
    """
    from sarflood.promotion.registry import find_version

    if override and not (reason or "").strip():
        raise InputError("--override needs a --reason, which stands in the tag for ever")
    place = find_workspace(workspace)
    found = find_version(place, version)
    if found.production:
        out.print(f"{version} is in production")
        return
    message = "Promoted by hand" + (f": {reason}" if reason else "")
    _put_in_production(place, found, message, reason if override else None, rollback=False)


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option("--to", help="Version to go back to.")] = None,
    reason: Reason = None,
    workspace: Where = None,
) -> None:
    """Put the previous champion back into production.

    Example: `sarflood rollback --to v0.1.0 --reason "sees water on runways"`
    """
    from sarflood.promotion.promote import previous_champion
    from sarflood.promotion.registry import find_version, production

    place = find_workspace(workspace)
    found = find_version(place, to) if to else previous_champion(place)
    if found is None:
        raise InputError(f"{place.root}: no earlier champion to go back to (see `sarflood models`)")
    now = production(place)
    if now and now.version == found.version:
        out.print(f"{found.version} is in production")
        return
    left = f" from {now.version}" if now else ""
    # What was in production once, by an override too, may come back.
    was = next((item.message for item in found.promotions if item.override), None)
    message = f"Rollback{left}" + (f": {reason}" if reason else "")
    told = f"{message} ({was})" if was else None
    _put_in_production(place, found, message, told, rollback=True)


def _put_in_production(
    place: Workspace, version: Version, message: str, override: str | None, *, rollback: bool
) -> None:
    """Build and check a version's bundle, then promote it; refused before if the gate did."""
    from sarflood.promotion.promote import check_override

    if not version.gate_passed:
        check_override(place, version, override)
    run_flow(
        place,
        "deploy",
        version=version.version,
        promote=message,
        override=override,
        rollback=rollback,
    )
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
    follow: Annotated[
        bool, typer.Option("--follow", help="Change over when another one is put in production.")
    ] = False,
    workspace: Where = None,
) -> None:
    """Serve a version's bundle on this machine until Ctrl-C.

    Example: `sarflood serve --port 3000`, then
    `curl -F scene=@scene.tif -H 'Accept: application/geo+json' http://127.0.0.1:3000/predict`
    """
    from sarflood.promotion.registry import find_version, production
    from sarflood.serving.bundle import stored_tag
    from sarflood.serving.follow import follow as serve_production
    from sarflood.serving.follow import log_of, serving
    from sarflood.serving.server import check_port

    place = find_workspace(workspace)
    check_port(port)
    if follow:
        if version:
            raise InputError(f"{version} with --follow: name a version, or follow production")

        def champion() -> str | None:
            found = production(place)
            return found.version if found else None

        serve_production(place, champion, port, err.print)
    tag = stored_tag(find_version(place, version).version, place.bentos)
    log = log_of(place, port)
    with serving(place, tag, port) as process:
        err.print(f"{tag} answers on http://127.0.0.1:{port}; log in {log}; Ctrl-C ends it")
        process.wait()
    raise SarfloodError(f"{tag}: the service ended; see {log}")


@app.command("map")
def map_(
    scenes: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCENE…",
            help="GeoTIFF of the flood, or a folder with scene.tif and maybe pre.tif.",
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Where the maps go.")],
    pre: Annotated[Path | None, typer.Option(help="GeoTIFF from before the flood.")] = None,
    version: Annotated[str | None, typer.Option(help="By default the one in production.")] = None,
    workspace: Where = None,
) -> None:
    """Map a scene: mask and probability as GeoTIFF, polygons as GeoJSON, a picture, a summary.

    Of several scenes each gets a folder in `--out`; those that are mapped there are passed over.

    Examples: `sarflood map scene.tif --pre before.tif --out maps/ulysses`,
    `sarflood map incoming/* --out maps`
    """
    place = find_workspace(workspace)
    if len(scenes) == 1:
        _map_scene(place, scenes[0], pre, folder, version)
        return
    if pre:
        raise InputError(
            "--pre goes with one scene; of several, give folders with scene.tif and pre.tif"
        )
    paths = [str(path.resolve()) for path in scenes]
    maps = run_flow(place, "map_scenes", scenes=paths, out=str(folder.resolve()), version=version)
    typer.echo(
        json.dumps(
            {
                name: {
                    "folder": _from_here(folder / name),
                    "flooded_km2": row["flooded_km2"],
                    "new": row["new"],
                }
                for name, row in maps.items()
            },
            indent=2,
        )
    )


def _map_scene(
    place: Workspace, path: Path, pre: Path | None, folder: Path, version: str | None
) -> None:
    """Map one scene here and now, with a bar that shows how far it is."""
    from rich.progress import Progress

    from sarflood.mapping.outputs import make_folder, write_map
    from sarflood.mapping.scene import map_scene
    from sarflood.mapping.scenes import find_scene
    from sarflood.model.package import load_model
    from sarflood.params import load_params
    from sarflood.promotion.registry import fetch_version, find_version

    files = find_scene(path)
    if pre:
        files = replace(files, pre=pre)
    found = find_version(place, version)
    make_folder(folder)
    model = load_model(fetch_version(place, found))
    limit = load_params(place.params).serving.max_megapixels
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task(f"mapping {files.name} with {found.version}", total=1.0)
        result = map_scene(
            model,
            files.scene,
            files.pre,
            on_progress=lambda done: progress.update(task, completed=done),
            max_megapixels=limit,
        )
    written = write_map(
        result, folder, version=found.version, scene=files.scene, inputs=files.hashes()
    )
    err.print(
        f"{found.version}: {result.manifest.label} on {result.flooded_km2:.6g} km², "
        f"{result.flooded_share:.1%} of the pixels with data",
        highlight=False,
        soft_wrap=True,
    )
    typer.echo(json.dumps({name: _from_here(path) for name, path in written.items()}, indent=2))


def _from_here(path: Path) -> str:
    """Return a path as seen from the current folder, if it lies in there."""
    full, here = path.resolve(), Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else full)
