"""The journal of a service: a line an image, in files that are rotated and bounded."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from sarflood.monitoring.sight import Seen

JOURNAL = "SARFLOOD_JOURNAL"  # names the folder in the environment; without it none is kept
FILES = 8
FILE_BYTES = 1_000_000
_log = logging.getLogger(__name__)
Line = TypeVar("Line", bound=BaseModel)


class Journal:
    """Appends to the newest of at most 8 files of about 1 MB each; safe for several processes.

    What cannot be written is counted in `lost` and logged, but fails nothing.

    Args:
        folder: Holds files `000001.jsonl` and so on; it is made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lost = 0

    def note(self, seen: BaseModel) -> None:
        """Append a line."""
        # Each line begins with its newline: one that a full disk cut short spoils no other.
        line = f"\n{seen.model_dump_json()}".encode()
        try:
            written = self._append(line)
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if written < len(line):
            self._lose("it was written in part; is the disk full?")
        elif self.lost:
            _log.warning("%s: can be written again; %d images lack", self._folder, self.lost)
            self.lost = 0

    def _append(self, line: bytes) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        files = _files(self._folder)
        number = int(files[-1].stem) if files else 1
        if files and files[-1].stat().st_size + len(line) > FILE_BYTES:
            number += 1
            for old in files[: max(len(files) + 1 - FILES, 0)]:
                old.unlink(missing_ok=True)
        path = self._folder / f"{number:06}.jsonl"
        # One write in append mode: lines of several processes do not mix.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            return os.write(handle, line)
        finally:
            os.close(handle)

    def _lose(self, why: str) -> None:
        if not self.lost:
            _log.warning("%s: the journal cannot be written: %s", self._folder, why)
        self.lost += 1


def read_journal(folder: Path, version: str) -> list[Seen]:
    """Return what a version, such as `v0.3.0`, has seen, oldest first; see `read_lines`."""
    found = [seen for seen in read_lines(folder, Seen) if seen.version == version]
    return sorted(found, key=lambda seen: seen.time)


def read_lines(folder: Path, kind: type[Line]) -> list[Line]:
    """Return the lines of a journal, without those that are cut short or damaged.

    Args:
        folder: The journal's.
        kind: Of its lines.
    """
    found = []
    for path in _files(folder):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # rotated away just now
            continue
        for line in content.splitlines():
            try:
                found.append(kind.model_validate_json(line))
            except ValidationError:
                continue
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.jsonl"), key=lambda path: int(path.stem))
