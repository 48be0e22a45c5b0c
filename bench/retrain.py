"""How long it takes to find that nothing is new, and to go back to the former champion.

In a small workspace with two versions, by the command line, beside a Prefect server that runs
already: without one, each command starts its own, for some seconds more.
"""

from __future__ import annotations

import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.claims import Claim, parser, report
from bench.crash import Harness, harness
from sarflood.process import running
from sarflood.serving.server import HOST, free_port

NOTHING_NEW_S = 6.0
ROLLBACK_S = 30.0
START_S = 120.0


def main() -> int:
    """Measure each a few times and report."""
    command = parser(__doc__ or "")
    command.add_argument("--turns", type=int, default=3)
    options = command.parse_args()
    with harness() as made:
        made.restore()
        made.run("retrain")
        with _prefect(made.folder) as api:
            idle = [_seconds(made, api, "retrain") for _ in range(options.turns)]
            back = []
            for turn in range(options.turns):
                to = ("v0.1.0", "v0.2.0")[turn % 2]
                back.append(_seconds(made, api, "rollback", "--to", to))
    how = f"median of {options.turns}"
    return report(
        [
            Claim("retrain with nothing new: seconds", statistics.median(idle), NOTHING_NEW_S, how),
            Claim(
                "rollback: seconds until it answered and is in production",
                statistics.median(back),
                ROLLBACK_S,
                how,
            ),
        ],
        options.json,
    )


def _seconds(made: Harness, api: str, *arguments: str) -> float:
    started = time.perf_counter()
    made.run(*arguments, PREFECT_API_URL=api)
    return time.perf_counter() - started


@contextmanager
def _prefect(home: Path) -> Iterator[str]:
    """Run a Prefect server on the loopback."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
    with running([*command, "--port", str(port)], home, {"PREFECT_HOME": str(home)}) as process:
        api = f"http://{HOST}:{port}/api"
        deadline = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{api}/health", timeout=5).close()  # noqa: S310
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("Prefect's server did not start") from None
                time.sleep(0.2)
        yield api


if __name__ == "__main__":
    sys.exit(main())
