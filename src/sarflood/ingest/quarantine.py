"""Quarantine: each refused source file as it came, with its reasons. Nothing is ever lost."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sarflood.files import replacing, write_text
from sarflood.sources.reader import Item


@dataclass(frozen=True)
class Refusal:
    """Why one item, or one patch of it, was not accepted.

    `keep` says whether the item's files are copied: an empty patch at a scene's edge is only noted.
    """

    item: Item
    patch: str | None
    reasons: tuple[str, ...]
    keep: bool = True


def put_into_quarantine(folder: Path, refusals: Iterable[Refusal]) -> None:
    """Copy the refused items' files below `folder/files` and note the reasons in `reasons.jsonl`.

    Args:
        folder: `data/quarantine/<id>`; what is there from an earlier attempt stays.
        refusals: In the order in which they are noted; one that was noted before is not repeated.
    """
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
