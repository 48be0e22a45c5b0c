"""Flow `deploy`: the bundle of a version, built from its tag, started and checked."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.support import RETRIED, open_workspace, show_link, show_text, tell
from sarflood.params import load_params
from sarflood.promotion.promote import Bundle, bundle_version, overrides_gate
from sarflood.promotion.promote import promote as assign
from sarflood.promotion.registry import Version, find_version
from sarflood.serving.rollout import wait_until_served
from sarflood.workspace import Workspace


def _run_name() -> str:
    return f"deploy {runtime.flow_run.parameters.get('version') or 'the version in production'}"


@flow(name="deploy", flow_run_name=_run_name, validate_parameters=False)
def deploy(
    version: str | None = None,
    promote: str | None = None,
    override: str | None = None,
    rollback: bool = False,
    workspace: str | None = None,
) -> State[dict[str, Any]]:
    """Make the bundle of a version (by default the one in production), and let it be served.

    What follows production takes the version that is there then; this waits until it has.

    Args:
        version: Such as `v0.2.0`.
        promote: Why to put it into production then; by default it is not.
        override: Why to promote it in spite of the gate.
        rollback: Whether it is put back, which is what people are told.
        workspace: Its folder; by default the one that the process stands in.
    """
    place = open_workspace(workspace)
    found = find_version(place, version)
    if promote:
        overrides_gate(place, found, override)
    made = bundle(place, found)
    outcome: dict[str, Any] = {"version": found.version, "bundle": made.tag}
    outcome |= {"content": made.content, **made.check}
    name = "Ready"
    if promote:
        found = assign(place, found, promote, override)
        happened = "sarflood.model.rolled-back" if rollback else "sarflood.model.promoted"
        tell_promoted(found, happened, override or promote)
        name = "Rolled back" if rollback else "Promoted"
    if not found.production:
        return Completed(name=name, message=f"{made.tag} answers", data=outcome)
    outcome["ports"] = switch(place, found)
    return Completed(name=name, message=_served(found, outcome["ports"]), data=outcome)


def _served(version: Version, ports: list[int]) -> str:
    if not ports:
        return f"{version.version} is in production; no service runs"
    return f"{version.version} serves on port {', '.join(map(str, ports))}"


@task(task_run_name="switch to {version.version}", persist_result=False)
def switch(workspace: Workspace, version: Version) -> list[int]:
    """Wait until all that follow production serve a version; return their ports."""
    ports = wait_until_served(workspace, version.version)
    get_run_logger().info("%s", _served(version, ports))
    return ports


def tell_promoted(version: Version, happened: str, why: str) -> None:
    """Tell Prefect that a version is in production now."""
    payload = {"iou": version.iou, "commit": version.commit, "why": why}
    tell(happened, f"sarflood.model.{version.version}", payload)


@task(task_run_name="bundle {version.version}", persist_result=False, **RETRIED)
def bundle(workspace: Workspace, version: Version) -> Bundle:
    """Build the bundle, start it in a sandbox, compare its answers with the evaluation's."""
    logger = get_run_logger()
    params = load_params(workspace.params).serving
    made = bundle_version(workspace, version, params, logger.debug)
    rows = "\n".join(f"- {key}: {value}" for key, value in made.check.items())
    show_text(f"bundle-{version.version}", f"## {made.tag}\n\n{rows}", "Bundle check")
    show_link(
        f"bundle-{version.version}-page",
        f"bundles/{version.version}",
        made.tag,
        f"The bundle {made.tag}: model card, files, how to serve it",
    )
    logger.info("bundle %s is ready and answers as the evaluation did", made.tag)
    return made
