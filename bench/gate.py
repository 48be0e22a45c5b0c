"""How long the gate takes: 10,000 test patches of 20 events against a champion, 2,000 draws.

What it judges is made up; reading the tables from CSV, as the gate stage does, is part of the time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bench.claims import Claim, parser, report
from sarflood.evaluation.evaluate import read_patches
from sarflood.evaluation.intervals import SAMPLES
from sarflood.evaluation.pooled import BORDERS, COUNTS, METHODS, figures
from sarflood.params import load_params
from sarflood.promotion.gate import Champion, Scored, Verdict, judge

ROOT = Path(__file__).parents[1]
EVENTS = 20
LIMIT_S = 10.0


def main() -> int:
    """Judge once and report."""
    command = parser(__doc__ or "")
    command.add_argument("--patches", type=int, default=10_000)
    options = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.csv" for name in ("candidate", "champion")]
        for seed, path in enumerate(paths):
            _patches(options.patches, seed).to_csv(path, index=False)
        metrics = _metrics(read_patches(paths[0]))
        started = time.perf_counter()
        verdict = _judge(paths, metrics)
        taken = time.perf_counter() - started
    print(f"{len(verdict.checks)} checks")
    how = f"{options.patches:,} patches of {EVENTS} events, {SAMPLES:,} draws for each comparison"
    return report([Claim("gate: seconds", taken, LIMIT_S, how)], options.json)


def _patches(number: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    counts = {f"{m}{c}": random.integers(1, 30_000, number) for m in METHODS for c in COUNTS}
    outside = {f"outside_{name}": values for name, values in counts.items()}
    borders = {f"{m}border_{c}": random.integers(1, 900, number) for m in METHODS for c in BORDERS}
    place = np.arange(number)
    event = np.char.add("event-", (place % EVENTS).astype(str))
    return pd.DataFrame(
        {
            "id": np.char.add("patch-", place.astype(str)),
            "event": event,
            "part": "test",
            "position": place // EVENTS,
            "block": place % EVENTS * number + place // EVENTS // 4,
            "pixel_m": 10.0,
            "wet_share": random.random(number),
            "iou": random.random(number),
            **counts,
            **outside,
            **borders,
        }
    )


def _metrics(patches: pd.DataFrame) -> dict[str, object]:
    by_event = {str(event): figures(rows) for event, rows in patches.groupby("event")}
    return {"test": figures(patches), "events": by_event}


def _judge(paths: list[Path], metrics: dict[str, object]) -> Verdict:
    ours, other = (read_patches(path) for path in paths)
    known = {f"event-{number}": "hash" for number in range(EVENTS)}
    return judge(
        candidate="candidate",
        scored=Scored(metrics, ours, known),
        reports={"data validated": {"passed": True}},
        champion=Champion("v0.1.0", Scored(metrics, other, known)),
        regions={},
        params=load_params(ROOT / "params.yaml").gate,
    )


if __name__ == "__main__":
    sys.exit(main())
