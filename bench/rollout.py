"""Whether a change of versions loses a request: steady load across a switch and a rollback.

A workspace gets two versions with random weights, whose answers differ in every patch. While
clients ask without a pause for the map of a patch, v0.2.0 is put into production, and v0.1.0 again.
Each answer must be that of one of the two, but for a pixel in a hundred, as engines round. Half of
the clients keep a connection, one of these with pauses, and half make a new one for each request;
none tries again.
"""

from __future__ import annotations

import http.client
import io
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.claims import Claim, parser, report
from bench.untrained import write_untrained
from sarflood.files import sha256, write_json, write_text
from sarflood.mapping.patches import map_patches
from sarflood.mapping.recorded import MAX_DIFFERENT_ROUNDED, read_recorded
from sarflood.model import WEIGHTS
from sarflood.model.package import load_model
from sarflood.params import load_params
from sarflood.process import child_environment, end_group, git
from sarflood.promotion.promote import bundle_version
from sarflood.promotion.registry import assign_production, find_version, register
from sarflood.serving.access import bearer, token_environment
from sarflood.serving.rollout import services, wait_until_served
from sarflood.serving.server import HOST, free_port
from sarflood.setup import make_workspace
from sarflood.workspace import Workspace

TOKEN = "a-token-for-measuring"  # noqa: S105  # of a service that lives as long as the benchmark
KEEPING, ONE_SHOT = 4, 4  # clients
PAUSE_S = 1.0  # of the client that keeps its connection and asks now and then


def main() -> int:
    """Serve, ask, switch, roll back, and report."""
    command = parser(__doc__ or "")
    command.add_argument("--requests", type=int, default=3000, help="at least, in all")
    command.add_argument("--width", type=int, default=2, help="of the network's first level")
    command.add_argument("--depth", type=int, default=1, help="its levels below the first")
    options = command.parse_args()
    with tempfile.TemporaryDirectory(prefix="sarflood-rollout-") as folder:
        place = make_versions(Path(folder) / "workspace", 2, options.width, options.depth)
        for version in ("v0.1.0", "v0.2.0"):
            bundle_version(place, find_version(place, version), load_params(place.params).serving)
        assign_production(place, "v0.1.0", "first")
        third = options.requests // 3
        with following(place) as port, Load(place, port) as load:
            load.wait_for(third)
            moments = []
            for version in ("v0.2.0", "v0.1.0"):
                moments.append((f"{version} is in production", load.now()))
                assign_production(place, version, "change")
                wait_until_served(place, version)
                moments.append((f"{version} has the port", load.now()))
                load.wait_for(load.count() + third)
    return _conclude(load, moments, options)


def _conclude(load: Load, moments: list[tuple[str, float]], options: Any) -> int:
    rows = sorted([*moments, *_spans(load)], key=lambda row: row[1])
    table = Table("second", "", box=None, header_style="bold")
    for what, at in rows:
        table.add_row(f"{at:.2f}", what)
    Console().print(table)
    for fault, number in Counter(item.fault for item in load.asked if item.fault).items():
        print(f"{number} × {fault}")
    versions = Counter(item.version for item in load.asked)
    how = ", ".join(f"{version}: {number}" for version, number in versions.items() if version)
    clients = f"{KEEPING} clients keep a connection, {ONE_SHOT} make one each time"
    return report(
        [
            Claim("requests", load.count(), options.requests, how, at_least=True),
            Claim("failed", len(load.failed()), 0, clients),
            Claim("longest time without an answer, s", load.longest_gap(), 5.0, "of any client"),
        ],
        options.json,
    )


def _spans(load: Load) -> Iterator[tuple[str, float]]:
    for version in ("v0.1.0", "v0.2.0"):
        times = [item.at for item in load.asked if item.version == version]
        for number, (before, after) in enumerate(
            zip([-np.inf, *times], [*times, np.inf], strict=True)
        ):
            if after - before > 3 * PAUSE_S and number < len(times):
                yield f"first answer of {version}", after
            if after - before > 3 * PAUSE_S and number:
                yield f"last answer of {version}", before


def make_versions(root: Path, many: int, width: int = 2, depth: int = 1) -> Workspace:
    """Make a workspace with versions that passed the gate, as trainings would have left them.

    Args:
        root: A new folder; the workspace is a clone of this repository, as committed.
        many: How many; v0.1.0, v0.2.0 and so on, each with random weights.
        width: Of the network.
        depth: Of the network.
    """
    place = make_workspace(root)
    for number in range(1, many + 1):
        package = place.cache / "versions" / f"v0.{number}.0"
        write_untrained(package, width, depth, seed=number)
        for name in ("model.json", "card.md"):
            write_text(place.model / name, (package / name).read_text("utf-8"))
        write_json(place.metrics / "evaluation.json", {"test": {"iou": 0.8 + number / 100}})
        verdict = {"passed": True, "candidate": sha256(package / WEIGHTS), "checks": []}
        write_json(place.metrics / "gate.json", verdict)
        git(place.root, "add", "--force", "--", "models", "metrics")
        git(place.root, "commit", "--quiet", "-m", f"Candidate {number}")
        register(place, f"candidate {number}")
    return place


def _question(place: Workspace) -> NDArray[np.float16]:
    """Return the patch that the load asks for: (1, 2, 256, 256)."""
    return read_recorded(place.cache / "versions" / "v0.1.0" / "recorded.npz").images[:1]


def answers(place: Workspace) -> dict[str, NDArray[np.uint8]]:
    """Return what each version answers to the load's patch: (1, 256, 256)."""
    packages = sorted(path for path in (place.cache / "versions").iterdir() if path.is_dir())
    return {path.name: map_patches(load_model(path), _question(place)) for path in packages}


def _npy(array: NDArray[Any]) -> bytes:
    body = io.BytesIO()
    np.save(body, array, allow_pickle=False)
    return body.getvalue()


@contextmanager
def following(place: Workspace) -> Iterator[int]:
    """Serve what is in production, by the command line, while the block runs; give the port."""
    port = free_port()
    with (place.root.parent / f"follow-{port}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sarflood.cli", "serve", "--follow", "--port", str(port)],
            cwd=place.root,
            env=child_environment(token_environment(TOKEN)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            while not any(item["port"] == port and item["version"] for item in services(place)):
                if process.poll() is not None:
                    raise RuntimeError(Path(log.name).read_text("utf-8"))
                time.sleep(0.1)
            yield port
        finally:
            end_group(process)


@dataclass(frozen=True)
class Asked:
    """A request: when it was answered, by which version, how long it took, and what was wrong."""

    at: float
    seconds: float
    version: str | None
    fault: str


@dataclass
class Load:
    """Clients that ask without a pause while the block runs.

    Args:
        place: Whose versions may answer.
        port: Of the service.
    """

    place: Workspace
    port: int
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known = answers(self.place)
        self._body = _npy(_question(self.place))
        self._began, self._stop = time.monotonic(), threading.Event()
        self._more = threading.Condition()
        work: list[Callable[[], None]] = [self._keeping] * (KEEPING - 1) + [self._now_and_then]
        work += [self._one_shot] * ONE_SHOT
        self._threads = [threading.Thread(target=item) for item in work]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def now(self) -> float:
        """Return the seconds since the load was made."""
        return time.monotonic() - self._began

    def count(self) -> int:
        """Return how many requests have ended."""
        return len(self.asked)

    def failed(self) -> list[Asked]:
        """Return the requests without a right answer."""
        return [item for item in self.asked if item.fault]

    def longest_gap(self) -> float:
        """Return the longest time in which no request was answered."""
        times = sorted(item.at for item in self.asked if not item.fault)
        return float(np.diff(times).max())

    def wait_for(self, count: int, within_s: float = 900.0) -> None:
        """Wait until so many requests have ended."""
        with self._more:
            if not self._more.wait_for(lambda: self.count() >= count, within_s):
                raise RuntimeError(f"{self.count()} of {count} requests within {within_s:g} s")

    def _keeping(self, pause_s: float = 0.0) -> None:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=120)
        while not self._stop.wait(pause_s):
            self._ask(connection, {})
        connection.close()

    def _now_and_then(self) -> None:
        self._keeping(PAUSE_S)

    def _one_shot(self) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection(HOST, self.port, timeout=120)
            self._ask(connection, {"Connection": "close"})
            connection.close()

    def _answerer(self, body: bytes) -> str | None:
        """Return the version whose answer this is."""
        try:
            mask = np.load(io.BytesIO(body), allow_pickle=False)
        except (ValueError, EOFError):
            return None
        like = {name: float((mask == known).mean()) for name, known in self._known.items()}
        best = max(like, key=like.__getitem__)
        return best if like[best] >= 1 - MAX_DIFFERENT_ROUNDED else None

    def _ask(self, connection: http.client.HTTPConnection, headers: dict[str, str]) -> None:
        began, version, fault = self.now(), None, ""
        try:
            connection.request("POST", "/predict/patches", self._body, bearer(TOKEN) | headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            fault = repr(error)
            connection.close()
        else:
            version = self._answerer(body)
            if version is None:
                fault = f"{response.status}: {body[:200]!r}"
        with self._more:
            self.asked.append(Asked(self.now(), self.now() - began, version, fault))
            self._more.notify_all()


if __name__ == "__main__":
    sys.exit(main())
