"""Any version on any labelled event, without touching the files of the pipeline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sarflood.errors import InputError
from sarflood.evaluation.evaluate import Progress, evaluate
from sarflood.files import sha256
from sarflood.model.package import ModelManifest, load_model
from sarflood.patches.split import HELD_OUT, TEST, TRAIN, split_held_out
from sarflood.patches.store import EventPatches, open_event, open_events
from sarflood.promotion.registry import Version, fetch_split, fetch_version
from sarflood.workspace import Workspace


def score(
    workspace: Workspace, version: Version, event_id: str, on_patches: Progress | None = None
) -> dict[str, Any]:
    """Score a version on one event: on its test patches if it was trained on it, else on all.

    Patches that show the ground of training patches, or are copies of such, are left out. The
    fitted threshold is fitted on the version's own training patches.

    Args:
        workspace: Where version and event are.
        version: Which.
        event_id: A labelled event of `data/events`.
        on_patches: Is told how many of how many patches are done.

    Returns:
        `version`, `event`, `trained_on` (whether the version was trained on the event), the figures
        of `evaluation.json` for one event, `wet_shares`, `outside_permanent_water`,
        `classes` and `fitted_threshold`.

    Raises:
        InputError: The event is not there, has no labels or no patch that may be scored, or other
            bands; or an event that the version was trained on is gone or has changed.
    """
    event = _labelled_event(workspace, event_id)
    model = load_model(fetch_version(workspace, version))
    split = fetch_split(workspace, version)
    known = _events_of(workspace, model.manifest, version)
    trained_on = event_id in known
    if trained_on:
        own = split[split["event"] == event_id]
        own = own[own["split"] == TEST]
    else:
        own = split_held_out(event, list(known.values()), split)
        own = own[own["split"] == HELD_OUT].assign(split=TEST)
    if own.empty:
        raise InputError(
            f"event {event_id}: no patch of it may be scored with {version.version}: "
            + ("it was not split" if trained_on else "all show ground that it was trained on")
        )
    training = split[split["split"] == TRAIN]
    metrics = evaluate(
        model,
        list((known | {event_id: event}).values()),
        pd.concat([training, own], ignore_index=True),
        on_patches,
    ).metrics
    parts = ("wet_shares", "outside_permanent_water", "classes", "fitted_threshold")
    return {
        "version": version.version,
        "event": event_id,
        "trained_on": trained_on,
        **metrics["test"],
        **{name: metrics[name] for name in parts},
    }


def _labelled_event(workspace: Workspace, event_id: str) -> EventPatches:
    event = next((e for e in open_events(workspace.events) if e.event.id == event_id), None)
    if event is None:
        raise InputError(f"event {event_id}: is not there (see `sarflood events`)")
    if event.masks is None:
        raise InputError(f"event {event_id}: has no labels, so nothing can be scored on it")
    return event


def _events_of(
    workspace: Workspace, manifest: ModelManifest, version: Version
) -> dict[str, EventPatches]:
    """Open the events that a version was trained on, as they were."""
    events = {}
    for item in manifest.trained_on:
        folder = workspace.events / item.event
        index = folder / "index.parquet"
        if not index.exists() or sha256(index) != item.index_sha256:
            raise InputError(
                f"{folder}: {version.version} was trained on this event, which "
                f"{'has changed since' if index.exists() else 'is gone'}; bring it back with "
                f"`git checkout {version.tag} -- data/events/{item.event}.dvc` and `dvc checkout`"
            )
        events[item.event] = open_event(folder)
    return events
