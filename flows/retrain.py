"""Flow `retrain`: reproduce the stages, judge the candidate, register it, promote it or not."""

from __future__ import annotations

import json
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.deploy import bundle, tell_promoted
from flows.support import (
    RETRIED,
    fold,
    open_workspace,
    run_stages,
    show_link,
    show_table,
    show_text,
    tell,
)
from sarflood.errors import NetworkError, SarfloodError
from sarflood.evaluation.examples import WORST
from sarflood.ingest.track import note_seen, track_event, tracked_events
from sarflood.operations.inbox import Inbox
from sarflood.process import git
from sarflood.promotion.gate import SHADOW_REQUESTS, comparison, read_checks
from sarflood.promotion.promote import (
    check_history,
    is_recorded,
    known_candidate,
    promote_judged,
    record_candidate,
    record_run,
)
from sarflood.promotion.registry import Version, note_champion
from sarflood.promotion.shadow import lacking, shadow
from sarflood.workspace import Workspace

FOLD_EVERY_S = 10.0  # the runs that wait for this one, while it waits itself


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
    check_history(place)
    wait_for_drops(place)
    with place.exclusive(get_run_logger().warning):
        track_untracked(place)
        if folded := fold():
            get_run_logger().info("%d runs that were due are folded into this one", folded)
        events = tracked_events(place)
        try:
            outcome = _retrain(place, event)
        except SarfloodError as error:
            if not isinstance(error, NetworkError):
                note_seen(place, events)  # the same again would fail again
            raise
        note_seen(place, events)
    return Completed(name=outcome["state"], message=outcome["message"], data=outcome)


def wait_for_drops(place: Workspace) -> None:
    """Let the drops that are being taken in come first: one training does for all of them."""
    inbox = Inbox(place.inbox, place.cache / "inbox")
    if inbox.wait(0):
        return
    get_run_logger().info("waits for the drops that are being taken in, to see them all")
    while not inbox.wait(FOLD_EVERY_S):
        fold()


def _retrain(place: Workspace, event: str | None) -> dict[str, Any]:
    fit(place)
    version = known_candidate(place)
    new = version is None
    if version is None:
        version = register(place, event, judge(place))
    show_link("report", "report.html", "report.html", f"Report of {version.version}")
    show_link("data-docs", "validation/index.html", "Data Docs", "What was asked of the data")
    outcome: dict[str, Any] = {"version": version.version, "iou": version.iou, "new": new}
    if version.promotions:
        if not is_recorded(place):
            record(place, f"Evaluate {version.version} again")
        state, message = "Nothing new", _known(version)
    elif not version.gate_passed:
        outcome["refusals"] = _refusals(place)
        state, message = "Refused", "; ".join(outcome["refusals"])
        if new:
            tell(
                "sarflood.model.refused",
                f"sarflood.model.{version.version}",
                {"iou": version.iou, "why": message},
            )
    else:
        bundle(place, version)
        lacks = lacking(place, version)
        message = "; ".join(check.sentence() for check in lacks)
        if not lacks:
            put_in_production(place, version)
            state, message = "Promoted", f"{version.version} serves"
        elif lacks[0].name == SHADOW_REQUESTS:
            shadow(place, version.version)
            state = "Shadowed"
        else:
            state = "Refused"
    return outcome | {"state": state, "message": message}


@task(task_run_name="validate, split, train, evaluate", persist_result=False, **RETRIED)
def fit(workspace: Workspace) -> None:
    """Reproduce the stages up to the evaluation; leaves verdict and metrics as tables."""
    run_stages(workspace, "evaluate")
    validation = _metrics(workspace, "validation")
    word = "passed" if validation["passed"] else "did not pass"
    show_table("validation", [validation], f"The patches of all events together {word}")
    evaluation = _metrics(workspace, "evaluation")
    scored = {"all test patches": evaluation["test"], **evaluation["events"]}
    scored |= {f"{event} (held out)": row for event, row in evaluation["held_out"].items()}
    rows = [
        {"patches of": name, **{key: row.get(key) for key in _SHOWN}}
        for name, row in scored.items()
    ]
    show_table("evaluation", rows, "The candidate and two baselines on the same test patches")


_SHOWN = ("patches", "iou", "f1", "precision", "recall", "otsu_iou", "fitted_threshold_iou")


@task(task_run_name="gate", persist_result=False, **RETRIED)
def judge(workspace: Workspace) -> dict[str, Any]:
    """Note the champion, reproduce the gate; leaves verdict, comparison and worst patches."""
    note_champion(workspace)
    run_stages(workspace, "gate")
    verdict = _metrics(workspace, "gate")
    word, champion = "passed" if verdict["passed"] else "refused", verdict["champion"]
    than = "" if champion else "; there was no champion to compare it with"
    rows = [check.row() for check in read_checks(verdict)]
    show_table("gate", rows, f"The gate {word} the candidate{than}")
    if compared := comparison(verdict, _metrics(workspace, "evaluation")):
        title = f"The candidate and the champion {champion} on the same test patches"
        show_table("champion", compared, title)
    for key, path, title in (
        ("worst-patches", workspace.reports / WORST, "The worst test patches of the candidate"),
        ("model-card", workspace.model / "card.md", "Model card of the candidate"),
    ):
        show_text(key, path.read_text(encoding="utf-8"), title)
    return verdict


@task(task_run_name="register", persist_result=False, **RETRIED)
def register(workspace: Workspace, event: str | None, gate: dict[str, Any]) -> Version:
    """Push, commit and tag the candidate; a refused one is a version too."""
    word = "passed" if gate["passed"] else "refused"
    asked = f" after event {event}" if event else ""
    checks = "\n".join(f"- {check.sentence()}" for check in read_checks(gate))
    version = record_candidate(workspace, f"Retrain{asked}: gate {word}\n\n{checks}")
    get_run_logger().info("registered %s (IoU %s, gate %s)", version.version, version.iou, word)
    return version


@task(task_run_name="promote {version.version}", persist_result=False)
def put_in_production(workspace: Workspace, version: Version) -> None:
    """Assign production by a tag: the one moment of promotion."""
    promote_judged(workspace, version, f"Gate passed, IoU {version.iou:.4f}")
    tell_promoted(version, "sarflood.model.promoted", f"gate passed, IoU {version.iou:.4f}")


@task(task_run_name="record", persist_result=False, **RETRIED)
def record(workspace: Workspace, message: str) -> None:
    """Push and commit what the stages wrote."""
    record_run(workspace, message)


@task(task_run_name="track what was left", persist_result=False, **RETRIED)
def track_untracked(workspace: Workspace) -> None:
    """Track events that an ingest, killed after it had published them, left to itself."""
    listed = git(workspace.root, "ls-tree", "--name-only", "HEAD", "data/events/").split()
    for manifest in sorted(workspace.events.glob("*/event.yaml")):
        event = manifest.parent.name
        if f"data/events/{event}.dvc" in listed:
            continue  # it was pushed before that was committed
        if track_event(workspace, event, f"Ingest event {event}"):
            get_run_logger().warning("event %s was not tracked; it is now", event)


def _refusals(workspace: Workspace) -> list[str]:
    checks = read_checks(_metrics(workspace, "gate"))
    return [check.sentence() for check in checks if not check.passed]


def _metrics(workspace: Workspace, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((workspace.metrics / f"{name}.json").read_text("utf-8"))
    return content


def _known(version: Version) -> str:
    if version.production:
        return f"the present data and settings give {version.version}, which is in production"
    return (
        f"the present data and settings give {version.version}, which was in production before and "
        f"was rolled back; `sarflood promote {version.version}` brings it back"
    )
