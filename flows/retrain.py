"""Flow `retrain`: reproduce the stages, judge the candidate, register it, promote it or not."""

from __future__ import annotations

import json
from typing import Any

from filelock import FileLock
from prefect import flow, get_run_logger, runtime, task
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed

from flows.deploy import bundle
from flows.support import open_workspace, reproduce, show_table, show_text
from sarflood.promotion.promote import known_candidate, promote, record_candidate
from sarflood.promotion.registry import Version, note_champion
from sarflood.workspace import Workspace


def _run_name() -> str:
    event = runtime.flow_run.parameters.get("event")
    return f"retrain after {event}" if event else "retrain"


@flow(name="retrain", flow_run_name=_run_name, validate_parameters=False)
def retrain(event: str | None = None, workspace: str | None = None) -> State[dict[str, Any]]:
    """Train on all events as they are now; promote the candidate if it is proven better.

    Runs one at a time for a workspace. With nothing new it ends at once; a run that was killed
    half-way is finished by the next one.

    Args:
        event: The event that asked for it, noted in the version's message.
        workspace: Its folder; by default the one that the process stands in.
    """
    place = open_workspace(workspace)
    place.cache.mkdir(exist_ok=True)
    with FileLock(place.cache / "retrain.lock"):
        fit(place)
        version = known_candidate(place)
        new = version is None
        if version is None:
            gate = judge(place)
            version = register(place, event, gate)
        outcome: dict[str, Any] = {"version": version.version, "iou": version.iou, "new": new}
        if not version.gate_passed:
            refusals = _refusals(place)
            outcome |= {"verdict": "refused", "refusals": refusals}
            return Completed(name="Refused", message="; ".join(refusals), data=outcome)
        outcome["verdict"] = "passed"
        if version.promotions:
            return Completed(name="Nothing new", message=_known(version), data=outcome)
        bundle(place, version)
        put_in_production(place, version)
    return Completed(name="Promoted", message=f"{version.version} serves", data=outcome)


@task(task_run_name="validate, split, train, evaluate", persist_result=False)
def fit(workspace: Workspace) -> None:
    """Reproduce the stages up to the evaluation; leaves the metrics as a table."""
    reproduce(workspace, "evaluate")
    evaluation = json.loads((workspace.metrics / "evaluation.json").read_text(encoding="utf-8"))
    rows = [
        {"patches of": name, **{key: row.get(key) for key in _SHOWN}}
        for name, row in {"all events": evaluation["test"], **evaluation["events"]}.items()
    ]
    show_table("evaluation", rows, "The candidate and two baselines on the same test patches")


_SHOWN = ("patches", "iou", "f1", "precision", "recall", "otsu_iou", "fitted_threshold_iou")


@task(task_run_name="gate", persist_result=False)
def judge(workspace: Workspace) -> dict[str, Any]:
    """Note the champion, reproduce the gate; leaves the verdict as a table."""
    note_champion(workspace)
    reproduce(workspace, "gate")
    verdict: dict[str, Any] = json.loads((workspace.metrics / "gate.json").read_text("utf-8"))
    word = "passed" if verdict["passed"] else "refused"
    show_table("gate", verdict["checks"], f"The gate {word} the candidate")
    card = (workspace.model / "card.md").read_text(encoding="utf-8")
    show_text("model-card", card, "Model card of the candidate")
    return verdict


@task(task_run_name="register", persist_result=False)
def register(workspace: Workspace, event: str | None, gate: dict[str, Any]) -> Version:
    """Push, commit and tag the candidate; a refused one is a version too."""
    word = "passed" if gate["passed"] else "refused"
    asked = f" after event {event}" if event else ""
    version = record_candidate(workspace, f"Retrain{asked}: gate {word}")
    get_run_logger().info("registered %s (IoU %s, gate %s)", version.version, version.iou, word)
    return version


@task(task_run_name="promote {version.version}", persist_result=False)
def put_in_production(workspace: Workspace, version: Version) -> None:
    """Assign production by a tag: the one moment of promotion."""
    promote(workspace, version, f"Gate passed, IoU {version.iou:.4f}")
    emit_event(
        event="sarflood.model.promoted",
        resource={"prefect.resource.id": f"sarflood.model.{version.version}"},
        payload={"iou": version.iou, "commit": version.commit},
    )


def _refusals(workspace: Workspace) -> list[str]:
    verdict = json.loads((workspace.metrics / "gate.json").read_text(encoding="utf-8"))
    return [
        f"{check['name']} is {check['observed']}, needs {check['threshold']}"
        for check in verdict["checks"]
        if not check["passed"]
    ]


def _known(version: Version) -> str:
    state = "in production" if version.production else "was in production before"
    return f"nothing new: the present data and settings are {version.version}, {state}"
