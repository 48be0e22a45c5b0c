"""What runs is made equal to what is asked for, without losing a request."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from sarflood.errors import InputError, SarfloodError
from sarflood.files import write_json
from sarflood.monitoring.journal import JOURNAL
from sarflood.params import load_params
from sarflood.serving.access import STAGE
from sarflood.serving.bundle import bundle_folder, is_built
from sarflood.serving.compared import SHADOW
from sarflood.serving.server import HOST, BundleServer, bind
from sarflood.workspace import MODEL_NAME, Workspace

RETRY_S = 60.0  # before a version that did not become ready is tried again
_NOTICED_WITHIN_S = 30.0  # that another version is in production
_LOOK_EVERY_S = 0.2
_BACKLOG = 2048  # connections that wait while no server accepts


class Rollout:
    """Serves one version at a time on a port that stays open from one to the next.

    The port's socket belongs to this process, and each server process gets it. A new one takes
    connections from it only when it is ready and of the right version; the old one is told to
    drain after that. Both have their model in memory meanwhile. Nobody stands in front of them.

    Args:
        workspace: Where the bundles are.
        port: On the loopback.
        token: What the service asks for; "" for nothing.
        address: As it is told to a person.
        say: Is told what happens.

    Raises:
        InputError: Another program has the port.
    """

    def __init__(
        self,
        workspace: Workspace,
        port: int,
        token: str,
        address: str,
        say: Callable[[str], object],
    ) -> None:
        self._workspace, self._port, self._token = workspace, port, token
        self._address, self._say = address, say
        self._ready_within_s = load_params(workspace.params).serving.ready_within_s
        self._public = bind(port)
        self._serving: BundleServer | None = None
        self._draining: list[BundleServer] = []
        self._refused: dict[str, float] = {}  # version: when it is tried again
        self._last_said = ""
        self.log = log_of(workspace, port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("", encoding="utf-8")
        self._note(None)

    def step(self, version: str | None) -> None:
        """Look after the servers, and bring a version to the port if another one is there.

        Raises:
            SarfloodError: It did not get ready, and no other one serves.
        """
        for server in [item for item in self._draining if not item.running]:
            self._draining.remove(server)
            server.close()
        if self._serving and not self._serving.running:
            self._say(f"{self._serving.tag}: ended, and is started again; see {self.log}")
            self._serving.close()
            self._serving = None
        if version is None:
            self._say_once("no version yet")
        elif self._serving is None or self._serving.version != version:
            if not is_built(f"{MODEL_NAME}:{version}", self._workspace.bentos):
                self._say_once(f"{MODEL_NAME}:{version} is not built: `sarflood deploy`")
            elif time.monotonic() >= self._refused.get(version, 0.0):
                self._bring(version)

    def _bring(self, version: str) -> None:
        server = BundleServer(
            bundle_folder(f"{MODEL_NAME}:{version}", self._workspace.bentos),
            self.log,
            self._token,
            public=self._public,
            environment={STAGE: "production", **kept(self._workspace)},
        )
        self._draining.append(server)  # which are ended whatever happens
        try:
            server.wait_until_ready(self._ready_within_s)
        except SarfloodError as error:
            server.close()
            if self._serving is None:
                raise
            self._refused[version] = time.monotonic() + RETRY_S
            self._say(f"{error}; {self._serving.tag} goes on")
            self._note({"version": version, "why": str(error), "at": time.time()})
            return
        self._listen()
        server.accept()
        if self._serving:
            self._serving.drain()
            self._draining.append(self._serving)
        self._draining.remove(server)
        self._serving = server
        self._say(f"{server.tag} answers on {self._address}; log in {self.log}")
        self._note(None)

    def _listen(self) -> None:
        try:
            self._public.listen(_BACKLOG)
        except OSError as error:
            raise InputError(f"port {self._port} of {HOST}: {error.strerror}") from error

    def _say_once(self, line: str) -> None:
        if line != self._last_said:
            self._say(line)
        self._last_said = line

    def _note(self, refused: dict[str, Any] | None) -> None:
        """Write down for other processes what serves, and what was refused last."""
        version = self._serving.version if self._serving else None
        content = {"pid": os.getpid(), "port": self._port, "version": version, "refused": refused}
        write_json(_state_of(self._workspace, self._port), content)

    def close(self) -> None:
        """End all servers."""
        _state_of(self._workspace, self._port).unlink(missing_ok=True)
        self._public.close()
        for server in (*self._draining, *filter(None, [self._serving])):
            server.close()


def kept(workspace: Workspace) -> dict[str, str]:
    """Return what tells a service where to keep what it sees, and where to look for a shadow."""
    return {JOURNAL: str(workspace.journal), SHADOW: str(workspace.shadow)}


def log_of(workspace: Workspace, port: int) -> Path:
    """Return where the service on a port writes its log."""
    return workspace.cache / f"serve-{port}.log"


def _state_of(workspace: Workspace, port: int) -> Path:
    return workspace.cache / f"serve-{port}.json"


def services(workspace: Workspace) -> list[dict[str, Any]]:
    """Return what rollouts of a workspace that are at work have written down.

    Each has its `port`, the `version` that it serves, None before the first, and `refused`: None,
    or the `version` that did not become ready last, `why`, and `at`, in seconds since 1970.
    """
    found = []
    for path in sorted(workspace.cache.glob("serve-*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # it has ended just now
            continue
        if _lives(content["pid"]):  # it was not killed
            found.append(content)
    return found


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_served(workspace: Workspace, version: str) -> list[int]:
    """Wait until each rollout that is at work serves a version; return their ports.

    Raises:
        SarfloodError: One did not become ready with it, or goes on with another one for too long.
    """
    began = time.time()
    limit = load_params(workspace.params).serving.ready_within_s + RETRY_S + _NOTICED_WITHIN_S
    while behind := [item for item in services(workspace) if item["version"] != version]:
        first, late = behind[0], time.time() > began + limit
        refused = first["refused"]
        again = refused and refused["version"] == version and refused["at"] > began
        if again or late:
            why = refused["why"] if again else f"not after {limit:g} s"
            now = first["version"] or "none"
            raise SarfloodError(f"port {first['port']} goes on with {now}, not {version}: {why}")
        time.sleep(_LOOK_EVERY_S)
    return [item["port"] for item in services(workspace)]
