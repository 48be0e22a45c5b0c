"""A version beside the one that serves, which gets a copy of what that one is asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from sarflood.errors import SarfloodError
from sarflood.files import write_json
from sarflood.serving.bundle import bundle_folder, is_built
from sarflood.serving.compared import LIVE
from sarflood.serving.rollout import RETRY_S
from sarflood.serving.server import BundleServer
from sarflood.workspace import MODEL_NAME, Workspace

_NICE = 19  # it gets what processor time the others leave


class Candidate:
    """Runs one version, and says where it is once it is ready.

    Args:
        workspace: Where the bundles are.
        log: Its output is appended.
        token: What the service asks for.
        say: Is told what happens.
    """

    def __init__(
        self, workspace: Workspace, log: Path, token: str, say: Callable[[str], object]
    ) -> None:
        self._workspace, self._log, self._token, self._say = workspace, log, token, say
        self._live = workspace.shadow / LIVE
        self._live.unlink(missing_ok=True)
        self._server: BundleServer | None = None
        self._not_before = 0.0

    def step(self, version: str | None) -> None:
        """Look after the process, and run another version, or none, if that is asked for."""
        if self._server and self._server.version != version:
            self.close()
            self._not_before = 0.0
        if version is None:
            return
        try:
            if self._server is None:
                self._start(version)
            elif self._live.exists():
                self._server.check_running()
            elif self._server.is_ready():
                write_json(self._live, {"port": self._server.port, "version": version})
                self._say(f"{self._server.tag} gets a copy of what is asked")
        except SarfloodError as error:
            self._say(f"{error}; it gets no copy for {RETRY_S:g} s")
            self._not_before = time.monotonic() + RETRY_S
            self.close()

    def _start(self, version: str) -> None:
        tag = f"{MODEL_NAME}:{version}"
        if time.monotonic() >= self._not_before and is_built(tag, self._workspace.bentos):
            bundle = bundle_folder(tag, self._workspace.bentos)
            self._server = BundleServer(bundle, self._log, self._token)
            psutil.Process(self._server.process.pid).nice(_NICE)

    def close(self) -> None:
        """End it."""
        self._live.unlink(missing_ok=True)
        if self._server:
            self._server.close()
            self._server = None
