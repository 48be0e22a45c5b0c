"""Where things lie in a workspace, and which commit it stands on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sarflood.errors import InputError
from sarflood.process import clear_git_locks, end_processes, git, orphans

MODEL_NAME = "flood-unet"
NOBODY = "sarflood"  # git's user in a workspace whose maker has told git no name


@dataclass(frozen=True)
class Workspace:
    """A folder with `dvc.yaml` and `params.yaml`, and the names of all that lies in it."""

    root: Path

    @property
    def params(self) -> Path:
        """The settings."""
        return self.root / "params.yaml"

    @property
    def events(self) -> Path:
        """Accepted events, a folder each."""
        return self.root / "data" / "events"

    @property
    def quarantine(self) -> Path:
        """Refused source files, a folder an event."""
        return self.root / "data" / "quarantine"

    @property
    def inbox(self) -> Path:
        """Where events are dropped, see `operations.inbox`."""
        return self.root / "inbox"

    @property
    def split(self) -> Path:
        """The split of every patch: `id`, `event`, `split`."""
        return self.root / "data" / "split.parquet"

    @property
    def model(self) -> Path:
        """The candidate's saved package."""
        return self.root / "models" / MODEL_NAME

    @property
    def champion(self) -> Path:
        """Which version the gate compares with, written from the tags before the gate runs."""
        return self.root / "models" / "champion.json"

    @property
    def metrics(self) -> Path:
        """DVC metrics, as JSON."""
        return self.root / "metrics"

    @property
    def plots(self) -> Path:
        """DVC plots, as CSV."""
        return self.root / "plots"

    @property
    def reports(self) -> Path:
        """What a person opens: `report.html`, the validation's Data Docs, maps."""
        return self.root / "reports"

    @property
    def bentos(self) -> Path:
        """The BentoML store of this workspace."""
        return self.root / ".bentoml"

    @property
    def prefect(self) -> Path:
        """Prefect's own folder: the database of flow runs."""
        return self.root / ".prefect"

    @property
    def cache(self) -> Path:
        """What can be made again at any time: fetched versions, temporary files."""
        return self.root / ".sarflood"

    @property
    def journal(self) -> Path:
        """Statistics of what the service has mapped; see `monitoring.journal`."""
        return self.cache / "served"

    @property
    def shadow(self) -> Path:
        """Which version gets a copy of what is asked, and how it answered; see `serving.shadow`."""
        return self.cache / "shadow"

    @property
    def drift(self) -> Path:
        """The last comparison of these with the training: `drift.json` and `drift.html`."""
        return self.reports / "drift"

    @contextmanager
    def exclusive(self, on_wait: Callable[[str], object]) -> Iterator[None]:
        """Be the only one who changes events, stages or versions; others wait and say so.

        DVC refuses a second command that touches what a running one works on, so an event that
        arrives during a training has to wait for its end.
        """
        lock = self._lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(f"another command works in {self.root}; waiting for its end")
            lock.acquire()
        try:
            self._clear(on_wait)
            yield
        finally:
            lock.release()

    def clear(self, say: Callable[[str], object]) -> None:
        """Clear away what killed commands have left at work, unless a command works here now."""
        if orphans(self.root):
            with suppress(Timeout), self._lock().acquire(timeout=0):
                self._clear(say)

    def _lock(self) -> FileLock:
        self.cache.mkdir(exist_ok=True)
        return FileLock(self.cache / "workspace.lock")

    def _clear(self, say: Callable[[str], object]) -> None:
        left = orphans(self.root)
        for process in left:
            say(f"process {process.pid}: left by a command that was killed; ended")
        end_processes(left)
        for path in clear_git_locks(self.root):
            say(f"{path}: left by a command that was killed; removed")

    def commit(self) -> str:
        """Return the full hash of the commit that the workspace stands on."""
        return git(self.root, "rev-parse", "HEAD").strip()

    def environment(self) -> dict[str, str]:
        """Return what a child needs to find this workspace's stores.

        A Prefect home that the user has set stays: then runs are seen where they look for them.
        """
        return {
            "BENTOML_HOME": str(self.bentos),
            "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(self.prefect)),
        }


def find_workspace(start: Path | None = None) -> Workspace:
    """Return the workspace that `start` (by default the current folder) lies in.

    Raises:
        InputError: No folder upwards has both `dvc.yaml` and `params.yaml`.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return Workspace(folder)
    raise InputError(
        f"{here}: no workspace here or above (a folder with dvc.yaml and params.yaml); "
        "make one with `sarflood init DIR`, or name one with --workspace DIR"
    )


def seen_here(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return those paths that this process can read."""
    return tuple(path for path in paths if os.access(path, os.R_OK))


def check_seen(paths: Iterable[Path]) -> None:
    """See to it that this machine reads what another one has read or written.

    Args:
        paths: Such as what `seen_here` gave in the flow's process.

    Raises:
        InputError: Names the path and the machine that cannot read it.
    """
    paths = tuple(paths)
    for path in set(paths) - set(seen_here(paths)):
        raise InputError(
            f"{path}: machine {platform.node()} cannot read it, and another one can; what is read "
            "and written must lie on a file system that the workers of run.dask share with this "
            "workspace, under the same path"
        )
