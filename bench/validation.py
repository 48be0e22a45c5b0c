"""Validation of many index rows: seconds, memory, and how both grow.

Each size is judged in a process of its own, by the whole suite, with half a percent of bad rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bench.claims import Claim, parser, peak_gib, report
from sarflood.params import load_params
from sarflood.patches.statistics import patch_statistics
from sarflood.sources.backscatter import simulate_window
from sarflood.sources.landscape import Landscape
from sarflood.validation.checkpoint import validate_table

BANDS = ("vv", "vh")
BASE = 64  # simulated patches whose statistics are varied
BAD_SHARE = 0.005
PARAMS = Path(__file__).parents[1] / "params.yaml"
MAX_SECONDS, MAX_GIB, MAX_GROWTH = 60.0, 4.0, 2.3


def main() -> int:
    """Measure and report."""
    command = parser(__doc__ or "")
    command.add_argument("--rows", type=int, default=1_000_000, help="of the largest table")
    command.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.only:
        print(json.dumps(_judge(options.rows)))
        return 0
    sizes = (options.rows // 2, options.rows)
    half, whole = (_in_child(rows) for rows in sizes)
    print(f"{whole['expectations']} expectations, {whole['bad']} bad rows found and named")
    return report(
        [
            Claim(
                f"seconds for {options.rows:,} rows",
                whole["seconds"],
                MAX_SECONDS,
                "import of Great Expectations to verdict, without making the table",
            ),
            Claim(
                f"GiB for {options.rows:,} rows",
                whole["gib"],
                MAX_GIB,
                "peak memory of the whole process",
            ),
            Claim(
                "seconds, twice the rows against once",
                whole["seconds"] / half["seconds"],
                MAX_GROWTH,
                f"{sizes[1]:,} against {sizes[0]:,} rows ({half['seconds']:.1f} s)",
            ),
        ],
        options.json,
    )


def _in_child(rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.validation", "--only", "--rows", str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _judge(rows: int) -> dict[str, float]:
    table = make_table(rows)
    params = load_params(PARAMS).validation
    start = time.perf_counter()
    verdict = validate_table(table, bands=BANDS, units="db", params=params)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "gib": peak_gib(),
        "bad": len(verdict.reasons),
        "expectations": len(verdict.expectations),
    }


def make_table(rows: int) -> pd.DataFrame:
    """Make an index of `rows` patches in events of 20,000, each statistic varied a little."""
    random = np.random.default_rng(0)
    place = Landscape(seed=1, size=256 * 8)
    base = []
    for part in range(BASE):
        window = simulate_window(place, 256 * (part // 8), 256 * (part % 8), 256, 256)
        stored = window.after.astype(np.float16)
        image = stored.astype(np.float32)
        base.append(patch_statistics(image, stored, window.mask, BANDS, "db", image[0].size))
    chosen = pd.DataFrame(base).astype(np.float32).iloc[random.integers(0, BASE, rows)]
    table = chosen.reset_index(drop=True)
    serial = pd.Series(np.arange(rows))
    event = "event-" + (serial // 20_000).astype(str)
    bad = random.random(rows) < BAD_SHARE
    table.loc[bad, "vv_constant_share"] = 0.99
    table.loc[bad, "vh_levels"] = 2.0
    text = serial.astype(str).str.zfill(64)
    return table.assign(
        id=event + "/" + serial.astype(str),
        event=event,
        sha256="a" + text.str[1:],
        image_sha256="b" + text.str[1:],
        mask_sha256="c" + text.str[1:],
        grid="scene",
        row=(serial % 20_000) // 142,
        col=(serial % 20_000) % 142,
        crs="EPSG:32651",
        transform="[10.0, 0.0, 300000.0, 0.0, -10.0, 1800000.0]",
        height=256,
        width=256,
        dtype="float32",
    )


if __name__ == "__main__":
    sys.exit(main())
