"""Which files a process opens and whom it calls, seen from outside by `strace`."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sarflood.errors import InputError

_CALL = re.compile(r'\b(open|openat|openat2|creat|connect|execve)\((?:AT_FDCWD, )?"?([^"]*)')
# Python's own code, what PROJ and the C library look up about this machine, and GDAL's rasters in
# memory, whose names it tries as those of files.
_OWN = (sys.prefix, sys.base_prefix, "/sys/devices/system/cpu", "/etc/localtime", "MEM:::")


@dataclass
class Traced:
    """What was seen: each file beyond those expected, each call to another process."""

    odd: set[str] = field(default_factory=set)


@contextmanager
def traced(pid: int, home: Path, log: Path) -> Iterator[Traced]:
    """Watch a process while the block runs.

    Args:
        pid: The process, with all its threads and children.
        home: The folder that it works in, whose files are expected.
        log: Where `strace` writes.

    Raises:
        InputError: There is no `strace`.
    """
    if not shutil.which("strace"):
        raise InputError("strace: not installed; leave --trace away, or `apt-get install strace`")
    calls = "trace=open,openat,openat2,creat,connect,execve"
    command = ["strace", "-f", "-qq", "-s", "300", "-e", calls, "-o", str(log), "-p", str(pid)]
    found = Traced()
    watching = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield found
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate()
    for line in log.read_text("utf-8", "replace").splitlines():
        call = _CALL.search(line)
        if call and not _expected(call[1], call[2], home):
            found.odd.add(f"{call[1]} {call[2]}")


def _expected(call: str, name: str, home: Path) -> bool:
    if call in {"connect", "execve"}:
        return False
    path = Path(name)
    inside = path.is_relative_to(home) or not path.is_absolute()
    return inside or name.startswith(_OWN) or path.name == "proj.ini"
