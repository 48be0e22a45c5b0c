"""Serve a bundle of the workspace, or the version in production, whichever that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import watchfiles

from sarflood.errors import SarfloodError
from sarflood.params import load_params
from sarflood.process import git
from sarflood.serving.access import STAGE
from sarflood.serving.bundle import bundle_folder
from sarflood.serving.candidate import Candidate
from sarflood.serving.rollout import Rollout, kept, log_of
from sarflood.serving.server import BundleServer
from sarflood.workspace import Workspace

_LOOK_EVERY_MS = 1000
_SURE_EVERY = 20  # looks: tags that were packed or fetched change no file that is watched


@contextmanager
def serving(
    workspace: Workspace, tag: str, port: int, token: str, stage: str | None
) -> Iterator[BundleServer]:
    """Serve a bundle on a port of the loopback while the block runs; begins when it is ready.

    Args:
        workspace: Where.
        tag: The bundle, such as `flood-unet:v0.3.0`.
        port: The port.
        token: What it asks for; "" for nothing.
        stage: Of the version, such as `production`, for `/model`.

    Raises:
        SarfloodError: It did not get ready.
    """
    log = log_of(workspace, port)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    bundle = bundle_folder(tag, workspace.bentos)
    environment = {STAGE: stage or "", **kept(workspace)}
    server = BundleServer(bundle, log, token, port=port, environment=environment)
    with closing(server):
        server.wait_until_ready(load_params(workspace.params).serving.ready_within_s)
        yield server


def follow(
    workspace: Workspace,
    production: Callable[[], str | None],
    shadowed: Callable[[], str | None],
    port: int,
    token: str,
    address: str,
    say: Callable[[str], object],
) -> None:
    """Serve what is in production until the process is ended; change over when that changes.

    Args:
        workspace: Where.
        production: Says which version is in production.
        shadowed: Says which one gets a copy of what that one is asked.
        port: On the loopback.
        token: What the service asks for; "" for nothing.
        address: As it is told to a person.
        say: Is told what is served.

    Raises:
        InputError: Another program has the port.
        SarfloodError: The first version did not get ready.
    """
    with (
        closing(Rollout(workspace, port, token, address, say)) as rollout,
        closing(Candidate(workspace, rollout.log, token, say)) as candidate,
    ):
        for version in _changes(workspace, production):
            rollout.step(version)
            other = shadowed()
            candidate.step(other if other != version else None)
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
