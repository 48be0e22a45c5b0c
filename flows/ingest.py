"""Flow `ingest`: a source becomes an accepted event, or a refusal with reasons."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.retrain import retrain
from flows.support import RETRIED, dask_workers, open_workspace, show_link, show_table, tell
from sarflood.errors import DataRefusedError
from sarflood.ingest.ingest import Ingested, Said, ingest_event
from sarflood.ingest.track import track_event
from sarflood.params import load_params
from sarflood.sources.event import as_classes, as_units
from sarflood.validation.verdict import Verdict
from sarflood.workspace import Workspace

SAY_EVERY_S = 5.0  # how long reading goes on without a word


@flow(name="ingest", flow_run_name="ingest {event}", validate_parameters=False)
def ingest(
    source: str,
    event: str,
    name: str | None = None,
    acquired: dt.date | None = None,
    region: str | None = None,
    hold_out: bool = False,
    units: str | None = None,
    reproject: bool = False,
    classes: str | None = None,
    retrain_after: bool = False,
    workspace: str | None = None,
) -> State[dict[str, Any]]:
    """Read, validate and keep an event; with `retrain_after`, its arrival starts a retraining.

    Raises:
        DataRefusedError: The event is refused; the run's state is `Refused`.
    """
    place = open_workspace(workspace)
    said = Said(name, acquired, region, hold_out, as_units(units), reproject, as_classes(classes))
    try:
        done = take_in(place, source, event, said)
    except DataRefusedError as error:
        tell("sarflood.event.refused", f"sarflood.event.{event}", {"why": str(error)})
        get_run_logger().error("%s", error)
        return Failed(name="Refused", message=str(error), data=error)
    changed = track(place, done)
    outcome: dict[str, Any] = {
        "event": event,
        "layout": done.layout,
        "accepted": done.accepted,
        "refused": done.refused,
        "empty": done.empty,
        "changed": changed,
        "warnings": list(done.warnings),
    }
    if retrain_after:
        outcome["retrain"] = retrain(event=event, workspace=str(place.root))
    state = "Accepted" if changed else "Nothing new"
    return Completed(name=state, message=_sentence(done), data=outcome)


@task(task_run_name="read and validate {event}", persist_result=False, **RETRIED)
def take_in(workspace: Workspace, source: str, event: str, said: Said) -> Ingested:
    """Read the source patch by patch and judge it; leaves the validation table."""
    logger = get_run_logger()

    said_last = time.monotonic()

    def progress(done: int, total: int, patches: int) -> None:
        nonlocal said_last
        if done == total or time.monotonic() - said_last >= SAY_EVERY_S:
            said_last = time.monotonic()
            logger.info("%s: %d of %d items read, %d patches", event, done, total, patches)

    verdicts: list[Verdict] = []
    params = load_params(workspace.params).validation
    try:
        with dask_workers(workspace) as workers:
            done = ingest_event(
                *(workspace, source, event, said, params, progress, logger.warning, workers),
                on_verdict=verdicts.append,
            )
    except DataRefusedError as error:
        _show(workspace, event, verdicts, str(error).splitlines()[0])
        raise
    for warning in done.warnings:
        logger.warning("%s: %s", event, warning)
    _show(workspace, event, verdicts, _sentence(done))
    return done


def _show(workspace: Workspace, event: str, verdicts: list[Verdict], sentence: str) -> None:
    """Leave the verdict as a table, and a link to pictures of what was refused."""
    rows = [
        {
            "expectation": item.name,
            "group": item.group,
            "severity": item.severity,
            "passed": item.success,
            "patches that fail": item.unexpected_count,
            "such as": ", ".join(item.examples),
        }
        for verdict in verdicts
        for item in sorted(verdict.expectations, key=lambda item: item.success)
    ]
    if rows:
        show_table(f"validation-{event}", rows, sentence)
    page = workspace.quarantine / event / "index.html"
    if page.exists():
        show_link(
            f"quarantine-{event}",
            f"quarantine/{event}/index.html",
            f"Quarantine of {event}",
            "Pictures of what was refused, now or earlier, with the reasons",
        )


@task(task_run_name="track", persist_result=False, **RETRIED)
def track(workspace: Workspace, done: Ingested) -> bool:
    """Hand the event to DVC and git, and tell Prefect of it; say whether that was new."""
    event = done.event.id
    with workspace.exclusive(get_run_logger().warning):
        new = track_event(workspace, event, f"Ingest event {event}: {done.accepted} patches")
    if new:
        tell(
            "sarflood.event.ingested",
            f"sarflood.event.{event}",
            {"accepted": done.accepted, "refused": done.refused},
            event_id=event,
        )
    return new


def _sentence(done: Ingested) -> str:
    text = f"{done.event.id} ({done.layout}): {done.accepted} patches accepted"
    if done.refused:
        text += f", {done.refused} in quarantine"
    if done.empty:
        text += f", {done.empty} with too little data left out"
    if done.warnings:
        text += f"; {len(done.warnings)} warnings: {'; '.join(done.warnings)}"
    return text
