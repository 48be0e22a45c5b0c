"""DVC stage `validate`: judge the statistics of all accepted events, write Data Docs."""

from __future__ import annotations

import pandas as pd

from sarflood.errors import DataRefusedError, InputError
from sarflood.files import write_json
from sarflood.params import load_params
from sarflood.patches.store import EventPatches, open_events
from sarflood.sources.event import Band, Units
from sarflood.stages import run_stage
from sarflood.validation.checkpoint import validate_table
from sarflood.workspace import Workspace


def validate(workspace: Workspace) -> None:
    """Write `metrics/validation.json` and `reports/validation/`; refuse data that fail.

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
    bands, units = _of_one_kind(workspace, events)
    table = pd.concat([item.index for item in events], ignore_index=True)
    docs = workspace.reports / "validation"
    verdict = validate_table(table, bands=bands, units=units, params=params.validation, docs=docs)
    write_json(workspace.metrics / "validation.json", verdict.as_metrics())
    if not verdict.passed:
        reasons = [*verdict.event_reasons]
        reasons += [f"{patch}: {why[0]}" for patch, why in list(verdict.reasons.items())[:5]]
        raise DataRefusedError(
            f"{workspace.events}: validation failed: {'; '.join(reasons)}; "
            "see reports/validation/index.html"
        )


def _of_one_kind(
    workspace: Workspace, events: list[EventPatches]
) -> tuple[tuple[Band, ...], Units]:
    """Return the bands and units that all events share."""
    manifests = [item.event for item in events]
    kinds = {(item.bands, item.units) for item in manifests}
    labels = {item.label for item in manifests if item.label}
    if len(kinds) > 1 or len(labels) > 1:
        named = "; ".join(
            f"{item.id}: {', '.join(item.bands)} in {item.units}, label {item.label or 'none'}"
            for item in manifests
        )
        raise InputError(
            f"{workspace.events}: events of different bands, units or labels cannot train one "
            f"model ({named}); keep them in workspaces of their own"
        )
    return kinds.pop()


if __name__ == "__main__":
    run_stage(validate)
