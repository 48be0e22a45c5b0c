"""What was taken in before: the same source again needs no second reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarflood import __version__
from sarflood.files import sha256, write_json
from sarflood.sources.manifest import MANIFEST
from sarflood.sources.reader import Item


@dataclass(frozen=True)
class Memory:
    """A note of the last ingest of an event, in the workspace's cache.

    Attributes:
        path: The note.
    """

    path: Path

    def recall(self, key: str) -> dict[str, int] | None:
        """Return the counts that were noted under `key`; None where nothing or another was."""
        try:
            note = json.loads(self.path.read_text(encoding="utf-8"))
            counts: dict[str, int] = {name: int(value) for name, value in note["counts"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # a cache: what cannot be read is made again
        return counts if note.get("key") == key else None

    def keep(self, key: str, **counts: int) -> None:
        """Note the counts of an ingest."""
        write_json(self.path, {"key": key, "counts": counts})


def source_key(items: Iterable[Item], root: Path, **settings: Any) -> str:
    """Return a hash of all that an ingest depends on: the files' names and bytes, and settings."""
    digest = hashlib.sha256(f"{__version__} {sorted(settings.items())!r}".encode())
    manifest = root / MANIFEST
    files = [path for item in items for path in item.files if path.is_file()]
    for path in [*files, *([manifest] if manifest.is_file() else [])]:
        digest.update(f"{path.name} {sha256(path)}\n".encode())
    return digest.hexdigest()
