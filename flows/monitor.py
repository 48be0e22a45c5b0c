"""Flow `monitor`: what the version in production has mapped, against its training."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.support import RETRIED, open_workspace, show_table, tell
from sarflood.monitoring.compare import Drift
from sarflood.monitoring.report import last_report
from sarflood.promotion.registry import production
from sarflood.promotion.watch import watch
from sarflood.workspace import Workspace


@flow(name="monitor", flow_run_name="monitor", validate_parameters=False)
def monitor(workspace: str | None = None) -> State[dict[str, Any] | None]:
    """Compare the last images with the training; tell Prefect of a drift, once until it is over."""
    place = open_workspace(workspace)
    if production(place) is None:
        return Completed(name="Nothing seen", message="no version is in production", data=None)
    before = last_report(place)
    drift = look(place)
    if drift is None:
        return Completed(name="Nothing seen", message="no image was mapped yet", data=None)
    if not drift.reasons:
        message = f"{drift.version}: {drift.images} image(s) look as the training did"
        return Completed(name="Quiet", message=message, data=drift.as_json())
    for reason in drift.reasons:
        get_run_logger().warning("%s", reason)
    if not (before and before["drifted"] and before["version"] == drift.version):
        told = {"images": drift.images, "reasons": drift.reasons}
        tell("sarflood.drift.detected", f"sarflood.model.{drift.version}", told)
    return Completed(name="Drift", message="; ".join(drift.reasons), data=drift.as_json())


@task(task_run_name="compare with the training", persist_result=False, **RETRIED)
def look(workspace: Workspace) -> Drift | None:
    """Compare, write `reports/drift/`, and leave the figures as a table."""
    drift = watch(workspace)
    if drift:
        rows = [
            {
                "figure": item.name.replace("_", " "),
                "band": item.band,
                "seen": item.value,
                "at most": item.limit,
                "drifted": item.drifted,
            }
            for item in drift.figures
        ]
        show_table("drift", rows, f"{drift.images} image(s) mapped by {drift.version}")
        get_run_logger().info("see reports/drift/drift.html")
    return drift
