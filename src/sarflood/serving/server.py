"""A server as a child process: its port, its readiness, and its end."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from sarflood.errors import InputError, SarfloodError
from sarflood.monitoring.journal import JOURNAL
from sarflood.process import END_WITHIN_S, child_environment, end_group
from sarflood.serving.recorded import REFUSES

HOST = "127.0.0.1"
_LOOK_EVERY_S = 0.1


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Check that a server may listen on a port of the loopback.

    Raises:
        InputError: Another program listens there, or it takes more rights than ours.
    """
    with socket.socket() as probe:
        # As servers do: connections that have ended do not keep the port, only who listens does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"port {port} of {HOST}: {error.strerror}; name another with --port"
            ) from error


@contextmanager
def server(
    command: Sequence[str], home: Path, log: Path, journal: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start BentoML in a session and a home of its own; end it with its workers at the end.

    Args:
        command: The command.
        home: A folder for BentoML's own files and all temporary ones. No other server may use it:
            BentoML empties the metrics of a home that it starts in.
        log: Where the output goes.
        journal: Where the service keeps the statistics of what it maps; by default it keeps none.
    """
    environment = {
        "BENTOML_HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        JOURNAL: str(journal or ""),
    }
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
    process: subprocess.Popen[str], port: int, *, ready_within_s: float, tag: str, log: Path
) -> None:
    """Wait until `/readyz` says yes and `/model` names the version that was asked for.

    Args:
        process: The server.
        port: Where it listens on the loopback.
        ready_within_s: How long it may take.
        tag: The bundle, such as `flood-unet:v0.3.0`.
        log: The server's output.

    Raises:
        SarfloodError: The server ended, refused to serve, was not ready in time, or is of another
            version; the message has its reason, or the last lines of its log.
    """
    deadline = time.monotonic() + ready_within_s
    while not (get(port, "/readyz") is not None and process.poll() is None):
        try:
            code = process.wait(_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            _raise_refusal(tag, log)
            fault = f"not ready within {ready_within_s:g} s"
            if time.monotonic() < deadline:
                continue
        else:
            fault = f"ended with code {code} before it was ready"
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise SarfloodError(f"{tag}: {fault}; its log ends with:\n{tail}")
    _check_version(port, tag)


def _check_version(port: int, tag: str) -> None:
    try:
        answered = json.loads(get(port, "/model") or b"{}")["version"]
    except (ValueError, KeyError, TypeError):
        answered = "none that it can name"
    if answered != tag.partition(":")[2]:
        raise SarfloodError(f"{tag}: what answers on port {port} is of another version: {answered}")


def _raise_refusal(tag: str, log: Path) -> None:
    """Raise what the service gave as its reason; BentoML would start it again and again."""
    _, refuses, rest = log.read_text(encoding="utf-8", errors="replace").partition(REFUSES)
    if refuses:
        raise SarfloodError(f"{tag}: {refuses}{rest.splitlines()[0] if rest else ''}")


def get(port: int, path: str) -> bytes | None:
    """Return the body of a good answer from a port of the loopback; None of any other, or none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
