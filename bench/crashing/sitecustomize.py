"""Loaded by every Python that `bench.crash` starts: notes each write, and kills at the one chosen.

An audit hook sees what Python is about to write in the workspace or its remote, and each program
that it is about to start. So the product itself has nothing in it that could be armed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

LOG, AT, ROOT = (os.environ.get(f"CRASH_{name}", "") for name in ("LOG", "AT", "ROOT"))
RECORD = 160  # bytes of a line of the log, so that its length tells how many there are
WRITES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.link": 1, "os.symlink": 1}
IGNORED = (".prefect", "__pycache__", "/serve-", ".lock")
if LOG:
    os.environ.setdefault("CRASH_TOP", str(os.getpid()))  # the children inherit it


def _what(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Name what is about to be written, as seen from the root; None where it is nothing."""
    if event == "subprocess.Popen":
        words = [Path(str(word)).name for word in arguments[1]]
        words = words[1:] if words[0].startswith("python") else words
        return f"start {' '.join(words[:5])}"
    if event == "open" and not _writes(arguments[2]):
        return None
    if event == "os.remove" and arguments[1] != -1:  # within a folder that is being removed
        return None
    path = arguments[WRITES.get(event, 0)]
    if not isinstance(path, str | bytes | os.PathLike):  # a file descriptor
        return None
    name = str(Path(os.fsdecode(path)).absolute())
    inside = name.removeprefix(ROOT)
    if inside == name or any(part in inside for part in IGNORED):
        return None
    return f"{event.removeprefix('os.')} {inside.lstrip('/')}"


def _writes(flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in {"open", "subprocess.Popen", *WRITES}:
        return
    what = _what(event, arguments)
    if what is None:
        return
    line = " ".join(what.split()).encode(errors="replace")[: RECORD - 1].ljust(RECORD - 1) + b"\n"
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)
    number = os.lseek(log, 0, os.SEEK_CUR) // RECORD
    os.close(log)
    if AT and number == int(AT):
        _kill_all()


def _kill_all() -> None:
    """Kill the whole tree of processes, as a machine does that loses its power."""
    top = int(os.environ["CRASH_TOP"])
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int((path / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(path.name))
    tree, found = [], [top]
    while found:
        process = found.pop()
        tree.append(process)
        found += children.get(process, [])
    own = os.getpid()
    for process in [item for item in tree if item != own] + [own]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


if LOG:
    sys.addaudithook(_hook)
