"""Verbs about versions: models, drift."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from sarflood.cli.console import (
    AsJson,
    Where,
    app,
    moment,
    out,
    show,
)
from sarflood.errors import InputError
from sarflood.workspace import find_workspace

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
