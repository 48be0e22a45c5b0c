"""Verbs about what serves: promote, rollback, deploy, bundle, shadow, serve."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sarflood.cli.console import Where, app, err, from_here, out, page_address, run_flow
from sarflood.errors import InputError, SarfloodError
from sarflood.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from sarflood.promotion.registry import Version

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
    """Build and check a version's bundle, then promote it; refused before if the gate does."""
    from sarflood.promotion.promote import overrides_gate

    overrides_gate(place, version, override)
    outcome = run_flow(
        place,
        "deploy",
        version=version.version,
        promote=message,
        override=override,
        rollback=rollback,
    )
    ports = ", ".join(map(str, outcome["ports"]))
    where = f"serves on port {ports}" if ports else "no service runs"
    out.print(f"{version.version} is in production; {where}", soft_wrap=True, highlight=False)


@app.command()
def deploy(
    version: Annotated[str | None, typer.Argument(help="By default the one in production.")] = None,
    workspace: Where = None,
) -> None:
    """Make what runs equal to what is in production; put a version there first if one is named.

    Its bundle is built from its tag, started and checked. What follows production then starts the
    new version beside the old one, hands it the port when it is ready, and lets the old one answer
    what it was asked; this waits until all have done so. It can be repeated at any time.

    Example: `sarflood deploy v0.2.0`
    """
    from sarflood.promotion.registry import find_version

    place = find_workspace(workspace)
    found = find_version(place, version)
    if not found.production:
        _put_in_production(place, found, "Deployed by hand", None, rollback=False)
        return
    typer.echo(json.dumps(run_flow(place, "deploy", version=found.version), indent=2))


@app.command()
def bundle(
    version: Annotated[str | None, typer.Argument(help="By default the one in production.")] = None,
    workspace: Where = None,
) -> None:
    """Build the bundle of a version from its tag, start it once, and check its answers.

    `content` is the hash of all that serves; the same tag gives the same.

    Example: `sarflood bundle v0.2.0`
    """
    from sarflood.params import load_params
    from sarflood.promotion.promote import bundle_version
    from sarflood.promotion.registry import find_version
    from sarflood.serving.bundle import bundle_folder

    place = find_workspace(workspace)
    params = load_params(place.params).serving
    with err.status("building and checking"):
        made = bundle_version(place, find_version(place, version), params)
    folder = bundle_folder(made.tag, place.bentos)
    content = {"bundle": made.tag, "content": made.content, "folder": from_here(folder)}
    typer.echo(json.dumps(content | made.check, indent=2))


@app.command()
def shadow(
    version: Annotated[str | None, typer.Argument(help="By default the one that gets it.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Give no more copies.")] = False,
    workspace: Where = None,
) -> None:
    """Give a version a copy of what the one in production is asked; say how the two answered.

    Its answers are compared and counted, and returned to nobody. `gate.shadow` in params.yaml can
    ask for some before a version is promoted.

    Example: `sarflood shadow v0.4.0`, later `sarflood shadow`, and `sarflood shadow --stop`
    """
    from sarflood.params import load_params
    from sarflood.promotion.promote import bundle_version
    from sarflood.promotion.registry import find_version
    from sarflood.promotion.shadow import report, shadowed
    from sarflood.promotion.shadow import shadow as give

    place = find_workspace(workspace)
    wanted = version or shadowed(place)
    if stop:
        give(place, None)
    elif version:
        found = find_version(place, version)
        if found.production:
            raise InputError(f"{version} is in production; a shadow stands beside that")
        with err.status("building and checking"):
            bundle_version(place, found, load_params(place.params).serving)
        give(place, version)
    if wanted is None:
        raise InputError(f"{place.root}: no version gets copies; `sarflood shadow VERSION`")
    typer.echo(json.dumps(report(place, wanted), indent=2))


@app.command()
def serve(
    version: Annotated[str | None, typer.Argument(help="By default the one in production.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback.")] = 3000,
    follow: Annotated[
        bool, typer.Option("--follow", help="Change over when another one is put in production.")
    ] = False,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let everyone on this machine use it.")
    ] = False,
    workspace: Where = None,
) -> None:
    """Serve a version's bundle on this machine until Ctrl-C.

    It asks for the workspace's token, which `SARFLOOD_TOKEN` may give. On a terminal the address
    of the page that is printed has it.

    Example: `sarflood serve --port 3000`, then
    `curl -F scene=@scene.tif -H "Authorization: Bearer $(cat .sarflood/up/token)"
    -H 'Accept: application/geo+json' http://127.0.0.1:3000/predict`
    """
    from sarflood.operations.parts import Site
    from sarflood.promotion.registry import find_version, production
    from sarflood.promotion.shadow import shadowed
    from sarflood.serving.bundle import stored_tag
    from sarflood.serving.follow import follow as serve_production
    from sarflood.serving.follow import serving
    from sarflood.serving.rollout import log_of
    from sarflood.serving.server import check_port

    place = find_workspace(workspace)
    check_port(port)
    site = Site(place)
    token = site.service_token(without=no_token)
    address = page_address(port, token, site.token_place)
    if follow:
        if version:
            raise InputError(f"{version} with --follow: name a version, or follow production")

        def champion() -> str | None:
            found = production(place)
            return found.version if found else None

        serve_production(place, champion, lambda: shadowed(place), port, token, address, _say)
    found = find_version(place, version)
    tag, stage = stored_tag(found.version, place.bentos), "production" if found.production else None
    log = log_of(place, port)
    with serving(place, tag, port, token, stage) as server:
        _say(f"{tag} answers on {address}; log in {log}; Ctrl-C ends it")
        server.process.wait()
    raise SarfloodError(f"{tag}: the service ended; see {log}")


def _say(line: str) -> None:
    err.print(line, soft_wrap=True, markup=False, highlight=False)
