"""Flow `deploy`: the bundle of a version, built from its tag, started and checked."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.support import open_workspace, show_text
from sarflood.params import load_params
from sarflood.promotion.promote import Bundle, bundle_version
from sarflood.promotion.registry import Version, find_version
from sarflood.workspace import Workspace


def _run_name() -> str:
    return f"deploy {runtime.flow_run.parameters.get('version') or 'the version in production'}"


@flow(name="deploy", flow_run_name=_run_name, validate_parameters=False)
def deploy(version: str | None = None, workspace: str | None = None) -> State[dict[str, Any]]:
    """Make the bundle of a version (by default the one in production) ready to be served."""
    place = open_workspace(workspace)
    found = find_version(place, version)
    made = bundle(place, found)
    outcome = {"version": found.version, "bundle": made.tag, **made.check}
    return Completed(name="Ready", message=f"{made.tag} answers", data=outcome)


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
