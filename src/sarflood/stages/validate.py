"""DVC stage `validate`: judge the statistics of all accepted events, write Data Docs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from sarflood.errors import DataRefusedError, InputError
from sarflood.files import write_json
from sarflood.monitoring.drift import drift_of
from sarflood.params import load_params
from sarflood.patches.sketch import near_duplicates
from sarflood.patches.store import EventPatches, open_events
from sarflood.sources.event import common_kind
from sarflood.stages import run_stage, warn
from sarflood.validation.checkpoint import validate_table
from sarflood.validation.docs import add_page
from sarflood.validation.pictures import Picture, write_pictures
from sarflood.validation.verdict import Verdict
from sarflood.workspace import Workspace


def validate(workspace: Workspace) -> None:
    """Write `metrics/validation.json` and `reports/validation/`; refuse data that fail.

    The metrics also hold the near-duplicates among all events, and each event's drift against those
    that were accepted before it.

    Raises:
        InputError: There is no event, or the events differ in bands or units.
        DataRefusedError: A critical expectation failed.
    """
    params = load_params(workspace.params)
    events = open_events(workspace.events)
    if not events:
        raise InputError(
            f"{workspace.events}: no event yet; `sarflood ingest SOURCE --event ID` brings one in"
        )
    bands, units = common_kind(item.event for item in events)
    for item in events:
        if (item.event.bands, item.event.units) != (bands, units):
            warn(f"event {item.event.id} has other bands or units: judged when it came, not here")
    events = [item for item in events if (item.event.bands, item.event.units) == (bands, units)]
    table = pd.concat([item.index for item in events], ignore_index=True)
    docs = workspace.reports / "validation"
    verdict = validate_table(table, bands=bands, units=units, params=params.validation, docs=docs)
    write_pictures(
        docs / "patches.html",
        "Patches to look at",
        "Accepted patches of which an expectation failed or warns.",
        _pictures(events, verdict),
    )
    add_page(docs, "patches.html", "Pictures of the patches to look at")
    for warning in verdict.warnings:
        warn(warning)
    metrics: dict[str, Any] = {
        **verdict.as_metrics(),
        "near_duplicates": len(near_duplicates(table[["id", "sketch"]])),
        "drift": _drift(events),
    }
    write_json(workspace.metrics / "validation.json", metrics)
    if not verdict.passed:
        reasons = [*verdict.event_reasons]
        reasons += [f"{patch}: {why[0]}" for patch, why in list(verdict.reasons.items())[:5]]
        raise DataRefusedError(
            f"{workspace.events}: validation failed: {'; '.join(reasons)}; "
            "see reports/validation/index.html"
        )


def _drift(events: list[EventPatches]) -> dict[str, dict[str, dict[str, float]]]:
    """Return PSI and KS of each band, by event, against the events accepted before it."""
    drift = {}
    for item in events:
        earlier = [other for other in events if other.event.number < item.event.number]
        found = [asdict(band) for band in drift_of(item, earlier)]
        drift[item.event.id] = {
            str(band.pop("band")): {name: round(value, 4) for name, value in band.items()}
            for band in found
        }
    return drift


def _pictures(events: list[EventPatches], verdict: Verdict) -> list[Picture]:
    """Return the patches that an expectation of any severity names."""
    reasons: dict[str, list[str]] = {}
    for result in verdict.expectations:
        if not result.success and result.scope == "patch":
            for patch in result.unexpected:
                reasons.setdefault(patch, []).append(result.reason)
    pictures = []
    for item in events:
        ids = item.index["id"]
        for position in np.flatnonzero(ids.isin(reasons)):
            name = ids.iloc[position]
            image = item.images[position]
            mask = None if item.masks is None else item.masks[position]
            why = tuple(reasons[name])
            pictures.append(Picture(name, why, item.event.bands, image, mask))
    return pictures


if __name__ == "__main__":
    run_stage(validate)
