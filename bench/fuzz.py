"""Thousands of spoiled uploads to a served bundle: what it answers, and what becomes of it.

Each upload is a good one, real where `--data` names a folder of chips, whose bytes were flipped,
cut, spliced or blanked, or whose TIFF directory says something else than it did. A status of 500 or
above, a process that died, an upload without an answer, a file that is left, and memory that goes
on growing are counted; with `--trace` also files that are opened beyond the uploads, and calls to
other processes. Uploads that were answered by 500 lie in `build/fuzz` afterwards.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from bench.claims import Claim, parser, report
from bench.mutations import Fields, Spoiler, Upload, good_scenes, unspoiled
from bench.traced import traced
from bench.untrained import write_untrained
from sarflood.serving.access import bearer
from sarflood.serving.bundle import build_bundle
from sarflood.serving.check import serving_bundle

ROOT = Path(__file__).parents[1]
TOKEN = "of-a-bench"  # noqa: S105
CLIENTS = 3
PARTS = 10  # after each the memory is looked at


@dataclass
class Outcome:
    """What came of the uploads.

    Attributes:
        statuses: How many by what was done to them and what was answered.
        slowest_s: The longest time to an answer.
        memory_mib: Of the process that maps, after each part of the uploads.
        died: Processes that were gone at the end.
        left: Uploads that were left on the disk.
        odd: Files that were opened beyond the uploads, and calls to others; None if not looked at.
    """

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    memory_mib: list[float] = field(default_factory=list)
    died: int = 0
    left: int = 0
    odd: set[str] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, upload: Upload, status: str, seconds: float) -> None:
        """Count an answer."""
        with self.lock:
            self.statuses[upload.what, status] += 1
            self.slowest_s = max(self.slowest_s, seconds)

    def count(self, *statuses: str) -> int:
        """Return how many answers have a status that begins so."""
        return sum(
            number for (_, status), number in self.statuses.items() if status.startswith(statuses)
        )


def main() -> int:
    """Serve, send, and report."""
    command = parser(__doc__ or "")
    command.add_argument("--uploads", type=int, default=10_000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--trace", action="store_true", help="by strace; takes longer")
    command.add_argument("--data", type=Path, help="a folder with real chips")
    options = command.parse_args()
    found = ROOT / "build" / "fuzz"
    shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True)
    scenes = good_scenes(options.data)
    with tempfile.TemporaryDirectory(prefix="sarflood-fuzz-") as name:
        folder = Path(name)
        write_untrained(folder / "package")
        tag = build_bundle(ROOT, folder / "package", "v0.1.0", folder / "store")
        with serving_bundle(
            tag, folder / "store", token=TOKEN, ready_within_s=300, log=found / "serve.log"
        ) as url:
            trace = found / "trace" if options.trace else None
            outcome = _fuzz(url, scenes, options.seed, options.uploads, found, trace)
    return _report(outcome, options.json)


def _fuzz(
    url: str, scenes: Sequence[Fields], seed: int, number: int, found: Path, trace: Path | None
) -> Outcome:
    """Send the uploads, then the first quarter of them again."""
    outcome, process = Outcome(), _listening(int(url.rpartition(":")[2]))
    started, home = _family(process), Path(process.environ()["TMPDIR"])
    _send(map(unspoiled, scenes), len(scenes), url, Outcome(), found)  # what is opened once is
    uploads, part = Spoiler(scenes, seed).uploads(), -(-number // PARTS)
    with traced(process.pid, home, trace) if trace else nullcontext() as seen:
        for _ in range(PARTS):
            _send(uploads, part, url, outcome, found)
            outcome.memory_mib.append(_memory_mib(process))
            Console(stderr=True).print(
                f"{sum(outcome.statuses.values())} sent, {outcome.memory_mib[-1]:.0f} MiB, "
                f"{outcome.count('5')} of 5xx, slowest {outcome.slowest_s:.1f} s"
            )
    outcome.odd = seen.odd if seen else None
    _send(Spoiler(scenes, seed).uploads(), number // 4, url, outcome, found)
    outcome.memory_mib.append(_memory_mib(process))
    outcome.died = len(started - _family(process))
    outcome.left = len(list(home.glob("sarflood-upload-*")))
    return outcome


def _send(uploads: Iterator[Upload], count: int, url: str, outcome: Outcome, found: Path) -> None:
    """Send some uploads by a few clients at once."""
    lock = threading.Lock()

    def client(number: int) -> None:
        with httpx.Client(
            base_url=url, headers=bearer(TOKEN), timeout=300, trust_env=False
        ) as http:
            for _ in range(number):
                with lock:
                    upload = next(uploads)
                _ask(http, upload, outcome, found)

    shares = [count // CLIENTS + (place < count % CLIENTS) for place in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, shares))


def _ask(http: httpx.Client, upload: Upload, outcome: Outcome, found: Path) -> None:
    started = time.monotonic()
    try:
        answer = http.post(upload.path, content=upload.body, headers=upload.headers)
        status = str(answer.status_code)
        if answer.status_code >= 400 and not answer.content.startswith(b'{"error":'):
            status += " without a reason"
    except httpx.TransportError as error:
        status = f"none: {type(error).__name__}"
    outcome.note(upload, status, time.monotonic() - started)
    if status.startswith(("5", "none")):
        name = f"{upload.what}-{sum(outcome.statuses.values())}"
        (found / f"{name}.body").write_bytes(upload.body)
        (found / f"{name}.txt").write_text(f"{status}\n{upload.path}\n{upload.headers}\n")


def _listening(port: int) -> psutil.Process:
    """Return the process that listens on a port."""
    return next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", 0) == port
    )


def _family(process: psutil.Process) -> set[psutil.Process]:
    return {process, *process.children(recursive=True)}


def _memory_mib(process: psutil.Process) -> float:
    """Return the memory of the largest process, the one that maps."""
    return max(item.memory_full_info().uss for item in _family(process)) / 2**20


def _report(outcome: Outcome, json_file: Path | None) -> int:
    kinds = sorted({what for what, _ in outcome.statuses})
    table = Table("status", *kinds, "all", box=None, header_style="bold")
    for status in sorted({status for _, status in outcome.statuses}):
        row = [outcome.statuses[kind, status] for kind in kinds]
        table.add_row(status, *map(str, row), str(sum(row)))
    Console().print(table)
    *memory, after = outcome.memory_mib
    Console().print(f"MiB: {', '.join(f'{size:.0f}' for size in memory)}; again: {after:.0f}")
    sent = sum(outcome.statuses.values())
    how = f"{sent} spoiled uploads by {CLIENTS} clients at once"
    again = "while the first quarter of the uploads was sent again"
    claims = [
        Claim("answers of 500 and above", outcome.count("5"), 0, how),
        Claim("uploads without an answer", outcome.count("none"), 0, how),
        Claim("processes that died", outcome.died, 0, how),
        Claim("uploads left on the disk", outcome.left, 0, how),
        Claim("slowest answer, s", outcome.slowest_s, 60, how),
        Claim("memory, GiB", max(outcome.memory_mib) / 1024, 4, how),
        Claim("growth of memory, MiB", after - memory[-1], 20, again),
    ]
    if outcome.odd is not None:
        for name in sorted(outcome.odd):
            Console().print(name, markup=False)
        claims.append(Claim("other files opened, and calls", len(outcome.odd), 0, "by strace"))
    return report(claims, json_file)


if __name__ == "__main__":
    sys.exit(main())
