"""How a new event resembles the accepted ones: copies in it, and drift of its backscatter."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sarflood.monitoring.drift import drift_of
from sarflood.patches.sketch import near_duplicates
from sarflood.patches.store import open_event
from sarflood.sources.event import Event

_NAMED = 3


def copies_elsewhere(events: Path, event_id: str, index: pd.DataFrame) -> dict[str, list[str]]:
    """Return the patches that another event holds already, by their content, with the reason."""
    faults: dict[str, list[str]] = {}
    for path in _others(events, event_id):
        other = path.parent.name
        held = index["sha256"].isin(pd.read_parquet(path, columns=["sha256"])["sha256"])
        reason = f"the same image and mask are in event {other} already"
        faults |= {patch: [reason] for patch in index.loc[held, "id"]}
    return faults


def likeness_warnings(events: Path, staged: Path) -> list[str]:
    """Say what a person should know of a staged event beside the accepted ones.

    Args:
        events: The folder of the accepted events.
        staged: The new event's folder.
    """
    event = open_event(staged)
    sketches = event.index[["id", "sketch"]]
    warnings = _near_copies(near_duplicates(sketches), "each other")
    reference = []
    for path in _others(events, event.event.id):
        held = pd.read_parquet(path, columns=["id", "sketch"])
        warnings += _near_copies(near_duplicates(sketches, held), f"event {path.parent.name}")
        reference.append(open_event(path.parent))
    return warnings + [item.sentence() for item in drift_of(event, reference) if item.drifted]


def _others(events: Path, event_id: str) -> list[Path]:
    paths = sorted(events.glob("*/index.parquet"))
    return [path for path in paths if path.parent.name != event_id]


def _near_copies(pairs: pd.DataFrame, of: str) -> list[str]:
    if pairs.empty:
        return []
    named = ", ".join(
        f"{pair.first} and {pair.second} ({pair.overlap:.0%})"
        for pair in pairs.head(_NAMED).itertuples()
    )
    more = ", …" if len(pairs) > _NAMED else ""
    return [
        f"{len(pairs)} pairs show the same pixels as {of}, shifted or re-stretched: {named}{more}"
    ]


def event_number(events: Path) -> int:
    """Return the number of the next event to be accepted."""
    numbers = [Event.read(path).number for path in events.glob("*/event.yaml")]
    return 1 + max(numbers, default=0)
