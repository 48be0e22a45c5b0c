"""Verbs about what is at work: up, down, status."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sarflood.cli.console import AsJson, Where, app, err, out, page_address
from sarflood.workspace import Workspace, find_workspace

Port = Annotated[int, typer.Option(min=1, max=65535, help="On the loopback.")]
READY_WITHIN_S = 600.0  # 20 s where nothing else works


@app.command()
def up(
    prefect_port: Port = 4200,
    serve_port: Port = 3000,
    reports_port: Port = 4300,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, as service managers want it.")
    ] = False,
    workspace: Where = None,
) -> None:
    """Bring up all parts of the workspace, and keep them up.

    The parts are Prefect's server and worker, the watcher of the inbox, the service, and the pages
    of reports. One that dies is started again. What is dropped into `inbox/` becomes an event, and
    each new event starts a retraining. Prefect's UI and the reports ask for user and token,
    the service for the token.

    Example: `sarflood up`, then `sarflood status`, and `sarflood down` in the end
    """
    from sarflood.operations.parts import Ports, Site, bring_up, wait_until_up

    place = find_workspace(workspace)
    ports = Ports(prefect_port, serve_port, reports_port)
    if foreground:
        out.print(f"logs in {Site(place).folder}", highlight=False, soft_wrap=True)
        bring_up(place, ports, foreground=True)
        return
    with err.status("starting the parts"):
        site = bring_up(place, ports)
        wait_until_up(site, READY_WITHIN_S)
    user, _, _ = site.auth().partition(":")
    page = page_address(serve_port, site.service_token(), site.token_place)
    out.print(
        f"{place.root} is up\n"
        f"  runs      http://127.0.0.1:{prefect_port}\n"
        f"  reports   http://127.0.0.1:{reports_port}\n"
        f"  service   {page}\n"
        f"  inbox     {place.inbox}\n"
        f"  user {user}, token in {site.token_place}; logs in {site.folder}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


@app.command()
def down(workspace: Where = None) -> None:
    """End all parts of the workspace; a training that is cut short goes on after the next `up`.

    Example: `sarflood down`
    """
    from sarflood.operations.parts import bring_down

    place = find_workspace(workspace)
    with err.status("ending the parts"):
        was_up = bring_down(place)
    out.print(f"{place.root} is down" if was_up else f"{place.root} was not up", soft_wrap=True)


@app.command()
def status(workspace: Where = None, as_json: AsJson = False) -> None:
    """Say which version is in production and why, what runs, what waits, and what is wrong.

    Example: `sarflood status`, or `sarflood status --json`
    """
    from sarflood.operations.overview import overview

    place = find_workspace(workspace)
    found = overview(place)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    lines = [*_versions(found), *_work(place, found)]
    out.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


def _versions(found: dict[str, Any]) -> list[str]:
    live, candidate = found["production"], found["candidate"]
    lines = ["no version is in production"]
    if live:
        mark = "" if live["gate"] == "passed" else "the gate REFUSED it; "
        lines = [
            f"{live['version']} is in production since {live['since']} ({mark}by {live['by']})",
            f"  {live['why'].splitlines()[0]}",
            f"  its bundle is {'built' if live['bundle'] else 'not built: `sarflood deploy`'}",
        ]
    if candidate:
        name = candidate["version"] or "not registered"
        lines.append(f"candidate: {name}, gate: {candidate['gate'] or 'not judged'}")
    if found["waiting"]:
        names = ", ".join(found["waiting"])
        lines.append(f"passed and not promoted: {names}; `sarflood retrain` finishes it")
    if found["busy"]:
        lines.append("a command works in this workspace now")
    return lines


def _work(place: Workspace, found: dict[str, Any]) -> list[str]:
    lines = []
    if found["parts"]:
        parts = (f"{item['name']} since {item['since'] or '–'}" for item in found["parts"])
        lines += ["up: " + ", ".join(parts)]
        lines += [f"  {name} {address}" for name, address in found["addresses"].items()]
    else:
        lines.append("not up; `sarflood up` watches the inbox, retrains and serves")
    for title, key in (("at work", "at_work"), ("queue", "queue"), ("inbox", "inbox")):
        if found[key]:
            lines.append(f"{title}: {', '.join(found[key])}")
    if found["refused"]:
        lines.append(f"refused drops: {found['refused']}, reasons in {place.inbox / 'refused'}")
    for run in found["runs"]:
        said = f": {run['message'].splitlines()[0]}" if run["message"] else ""
        lines.append(f"  {run['since'][:19]} {run['name']}, {run['state']}{said}")
    drift = found["drift"]
    if drift:
        word = "drifted: " + "; ".join(drift["reasons"]) if drift["drifted"] else "quiet"
        lines.append(f"drift of the last {drift['images']} images {drift['version']} saw: {word}")
    lines.append(f"free disk: {found['free_gib']:g} GiB")
    return lines + [f"TROUBLE: {sentence}" for sentence in found["trouble"]]
