"""Quarantine: each refused source file as it came, with its reasons. Nothing is ever lost."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sarflood.files import replacing, write_text
from sarflood.patches.store import stored_patches
from sarflood.sources.event import Event
from sarflood.sources.reader import Item
from sarflood.validation.pictures import MOST, Picture, write_pictures


@dataclass(frozen=True)
class Refusal:
    """Why one item, or one patch of it, was not accepted.

    `keep` says whether the item's files are copied: an empty patch at a scene's edge is only noted.
    """

    item: Item
    patch: str | None
    reasons: tuple[str, ...]
    keep: bool = True


def put_into_quarantine(folder: Path, refusals: Sequence[Refusal], read: Path) -> None:
    """Copy the refused items' files below `folder/files` and note the reasons.

    `reasons.jsonl` has them all; `index.html` shows the worst patches beside them.

    Args:
        folder: `data/quarantine/<id>`; what is there from an earlier attempt stays.
        refusals: In the order in which they are noted; one that was noted before is not repeated.
        read: The patches that could be read, as `PatchWriter` leaves them.
    """
    if not refusals:
        return
    notes = folder / "reasons.jsonl"
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    for refusal in refusals:
        item = refusal.item
        kept = [_copy(path, folder / "files", item.root) for path in _inside(item) if refusal.keep]
        note = {
            "item": item.name,
            "patch": refusal.patch,
            "reasons": list(refusal.reasons),
            "files": [path.relative_to(folder).as_posix() for path in kept],
        }
        lines.append(json.dumps(note, ensure_ascii=False))
    write_text(notes, "".join(f"{line}\n" for line in dict.fromkeys(lines)))
    shown = _pictures(refusals, read)
    if shown:
        event = folder.name
        lead = f"What was refused of event {event}, as it was read; the files lie beside this page."
        write_pictures(folder / "index.html", f"Quarantine: {event}", lead, shown)


def _pictures(refusals: Sequence[Refusal], read: Path) -> list[Picture]:
    """Return the refused patches, with pictures where one was read."""
    faults = [item for item in refusals if item.keep]
    wanted = {item.patch: item for item in sorted(faults, key=lambda item: -len(item.reasons))}
    wanted = dict(list(wanted.items())[: MOST + 1])
    pictures = [Picture(item.item.name, item.reasons) for item in faults if item.patch is None]
    unseen = [item for item in faults if item.patch is not None and item.patch not in wanted]
    pictures += [Picture(str(item.patch), item.reasons) for item in unseen]
    bands = Event.read(read / "event.yaml").bands
    for patch in stored_patches(read) if wanted else ():
        if found := wanted.pop(patch.row["id"], None):
            picture = Picture(patch.row["id"], found.reasons, bands, patch.image, patch.mask)
            pictures.append(picture)
    return pictures


def _inside(item: Item) -> list[Path]:
    """Return the files that are there, without links to what lies outside of the source."""
    root = item.root.resolve()
    return [path for path in item.files if path.is_file() and path.resolve().is_relative_to(root)]


def _copy(path: Path, folder: Path, root: Path) -> Path:
    """Copy a file below `folder`; another file of the same name is not overwritten."""
    inside = path.relative_to(root) if path != root else Path(path.name)
    target = folder / inside
    number = 1
    while target.exists() and not filecmp.cmp(path, target, shallow=False):
        number += 1
        target = folder / inside.with_name(f"{path.stem}.{number}{path.suffix}")
    if not target.exists():
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
    return target
