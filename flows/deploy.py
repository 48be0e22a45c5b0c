"""Flow `deploy`: the bundle of a version, built from its tag, started and checked."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.support import open_workspace, show_text, tell
from sarflood.params import load_params
from sarflood.promotion.promote import Bundle, bundle_version, check_override
from sarflood.promotion.promote import promote as assign
from sarflood.promotion.registry import Version, find_version
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
    """Make the bundle of a version (by default the one in production) ready to be served.

    Args:
        version: Such as `v0.2.0`.
        promote: Why to put it into production then; by default it is not.
        override: Why to promote it in spite of the gate.
        rollback: Whether it is put back, which is what people are told.
        workspace: Its folder; by default the one that the process stands in.
    """
    place = open_workspace(workspace)
    found = find_version(place, version)
    if promote and not found.gate_passed:
        check_override(place, found, override)
    made = bundle(place, found)
    outcome = {"version": found.version, "bundle": made.tag, **made.check}
    if not promote:
        return Completed(name="Ready", message=f"{made.tag} answers", data=outcome)
    assign(place, found, promote, override)
    happened = "sarflood.model.rolled-back" if rollback else "sarflood.model.promoted"
    tell_promoted(found, happened, override or promote)
    name = "Rolled back" if rollback else "Promoted"
    return Completed(name=name, message=f"{found.version} serves", data=outcome)


def tell_promoted(version: Version, happened: str, why: str) -> None:
    """Tell Prefect that a version is in production now."""
    payload = {"iou": version.iou, "commit": version.commit, "why": why}
    tell(happened, f"sarflood.model.{version.version}", payload)


@task(task_run_name="bundle {version.version}", persist_result=False)
def bundle(workspace: Workspace, version: Version) -> Bundle:
    """Build the bundle, start it in a sandbox, compare its answers with the evaluation's."""
    logger = get_run_logger()
    params = load_params(workspace.params).serving
    made = bundle_version(workspace, version, params, logger.debug)
    rows = "\n".join(f"- {key}: {value}" for key, value in made.check.items())
    show_text(f"bundle-{version.version}", f"## {made.tag}\n\n{rows}", "Bundle check")
    logger.info("bundle %s is ready and answers as the evaluation did", made.tag)
    return made
