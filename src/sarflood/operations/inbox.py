"""The inbox: a folder into which events are dropped, each a folder, a file or an archive.

A drop is taken once its writer is done: nothing of it is open for writing, and nothing of it has
changed for a while. Drops that were taken in are moved to `done`, refused ones to `refused` with
the reasons beside them. Nothing is deleted.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sarflood.errors import InputError
from sarflood.files import write_text

DONE, REFUSED = "done", "refused"
MOST_ATTEMPTS = 5  # of a drop whose reading kills the process that reads it
# What copying programs call a file that is not whole; the last is rsync's.
_UNFINISHED = re.compile(
    r"\.(part|partial|tmp|temp|crdownload|filepart)$|^\..+\.\w{6}$", re.IGNORECASE
)
_ARCHIVE = re.compile(r"(\.tar)?\.(zip|tgz|tar|gz|bz2|xz|zst|tif|tiff|json)$", re.IGNORECASE)
_LONGEST = 63  # of an event's id


@dataclass(frozen=True)
class Inbox:
    """The folder, and a folder for what is remembered of drops."""

    folder: Path
    memory: Path

    def make(self) -> None:
        """Make the folders."""
        for path in (self.folder, self.folder / DONE, self.folder / REFUSED, self.memory):
            path.mkdir(parents=True, exist_ok=True)

    def drops(self) -> list[Path]:
        """Return what lies there, the oldest first."""
        with os.scandir(self.folder) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime, entry.path)
                for entry in entries
                if entry.name not in (DONE, REFUSED) and not entry.name.startswith(".")
            ]
        return [Path(path) for _, path in sorted(found)]

    def ready(self, quiet_s: float) -> list[Path]:
        """Return the drops whose writers are done.

        Args:
            quiet_s: For how long nothing of a drop may have changed. The time at which a whole
                folder was renamed into the inbox does not count: what is in it is old by then.
        """
        quiet = [drop for drop in self.drops() if _quiet_since(drop) >= quiet_s]
        written = _open_for_writing(self.folder) if quiet else set()
        return [
            drop
            for drop in quiet
            if not any(path == drop or drop in path.parents for path in written)
        ]

    @contextmanager
    def taking_in(self) -> Iterator[None]:
        """Hold the lock that `wait` waits for, while drops are taken in one after the other."""
        with self._lock():
            yield

    def wait(self, within_s: float) -> bool:
        """Wait until no drops are taken in; say whether that is so."""
        try:
            with self._lock().acquire(timeout=within_s):
                return True
        except Timeout:
            return False

    def attempt(self, drop: Path) -> None:
        """Count an attempt to take a drop in, before it is made.

        Raises:
            InputError: It has killed the process that reads it too often.
        """
        file = self._attempts(drop)
        number = 1 + (int(file.read_text("utf-8")) if file.exists() else 0)
        if number > MOST_ATTEMPTS:
            raise InputError(f"{drop.name}: reading it killed the reader {MOST_ATTEMPTS} times")
        write_text(file, str(number))

    def forgive(self, drop: Path) -> None:
        """Forget the attempts: the process lives, so the drop has not killed it."""
        self._attempts(drop).unlink(missing_ok=True)

    def finish(self, drop: Path, reason: str | None = None) -> Path:
        """Move a drop to `done`, or with a reason to `refused`; return where it lies now."""
        folder = self.folder / (REFUSED if reason else DONE)
        target, number = folder / drop.name, 1
        while os.path.lexists(target):
            number += 1
            target = folder / f"{drop.name}.{number}"
        if reason:
            write_text(folder / f"{target.name}.reason.txt", f"{reason}\n")
        drop.rename(target)
        self._attempts(drop).unlink(missing_ok=True)
        return target

    def _lock(self) -> FileLock:
        self.memory.mkdir(parents=True, exist_ok=True)
        return FileLock(self.memory / "taking-in.lock")

    def _attempts(self, drop: Path) -> Path:
        return self.memory / f"{event_id(drop.name)}.attempts"


def event_id(name: str) -> str:
    """Return the id of the event that a drop becomes: its name in small letters, digits, hyphens.

    Raises:
        InputError: Nothing of the name is left.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", _ARCHIVE.sub("", name).lower()).strip("-")
    if not plain:
        raise InputError(f"{name!r}: no event can be called this; use letters, digits and hyphens")
    return plain[:_LONGEST].rstrip("-")


def check_drop(drop: Path) -> None:
    """Check that a drop holds folders and regular files alone.

    Raises:
        InputError: It holds a link, which could lead anywhere, or a pipe, socket or device.
    """
    for path in _everything(drop):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            raise InputError(f"{path.relative_to(drop.parent)}: {kind}; drop the files themselves")


def _everything(drop: Path) -> Iterator[Path]:
    yield drop
    if drop.is_dir() and not drop.is_symlink():
        for folder, folders, files in os.walk(drop):
            for name in (*folders, *files):
                yield Path(folder, name)


def _quiet_since(drop: Path) -> float:
    """Return for how many seconds nothing of a drop has changed; 0 while a part has a name of one.

    Changes are told by the inodes' times, which no copying program sets back.
    """
    newest = 0.0
    for path in _everything(drop):
        if _UNFINISHED.search(path.name):
            return 0.0
        try:
            status = path.lstat()
        except FileNotFoundError:
            return 0.0
        if path != drop or not stat.S_ISDIR(status.st_mode):
            newest = max(newest, status.st_ctime)
    if newest == 0.0:  # an empty folder
        newest = drop.lstat().st_ctime
    return time.time() - newest


def _open_for_writing(folder: Path) -> set[Path]:
    """Return the files below a folder that a process of this machine has open for writing.

    Those of other users and of other machines are not seen; for them `quiet_s` has to do.
    """
    found: set[Path] = set()
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = entry.readlink()
            if folder not in target.parents:
                continue
            info = (entry.parents[1] / "fdinfo" / entry.name).read_text("utf-8")
        except OSError:  # the process has ended, or belongs to somebody else
            continue
        flags = re.search(r"^flags:\s*(\d+)", info, re.MULTILINE)
        if flags and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
            found.add(target)
    return found
