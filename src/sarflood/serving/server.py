"""A bundle's server as a child process: its ports, its readiness, and its end."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from sarflood.errors import InputError, SarfloodError
from sarflood.monitoring.journal import JOURNAL
from sarflood.process import child_environment, end_group
from sarflood.serving.access import REFUSES, STAGE, bearer, token_environment
from sarflood.serving.compared import SHADOW

HOST = "127.0.0.1"
_RUN = Path(__file__).with_name("run.py")
_LOOK_EVERY_S = 0.1


def bind(port: int = 0) -> socket.socket:
    """Return a socket that is bound to a port of the loopback, and does not listen yet.

    Args:
        port: The port; 0 for any that is free.

    Raises:
        InputError: Another program listens there, or it takes more rights than ours.
    """
    bound = socket.socket()
    # As servers do: connections that have ended do not keep the port, only who listens does.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        raise InputError(
            f"port {port} of {HOST}: {error.strerror}; name another with --port"
        ) from error
    return bound


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with bind() as probe:
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Check that a server may listen on a port of the loopback; raises as `bind`."""
    bind(port).close()


class BundleServer:
    """A bundle's server, a child process with a home of its own (`serving/run.py`).

    It listens on its own port as soon as its model has answered its recorded patches, and takes
    connections from the public socket only from `accept` to `drain`.

    Args:
        bundle: The bundle's folder, which its tag names.
        log: Its output is appended.
        token: What it asks clients for; "" for nothing.
        port: Its own, on the loopback; 0 for any that is free.
        public: A bound socket, which several servers may share.
        environment: More for the child.
    """

    def __init__(
        self,
        bundle: Path,
        log: Path,
        token: str,
        *,
        port: int = 0,
        public: socket.socket | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.tag = f"{bundle.parent.name}:{bundle.name}"
        self.version = bundle.name
        self._token, self._log = token, log
        self._home = tempfile.TemporaryDirectory(prefix="sarflood-serve-")
        home = Path(self._home.name)
        metrics = home / "metrics"
        metrics.mkdir()
        with bind(port) as private, log.open("a", encoding="utf-8") as output:
            self._log_from = output.tell()
            self.port = int(private.getsockname()[1])
            sockets = [item.fileno() for item in (private, public) if item]
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_RUN), str(bundle.resolve()), *map(str, sockets)],
                cwd=home,
                env=child_environment(
                    {
                        "BENTOML_HOME": str(home),
                        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
                        "TMPDIR": str(home),
                        "PYTHONDONTWRITEBYTECODE": "1",
                        JOURNAL: "",
                        STAGE: "",
                        SHADOW: "",
                        **token_environment(token),
                        **(environment or {}),
                    }
                ),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=sockets,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def check_running(self) -> None:
        """Raise SarfloodError if the process has ended, with the last lines of its log."""
        code = self.process.poll()
        if code is not None:
            raise self._fault(f"ended with code {code}")

    def is_ready(self) -> bool:
        """Say whether `/readyz` says yes.

        Raises:
            SarfloodError: It has ended, or is of another version than its tag says.
        """
        self.check_running()
        if get(self.port, "/readyz") is None:
            return False
        try:
            answered = json.loads(get(self.port, "/model", self._token) or b"{}")["version"]
        except (ValueError, KeyError, TypeError):
            answered = "none that it can name"
        if answered != self.version:
            raise SarfloodError(f"{self.tag}: it is of another version: {answered}")
        return True

    def wait_until_ready(self, within_s: float) -> None:
        """Wait until it is ready.

        Raises:
            SarfloodError: It ended, refused to serve, was not ready in time, or is of another
                version; the message has its reason, or the last lines of its log.
        """
        deadline = time.monotonic() + within_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise self._fault(f"not ready within {within_s:g} s")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_LOOK_EVERY_S)

    def _fault(self, what: str) -> SarfloodError:
        with self._log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self._log_from)
            said = file.read()
        _, refuses, rest = said.partition(REFUSES)
        if refuses:
            return SarfloodError(f"{self.tag}: {refuses}{rest.partition(chr(10))[0]}")
        tail = "\n".join(said.splitlines()[-15:])
        return SarfloodError(f"{self.tag}: {what}; its log ends with:\n{tail}")

    def accept(self) -> None:
        """Take connections from the public socket."""
        self._tell("accept")

    def drain(self) -> None:
        """Take no more connections; the process ends with the last of those that it has."""
        self._tell("drain")

    def _tell(self, word: str) -> None:
        with suppress(BrokenPipeError):  # it has ended, which its owner sees
            print(word, file=self.process.stdin, flush=True)

    def close(self) -> None:
        """End it, and remove its home."""
        with suppress(BrokenPipeError):
            if self.process.stdin:
                self.process.stdin.close()
        end_group(self.process)
        self._home.cleanup()


def get(port: int, path: str, token: str = "") -> bytes | None:
    """Return the body of a good answer from a port of the loopback; None of any other, or none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path, headers=bearer(token))
        response = connection.getresponse()
        return response.read() if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
