"""A server as a child process: its port, its readiness, and its end."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from sarflood.errors import SarfloodError
from sarflood.process import END_WITHIN_S, child_environment, end_group
from sarflood.serving.recorded import REFUSES

HOST = "127.0.0.1"
_LOOK_EVERY_S = 0.1


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(command: Sequence[str], home: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Start BentoML in a session and a home of its own; end it with its workers at the end.

    Args:
        command: The command.
        home: A folder for BentoML's own files and all temporary ones. No other server may use it:
            BentoML empties the metrics of a home that it starts in.
        log: Where the output goes.
    """
    environment = {"BENTOML_HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=child_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a server and its workers, which BentoML starts in sessions of their own."""
    try:
        workers = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        workers = []
    end_group(process)
    _, alive = psutil.wait_procs(workers, timeout=0)
    for worker in alive:
        worker.kill()
    psutil.wait_procs(alive, timeout=END_WITHIN_S)


def wait_until_ready(
    process: subprocess.Popen[str], port: int, *, ready_within_s: float, name: str, log: Path
) -> None:
    """Wait until `/readyz` says yes.

    Raises:
        SarfloodError: The server ended, refused to serve, or was not ready in time; the message
            has its reason, or the last lines of its log.
    """
    deadline = time.monotonic() + ready_within_s
    while not _is_ready(port):
        try:
            code = process.wait(_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            _raise_refusal(name, log)
            fault = f"not ready within {ready_within_s:g} s"
            if time.monotonic() < deadline:
                continue
        else:
            fault = f"ended with code {code} before it was ready"
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise SarfloodError(f"{name}: {fault}; its log ends with:\n{tail}")


def _raise_refusal(name: str, log: Path) -> None:
    """Raise what the service gave as its reason; BentoML would start it again and again."""
    _, refuses, rest = log.read_text(encoding="utf-8", errors="replace").partition(REFUSES)
    if refuses:
        raise SarfloodError(f"{name}: {refuses}{rest.splitlines()[0] if rest else ''}")


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
