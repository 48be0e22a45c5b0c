"""How long it takes from a drop to a retraining that runs, and where the time goes.

In a small workspace that is up, a simulated event is moved into the inbox, again and again, each
time after the retraining before has ended. A small event shows what the trigger itself takes; a
larger one is read for longer, and what is beyond the reading is held against the same bound.
"""

from __future__ import annotations

import datetime as dt
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from bench.claims import Claim, parser, report
from bench.crash import Harness
from sarflood.operations.parts import Ports, Site, bring_down, bring_up, wait_until_up
from sarflood.serving.server import free_port
from sarflood.sources.simulate import simulate_event

BOUND_S = 15.0
SMALL, FIRST = 512, 1280  # pixels a side; the least that can be trained on and tested is the latter
UP_WITHIN_S, RUNS_WITHIN_S, ENDS_WITHIN_S = 600.0, 600.0, 900.0
LOOK_EVERY_S = 0.5
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Stages:
    """What a trigger took, in seconds, each from the end of the one before."""

    noticed: float
    started: float
    read: float
    tracked: float
    scheduled: float
    pending: float
    running: float

    @property
    def total(self) -> float:
        """From the drop to the retraining that runs."""
        return float(sum(astuple(self)))


class Runs:
    """The Prefect server of a workspace that is up."""

    def __init__(self, site: Site) -> None:
        self._site = site
        environment = site.client_environment()
        user, _, token = environment["PREFECT_API_AUTH_STRING"].partition(":")
        url = environment["PREFECT_API_URL"]
        self._client = httpx.Client(base_url=url, auth=(user, token), timeout=300)

    def trigger(self, source: Path, event: str) -> Stages:
        """Drop a source, wait until its retraining has ended, and say what led to it."""
        log = self._site.folder / "watch.log"
        known = {row["id"] for row in self._ask("flow_runs", {})}
        dropped = time.time()
        source.rename(self._site.workspace.inbox / event)
        ran = _until(lambda: self._retraining(event, known), "a retraining", RUNS_WITHIN_S)
        _until(lambda: self._ended(ran["id"]), "its end", ENDS_WITHIN_S)
        (ingest,) = self._ask("flow_runs", {"flow_runs": {"name": {"any_": [f"ingest {event}"]}}})
        tasks = self._ask("task_runs", {"flow_runs": {"id": {"any_": [ingest["id"]]}}})
        read = next(row["end_time"] for row in tasks if row["name"].startswith("read"))
        (told,) = self._events(event)
        moments = [
            dropped,
            _noticed(log, event),
            _seconds(ingest["start_time"]),
            _seconds(read),
            _seconds(told["occurred"]),
            _seconds(ran["created"]),
            self._entered(ran["id"], "PENDING"),
            self._entered(ran["id"], "RUNNING"),
        ]
        pairs = itertools.pairwise(moments)
        return Stages(*(later - earlier for earlier, later in pairs))

    def _retraining(self, event: str, known: set[str]) -> dict[str, Any] | None:
        named = {"name": {"any_": [f"retrain after {event}"]}}
        rows = self._ask("flow_runs", {"flow_runs": named})
        return next((row for row in rows if row["id"] not in known and row["start_time"]), None)

    def _ended(self, run: str) -> bool:
        answer = self._client.get(f"/flow_runs/{run}").raise_for_status()
        return bool(answer.json()["end_time"])

    def _entered(self, run: str, kind: str) -> float:
        """Return when a run entered a state for the last time."""
        answer = self._client.get("/flow_run_states/", params={"flow_run_id": run})
        rows = answer.raise_for_status().json()
        return max(_seconds(row["timestamp"]) for row in rows if row["type"] == kind)

    def _events(self, event: str) -> list[dict[str, Any]]:
        wanted = {
            "event": {"name": ["sarflood.event.ingested"]},
            "resource": {"id": [f"sarflood.event.{event}"]},
        }
        answer = self._client.post("/events/filter", json={"filter": wanted})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["events"]
        return found

    def _ask(self, what: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self._client.post(f"/{what}/filter", json=query)
        rows: list[dict[str, Any]] = answer.raise_for_status().json()
        return rows


def main() -> int:
    """Drop the events one by one and report."""
    command = parser(__doc__ or "")
    command.add_argument("--turns", type=int, default=4, choices=range(1, 9))
    command.add_argument("--size", type=int, default=4096, help="of the larger event, in pixels")
    options = command.parse_args()
    table = Table("event", "patches a side", *(item.name for item in fields(Stages)), "total")
    sizes = [FIRST, *[SMALL] * options.turns, options.size]
    seen: list[Stages] = []
    with _harness() as made:
        sources = [made.folder / f"event-{seed}" for seed in range(1, len(sizes) + 1)]
        for seed, (source, size) in enumerate(zip(sources, sizes, strict=True), start=1):
            simulate_event(source, seed=seed, size=size)  # old when it is dropped, as a copy is
        runs = Runs(_up(made))
        for source, size in zip(sources, sizes, strict=True):
            event = source.name
            found = runs.trigger(source, event)
            seen.append(found)
            seconds = (*astuple(found), found.total)
            table.add_row(event, str(size // 256), *(f"{value:.1f}" for value in seconds))
            Console(stderr=True).print(found)
    Console().print(table)
    return report(_claims(seen), options.json)


def _claims(seen: Sequence[Stages]) -> list[Claim]:
    first, *small, large = seen
    how = "from the rename into the inbox to the state RUNNING"
    middle = statistics.median(item.total for item in small)
    return [
        Claim("drop to running retraining: seconds", middle, BOUND_S, f"median, {how}"),
        Claim("the slowest: seconds", max(item.total for item in (first, *small)), BOUND_S, how),
        Claim(
            "a larger event, beyond reading and judging it: seconds",
            large.total - large.read,
            BOUND_S,
            how,
        ),
    ]


@contextmanager
def _harness() -> Iterator[Harness]:
    with tempfile.TemporaryDirectory(prefix="sarflood-trigger-") as folder:
        made = Harness(Path(folder))
        made.make()
        try:
            yield made
        finally:
            bring_down(made.workspace)


def _up(made: Harness) -> Site:
    site = bring_up(made.workspace, Ports(free_port(), free_port(), free_port()))
    wait_until_up(site, UP_WITHIN_S)
    return site


def _noticed(log: Path, event: str) -> float:
    """Return when the watcher said that it takes an event in."""
    end = f" is taken in as event {event}"
    line = next(row for row in log.read_text("utf-8").splitlines() if row.endswith(end))
    said = dt.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")  # noqa: DTZ007  # local time
    return said.timestamp()


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def _until(true: Callable[[], _Found | None], what: str, within_s: float) -> _Found:
    deadline = time.monotonic() + within_s
    while not (found := true()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {within_s:g} s: {what}")
        time.sleep(LOOK_EVERY_S)
    return found


if __name__ == "__main__":
    sys.exit(main())
