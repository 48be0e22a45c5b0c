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

import pandas as pd
from filelock import FileLock

from sarflood.errors import DataRefusedError, InputError, SarfloodError
from sarflood.ingest.known import Memory, source_key
from sarflood.ingest.likeness import copies_elsewhere, event_number, likeness_warnings
from sarflood.ingest.quarantine import Keep, Refusal, put_into_quarantine
from sarflood.ingest.reading import EMPTY, Progress, Reading, Workers
from sarflood.params import ValidationParams
from sarflood.patches.store import PatchWriter, stored_patches
from sarflood.raster.patch import TWO_CLASSES
from sarflood.sources.event import Event, Units, check_event_id, common_kind
from sarflood.sources.fetch import local_copy
from sarflood.sources.manifest import SourceManifest, read_manifest
from sarflood.sources.reader import Facts, Item
from sarflood.sources.readers import recognise
from sarflood.validation.checkpoint import validate_table
from sarflood.validation.verdict import Verdict
from sarflood.workspace import Workspace

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Said:
    """What the user says of an event on the command line, on top of what its source says.

    Attributes:
        units: Of the pixels; their values must agree.
        reproject: Whether rasters on another grid than their scene are warped onto it.
        classes: Names of the codes of the masks, where they are not dry and wet.
    """

    name: str | None = None
    acquired: dt.date | None = None
    region: str | None = None
    hold_out: bool = False
    units: Units | None = None
    reproject: bool = False
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Ingested:
    """What became of a source.

    Attributes:
        verdict: None where the same source was taken in before, and its pixels not read again.
        warnings: What a person should look at, though the event was accepted.
    """

    event: Event
    layout: str
    accepted: int
    refused: int
    empty: int
    verdict: Verdict | None
    warnings: tuple[str, ...]


def ingest_event(
    workspace: Workspace,
    source: str,
    event_id: str,
    said: Said,
    params: ValidationParams,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], object] = LOG.warning,
    workers: Workers | None = None,
    on_verdict: Callable[[Verdict], object] | None = None,
) -> Ingested:
    """Turn a source into `data/events/<id>`, refused patches into `data/quarantine/<id>`.

    Killed at any moment this leaves no event or the whole event. The same source again changes
    nothing, and its pixels are not read again.

    Args:
        workspace: Where the event goes.
        source: A folder, file or archive, or a STAC item or catalogue, by path or address.
        event_id: The event's id.
        said: What the user says of it.
        params: The limits of validation.
        on_progress: Is told the items done, those in all, and the patches so far, often.
        on_wait: Is told that another command has to end first.
        workers: Who reads and describes the patches; by default threads of this process.
        on_verdict: Is told the verdict, also of an event that is then refused.

    Raises:
        NetworkError: The source's server does not answer.
        InputError: The source is of no known layout, has no readable patch or contradicts what is
            said of it, the id is taken by an event of other content, accepted events with labels
            have other bands, units, labels or classes, or a worker does not see the source.
        DataRefusedError: More than `max_bad_share` of the patches are bad, or the event as a whole
            is; its files are in quarantine.
        SarfloodError: The event cannot be stored, such as on a full disk.
    """
    check_event_id(event_id)
    with _staging(workspace, event_id) as staging:
        root = local_copy(source, staging / "source")
        reader = recognise(root)
        facts = reader.facts(root)
        event = _manifest(root, facts, read_manifest(root), event_id, said)
        if event.label:
            common_kind([event, *_others(workspace.events, event_id)])
        classes = len(event.classes or TWO_CLASSES)
        items = {
            item.name: replace(item, reproject=said.reproject, classes=classes)
            for item in reader.items(root)
        }
        target = workspace.events / event_id
        memory = Memory(workspace.cache / "ingest" / f"{event_id}.json")
        key = source_key(items.values(), root, event=event, said=said, params=params)
        counts = memory.recall(key) if target.exists() else None
        if counts:
            return Ingested(event, reader.layout, verdict=None, warnings=(), **counts)
        read = staging / "read"
        read.mkdir()
        with PatchWriter(read, event) as writer:
            reading = Reading(reader, facts, event, params.min_valid_share)
            refusals = reading.into(writer, list(items.values()), on_progress, workers)
        keep: Keep = "patch" if reader.by_windows else "files"
        done, kept = _judge(
            workspace, read, source, event, items, refusals, params, keep, on_verdict
        )
        known = _is_known(kept, target)
        warnings = () if known else likeness_warnings(workspace.events, kept)
        put_into_quarantine(workspace.quarantine / event_id, done.refusals, read)
        if not known:
            with workspace.exclusive(on_wait):
                _publish(kept, target)
        memory.keep(key, accepted=done.accepted, refused=done.refused, empty=done.empty)
    return Ingested(
        event=event,
        layout=reader.layout,
        accepted=done.accepted,
        refused=done.refused,
        empty=done.empty,
        verdict=done.verdict,
        warnings=(*done.verdict.warnings, *warnings),
    )


def _manifest(
    root: Path, facts: Facts, manifest: SourceManifest, event_id: str, said: Said
) -> Event:
    """Merge what the layout, the source's own manifest and the user say; the last word counts.

    Raises:
        InputError: Units are named that the values do not have, or classes that the masks cannot.
    """
    for who, units in (("event.yaml", manifest.units), ("--units", said.units)):
        if units and units != facts.units:
            raise InputError(
                f"{root}: the values are {facts.units}, {who} says {units}; correct either"
            )
    if manifest.label and not facts.label:
        raise InputError(f"{root}: event.yaml says label {manifest.label}, but there is no mask")
    if said.classes and not facts.several_classes:
        raise InputError(
            f"{root}: --classes {','.join(said.classes)} is for georeferenced scenes with a "
            "mask.tif of their codes; leave it out"
        )
    return Event(
        id=event_id,
        name=said.name or manifest.name or event_id,
        acquired=said.acquired or manifest.acquired,
        region=said.region or manifest.region,
        bands=facts.bands,
        units="db" if facts.units == "linear" else facts.units,
        label=facts.label and (manifest.label or facts.label),
        classes=said.classes,
        permanent_water=facts.permanent_water,
        source=manifest.source or facts.origin,
        hold_out=said.hold_out,
    )


def _others(events: Path, event_id: str) -> list[Event]:
    paths = sorted(events.glob("*/event.yaml"))
    return [Event.read(path) for path in paths if path.parent.name != event_id]


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
        except OSError as error:
            raise SarfloodError(
                f"{event_id}: cannot be stored ({error}); is the disk full?"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Judged:
    accepted: int
    refused: int
    empty: int
    refusals: list[Refusal]
    verdict: Verdict


def _judge(
    workspace: Workspace,
    read: Path,
    source: str,
    event: Event,
    items: dict[str, Item],
    refusals: list[Refusal],
    params: ValidationParams,
    keep: Keep,
    on_verdict: Callable[[Verdict], object] | None,
) -> tuple[_Judged, Path]:
    """Judge what was read; return the counts, and the folder with what is good alone.

    Raises:
        InputError: Nothing could be read.
        DataRefusedError: The event is refused; its files are in quarantine.
    """
    quarantine = workspace.quarantine / event.id
    index = pd.read_parquet(read / "index.parquet")
    if index.empty:
        put_into_quarantine(quarantine, refusals, read)
        raise DataRefusedError(_no_patch(event.id, source, refusals))
    verdict = validate_table(index, bands=event.bands, units=event.units, params=params)
    if on_verdict:
        on_verdict(verdict)
    faults = copies_elsewhere(workspace.events, event.id, index) | verdict.reasons
    judged_bad = index["id"].isin(faults)
    refusals = refusals + [
        Refusal(items[row["item"]], row["id"], tuple(faults[row["id"]]), keep)
        for row in index.loc[judged_bad, ["item", "id"]].to_dict("records")
    ]
    empty = sum(refusal.reasons == (EMPTY,) for refusal in refusals)
    refused = len(refusals) - empty
    # An item is refused as one: what was read of it before the damage is left out, too.
    damaged = {refusal.item.name for refusal in refusals if refusal.patch is None}
    bad = judged_bad | index["item"].isin(damaged)
    accepted = int((~bad).sum())
    share = refused / (accepted + refused)
    reasons = list(verdict.event_reasons)
    if share > params.max_bad_share:
        limit = f"validation.max_bad_share is {params.max_bad_share:.0%}"
        reasons.append(f"{share:.0%} of the patches are bad ({limit})")
    if reasons:
        whole = [Refusal(item, None, tuple(reasons)) for item in items.values()]
        put_into_quarantine(quarantine, [*refusals, *whole], read)
        raise DataRefusedError(_refused(workspace, event.id, reasons, refusals))
    kept = _kept(read, event, set(index.loc[bad, "id"])) if bad.any() else read
    return _Judged(accepted, refused, empty, refusals, verdict), kept


def _kept(read: Path, event: Event, bad: set[str]) -> Path:
    """Write the patches in `read` that are not bad into a folder beside it."""
    kept = read.with_name("kept")
    kept.mkdir()
    with PatchWriter(kept, event) as writer:
        for patch in stored_patches(read):
            if patch.row["id"] not in bad:
                writer.write(patch)
    return kept


def _is_known(kept: Path, target: Path) -> bool:
    """Say whether `target` holds the same event already; an id that is taken is refused."""
    if not target.exists():
        return False
    if not _same_event(kept, target):
        raise InputError(
            f"{target}: this id already names an event of other content; choose another --event id"
        )
    return True


def _same_event(left: Path, right: Path) -> bool:
    columns = ["id", "sha256"]
    old, new = (
        pd.read_parquet(folder / "index.parquet", columns=columns) for folder in (left, right)
    )
    one, other = (
        Event.read(folder / "event.yaml").model_copy(update={"number": 0})
        for folder in (left, right)
    )
    return old.equals(new) and one == other


def _publish(kept: Path, target: Path) -> None:
    """Give the event its number and rename it to `target`, for good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest = kept / "event.yaml"
    number = event_number(target.parent)
    Event.read(manifest).model_copy(update={"number": number}).write(manifest)
    kept.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _no_patch(event_id: str, source: str, refusals: list[Refusal]) -> str:
    first = refusals[0].reasons[0] if refusals else "the source is empty"
    return f"event {event_id}: no usable patch in {source}; the first reason: {first}"


def _refused(
    workspace: Workspace, event_id: str, reasons: list[str], refusals: list[Refusal]
) -> str:
    where = (workspace.quarantine / event_id).relative_to(workspace.root)
    named = [f"  {item.patch or item.item.name}: {item.reasons[0]}" for item in refusals[:5]]
    more = [f"  … and {len(refusals) - 5} more"] if len(refusals) > 5 else []
    head = f"event {event_id} was refused: {'; '.join(reasons)}; see {where}/index.html"
    return "\n".join([head, *named, *more])
