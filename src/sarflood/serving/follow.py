"""Serve a bundle of the workspace, or the version in production, whichever that is."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import watchfiles

from sarflood.errors import SarfloodError
from sarflood.params import load_params
from sarflood.process import git
from sarflood.serving.bundle import bundle_folder, is_built, serve_command
from sarflood.serving.server import server, wait_until_ready
from sarflood.workspace import MODEL_NAME, Workspace

_LOOK_EVERY_MS = 1000
_SURE_EVERY = 20  # looks: tags that were packed or fetched change no file that is watched


def log_of(workspace: Workspace, port: int) -> Path:
    """Return where the service on a port writes its log."""
    return workspace.cache / f"serve-{port}.log"


@contextmanager
def serving(workspace: Workspace, tag: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """Serve a bundle on a port of the loopback while the block runs; begins when it is ready.

    Raises:
        SarfloodError: It did not get ready.
    """
    log = log_of(workspace, port)
    limit = load_params(workspace.params).serving.ready_within_s
    command = serve_command(str(bundle_folder(tag, workspace.bentos)), port)
    with (
        tempfile.TemporaryDirectory(prefix="sarflood-serve-") as home,
        server(command, Path(home), log, workspace.journal) as process,
    ):
        wait_until_ready(process, port, ready_within_s=limit, tag=tag, log=log)
        yield process


def follow(
    workspace: Workspace,
    production: Callable[[], str | None],
    port: int,
    say: Callable[[str], object],
) -> None:
    """Serve what is in production until the process is ended; change over when that changes.

    The old version is ended before the new one starts: both would listen on one port.

    Args:
        workspace: Where.
        production: Says which version is in production.
        port: On the loopback.
        say: Is told what is served.

    Raises:
        SarfloodError: The service ended, or did not get ready.
    """
    log = log_of(workspace, port)
    waiting = ""
    for version in _changes(workspace, production):
        tag = f"{MODEL_NAME}:{version}"
        if version is None or not is_built(tag, workspace.bentos):
            wanted = f"{tag} is not built: `sarflood deploy`" if version else "no version yet"
            if wanted != waiting:
                say(wanted)
            waiting = wanted
            continue
        waiting = ""
        with serving(workspace, tag, port) as process:
            say(f"{tag} answers on http://127.0.0.1:{port}; log in {log}")
            for now in _changes(workspace, production):
                if process.poll() is not None:
                    raise SarfloodError(f"{tag}: the service ended; see {log}")
                if now not in (version, None) and is_built(f"{MODEL_NAME}:{now}", workspace.bentos):
                    break
    raise SarfloodError("the tags could not be watched")


def _changes(workspace: Workspace, production: Callable[[], str | None]) -> Iterator[str | None]:
    """Give the version in production, at once and then each second.

    Tags are read when a file of theirs has changed, and now and then.
    """
    tags = workspace.root / git(workspace.root, "rev-parse", "--git-common-dir").strip() / "refs"
    version = production()
    yield version
    looks = watchfiles.watch(tags, rust_timeout=_LOOK_EVERY_MS, yield_on_timeout=True)
    for number, changed in enumerate(looks):
        if changed or number % _SURE_EVERY == 0:
            version = production()
        yield version
