"""Take a source in: read, describe, judge, and keep the whole event or nothing of it."""

from __future__ import annotations

import datetime as dt
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from sarflood.errors import DataRefusedError, InputError
from sarflood.ingest.quarantine import Refusal, put_into_quarantine
from sarflood.params import ValidationParams
from sarflood.patches.store import PatchWriter, open_event
from sarflood.raster.decibel import to_db
from sarflood.sources.event import Event, check_event_id
from sarflood.sources.reader import BadSourceError, Facts, Item, RawPatch, Reader
from sarflood.sources.readers import recognise
from sarflood.validation.checkpoint import validate_table
from sarflood.validation.verdict import Verdict
from sarflood.workspace import Workspace

LOG = logging.getLogger(__name__)
EMPTY = "too few pixels have data in all bands"
Progress = Callable[[int, int], object]  # items done, items in all


@dataclass(frozen=True)
class Said:
    """What the user says of an event on the command line, on top of what its layout says."""

    name: str | None = None
    acquired: dt.date | None = None
    region: str | None = None
    hold_out: bool = False


@dataclass(frozen=True)
class Ingested:
    """What became of a source."""

    event: Event
    layout: str
    accepted: int
    refused: int
    empty: int
    verdict: Verdict


def ingest_event(
    workspace: Workspace,
    source: Path,
    event_id: str,
    said: Said,
    params: ValidationParams,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], object] = LOG.warning,
) -> Ingested:
    """Turn a source into `data/events/<id>`, refused patches into `data/quarantine/<id>`.

    Killed at any moment this leaves no event or the whole event. The same source again changes
    nothing.

    Raises:
        InputError: The source is of no known layout, has no readable patch, or the id is taken by
            an event of other content.
        DataRefusedError: More than `max_bad_share` of the patches are bad, or the event as a whole
            is; its files are in quarantine.
    """
    check_event_id(event_id)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    reader = recognise(source)
    facts = reader.facts(source)
    event = _manifest(facts, event_id, said)
    with _staging(workspace, event_id) as staging:
        refusals, items = _read(reader, source, facts, event, staging, params, on_progress)
        index = pd.read_parquet(staging / "index.parquet")
        if index.empty:
            put_into_quarantine(workspace.quarantine / event_id, refusals)
            raise DataRefusedError(_no_patch(event_id, source, refusals))
        verdict = validate_table(index, bands=event.bands, units=event.units, params=params)
        faults = _copies(workspace, event_id, index) | verdict.reasons
        judged_bad = index["id"].isin(faults)
        refusals += [
            Refusal(items[row["item"]], row["id"], tuple(faults[row["id"]]))
            for row in index[judged_bad].to_dict("records")
        ]
        empty = sum(refusal.reasons == (EMPTY,) for refusal in refusals)
        refused = len(refusals) - empty
        # An item is refused as one: what was read of it before the damage is left out, too.
        damaged = {refusal.item.name for refusal in refusals if refusal.patch is None}
        bad = judged_bad | index["item"].isin(damaged)
        share = refused / (int((~bad).sum()) + refused)
        reasons = list(verdict.event_reasons)
        if share > params.max_bad_share:
            limit = f"validation.max_bad_share is {params.max_bad_share:.0%}"
            reasons.append(f"{share:.0%} of the patches are bad ({limit})")
        if reasons:
            whole = [Refusal(item, None, tuple(reasons)) for item in items.values()]
            put_into_quarantine(workspace.quarantine / event_id, [*refusals, *whole])
            raise DataRefusedError(_refused(workspace, event_id, reasons, refusals))
        if bad.any():
            _keep(staging, event, ~bad.to_numpy())
        target = workspace.events / event_id
        known = _is_known(staging, target)
        if refusals:
            put_into_quarantine(workspace.quarantine / event_id, refusals)
        if not known:
            with workspace.exclusive(on_wait):
                _publish(staging, target)
    return Ingested(
        event=event,
        layout=reader.layout,
        accepted=int((~bad).sum()),
        refused=refused,
        empty=empty,
        verdict=verdict,
    )


def _manifest(facts: Facts, event_id: str, said: Said) -> Event:
    return Event(
        id=event_id,
        name=said.name or event_id,
        acquired=said.acquired,
        region=said.region,
        bands=facts.bands,
        units="db" if facts.units == "linear" else facts.units,
        label=facts.label,
        source=facts.origin,
        hold_out=said.hold_out,
    )


@contextmanager
def _staging(workspace: Workspace, event_id: str) -> Iterator[Path]:
    """Give an empty folder on the workspace's own file system; gone at the end.

    One ingest of an event runs at a time; what a killed one has left is cleared away.
    """
    folder = workspace.cache / "ingest" / event_id
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _read(
    reader: Reader,
    source: Path,
    facts: Facts,
    event: Event,
    staging: Path,
    params: ValidationParams,
    on_progress: Progress | None,
) -> tuple[list[Refusal], dict[str, Item]]:
    """Write all readable patches into `staging`; return what could not be read, and the items."""
    items = {item.name: item for item in reader.items(source)}
    refusals: list[Refusal] = []
    with PatchWriter(staging, event, labelled=facts.label is not None) as writer:
        for done, item in enumerate(items.values(), start=1):
            usable, empty = 0, []
            try:
                for patch in reader.read(item):
                    if np.isfinite(patch.image).all(axis=0).mean() >= params.min_valid_share:
                        writer.add(_in_stored_units(patch, facts), item.name)
                        usable += 1
                    else:
                        empty.append(patch.name)
            except BadSourceError as error:
                refusals.append(Refusal(item, None, (str(error),)))
            refusals += [Refusal(item, name, (EMPTY,), keep=not usable) for name in empty]
            if on_progress:
                on_progress(done, len(items))
    return refusals, items


def _in_stored_units(patch: RawPatch, facts: Facts) -> RawPatch:
    return replace(patch, image=to_db(patch.image)) if facts.units == "linear" else patch


def _keep(staging: Path, event: Event, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
    """Write the event in `staging` anew with the rows in `keep` alone."""
    whole = open_event(staging)
    rows = np.flatnonzero(keep)
    kept = staging / "kept"
    kept.mkdir()
    with PatchWriter(kept, event, labelled=whole.masks is not None) as writer:
        writer.copy(whole, rows)
    for path in sorted(kept.iterdir()):
        path.replace(staging / path.name)
    kept.rmdir()


def _copies(workspace: Workspace, event_id: str, index: pd.DataFrame) -> dict[str, list[str]]:
    """Find patches that another event holds already, by their content."""
    faults: dict[str, list[str]] = {}
    for path in sorted(workspace.events.glob("*/index.parquet")):
        other = path.parent.name
        if other != event_id:
            held = index["sha256"].isin(pd.read_parquet(path, columns=["sha256"])["sha256"])
            reason = f"the same image and mask are in event {other} already"
            faults |= {patch: [reason] for patch in index.loc[held, "id"]}
    return faults


def _is_known(staging: Path, target: Path) -> bool:
    """Say whether `target` holds the same event already; an id that is taken is refused."""
    if not target.exists():
        return False
    if not _same_event(staging, target):
        raise InputError(
            f"{target}: this id already names an event of other content; choose another --event id"
        )
    return True


def _publish(staging: Path, target: Path) -> None:
    """Rename `staging` to `target`, for good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _same_event(left: Path, right: Path) -> bool:
    columns = ["id", "sha256"]
    old, new = (
        pd.read_parquet(folder / "index.parquet", columns=columns) for folder in (left, right)
    )
    manifests = [Event.read(folder / "event.yaml") for folder in (left, right)]
    return old.equals(new) and manifests[0] == manifests[1]


def _no_patch(event_id: str, source: Path, refusals: list[Refusal]) -> str:
    first = refusals[0].reasons[0] if refusals else "the source is empty"
    return f"event {event_id}: no usable patch in {source}; the first reason: {first}"


def _refused(
    workspace: Workspace, event_id: str, reasons: list[str], refusals: list[Refusal]
) -> str:
    where = (workspace.quarantine / event_id).relative_to(workspace.root)
    named = [f"  {item.patch or item.item.name}: {item.reasons[0]}" for item in refusals[:5]]
    more = [f"  … and {len(refusals) - 5} more"] if len(refusals) > 5 else []
    head = f"event {event_id} was refused: {'; '.join(reasons)}; see {where}/reasons.jsonl"
    return "\n".join([head, *named, *more])
