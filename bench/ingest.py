"""Ingest against plainly reading and hashing the same files, with the same number of threads.

Plain reading opens each raster of the source, decodes its pixels and takes the SHA-256 of them.
Ingest reads the same files, describes, judges and stores every patch. Both are timed in turns, each
in processes of their own; what Great Expectations takes to be imported and to judge even one patch
is measured apart, and included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table

from bench.claims import Claim, parser, peak_gib, report
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.params import load_params
from sarflood.sources.backscatter import simulate_window
from sarflood.sources.landscape import Landscape
from sarflood.sources.simulate import simulate_event
from sarflood.workspace import Workspace

PARAMS = Path(__file__).parents[1] / "params.yaml"
MIN_SPEED, MAX_GIB = 0.8, 1.0
TURNS = 3
SIDE = 256


def main() -> int:
    """Make the sources, time both ways on each, and report."""
    command = parser(__doc__ or "")
    command.add_argument("--patches", type=int, default=1600, help="of each source")
    command.add_argument("--layout", choices=["chips", "tiles", "scene", "all"], default="all")
    command.add_argument("--folder", type=Path, help="where the sources are made; by default /tmp")
    command.add_argument("--only", nargs=2, metavar=("WAY", "SOURCE"), help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.only:
        print(json.dumps(_run(*options.only)))
        return 0
    layouts = ["chips", "tiles", "scene"] if options.layout == "all" else [options.layout]
    table = Table("layout", "patches", "plain s", "ingest s", "of which fixed s", "GiB")
    claims = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        fixed = _fixed_seconds(Path(folder))
        for layout in layouts:
            source = Path(folder) / layout
            _make(source, layout, options.patches)
            plain, ingest = [], []
            for _ in range(TURNS):
                plain.append(_in_child("plain", source))
                ingest.append(_in_child("ingest", source))
            plain_s, ingest_s = (min(item["seconds"] for item in way) for way in (plain, ingest))
            gib = max(item["gib"] for item in ingest)
            patches = int(ingest[0]["patches"])
            table.add_row(
                layout,
                str(patches),
                f"{plain_s:.2f}",
                f"{ingest_s:.2f}",
                f"{fixed:.2f}",
                f"{gib:.2f}",
            )
            claims += _claims(layout, patches, plain_s, ingest_s, fixed, gib)
            shutil.rmtree(source)
    Console().print(table)
    return report(claims, options.json)


def _claims(
    layout: str, patches: int, plain: float, ingest: float, fixed: float, gib: float
) -> list[Claim]:
    threads = len(os.sched_getaffinity(0))
    how = f"best of {TURNS} of each in turns, {threads} threads"
    return [
        Claim(
            f"{layout}: speed of ingest, of plain reading and hashing",
            plain / (ingest - fixed),
            MIN_SPEED,
            f"{how}; without the {fixed:.1f} s that judging one patch takes",
            at_least=True,
        ),
        Claim(
            f"{layout}: the same with all that is fixed",
            plain / ingest,
            MIN_SPEED,
            how,
            at_least=True,
        ),
        Claim(
            f"{layout}: GiB for {patches:,} patches",
            gib,
            MAX_GIB,
            "peak memory of the ingesting process",
        ),
    ]


def _fixed_seconds(folder: Path) -> float:
    """Return the seconds of an ingest of a single patch."""
    source = folder / "one"
    _make(source, "chips", 1)
    return min(_in_child("ingest", source)["seconds"] for _ in range(TURNS))


def _in_child(way: str, source: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.ingest", "--only", way, str(source)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _run(way: str, source: str) -> dict[str, float]:
    files = sorted(path for path in Path(source).rglob("*") if path.suffix in (".tif", ".png"))
    for path in files:  # from the page cache both times
        with path.open("rb") as file:
            while file.read(2**20):
                pass
    start = time.perf_counter()
    if way == "plain":
        patches = _read_plainly(files)
    else:
        with tempfile.TemporaryDirectory(dir=Path(source).parent) as folder:
            params = load_params(PARAMS).validation
            done = ingest_event(Workspace(Path(folder)), source, "event", Said(), params)
            patches = done.accepted + done.empty
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "gib": peak_gib(), "patches": patches}


def _read_plainly(files: list[Path]) -> int:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return sum(pool.map(_hash, files))


def _hash(path: Path) -> int:
    digest = hashlib.sha256()
    with rasterio.open(path) as dataset:
        for top in range(0, dataset.height, SIDE):
            rows = min(SIDE, dataset.height - top)
            values = dataset.read(window=Window(0, top, dataset.width, rows))
            digest.update(values.data)
    return int(digest.digest()[0]) >= 0


def _make(folder: Path, layout: str, patches: int) -> None:
    """Write a source of simulated patches: dB chips, 8-bit tiles, or one scene of both dates."""
    if layout == "scene":
        side = SIDE * max(1, round(np.sqrt(patches)))
        simulate_event(folder, seed=1, size=side)
        return
    folder.mkdir()
    across = int(np.ceil(np.sqrt(patches)))
    place = Landscape(seed=1, size=SIDE * across)
    for number, (row, col) in zip(range(patches), _places(across), strict=False):
        window = simulate_window(place, SIDE * row, SIDE * col, SIDE, SIDE)
        if layout == "chips":
            where = Affine(10, 0, 300_000 + 9000 * col, 0, -10, 1_800_000 - 9000 * row)
            _chip(folder, number, where, window.after, window.mask)
        else:
            _tile(folder, row, col, window.after, window.mask)


def _places(across: int) -> Iterator[tuple[int, int]]:
    return ((row, col) for row in range(across) for col in range(across))


def _chip(folder: Path, number: int, where: Affine, after: np.ndarray, mask: np.ndarray) -> None:
    after = np.where(np.isfinite(after), after, 0)
    for suffix, values in (("_vv", after[0]), ("_vh", after[1]), ("", mask)):
        with rasterio.open(
            folder / f"c{number:06d}{suffix}.tif",
            "w",
            driver="GTiff",
            width=SIDE,
            height=SIDE,
            count=1,
            dtype=values.dtype,
            crs="EPSG:32651",
            transform=where,
            compress="deflate",
        ) as file:
            file.write(values, 1)


def _tile(folder: Path, row: int, col: int, after: np.ndarray, mask: np.ndarray) -> None:
    grey = np.where(np.isfinite(after), np.clip((after + 35) * 7, 0, 254), 255).astype(np.uint8)
    layers = {"vv": grey[0], "vh": grey[1], "flood_label": 255 * (mask == 1).astype(np.uint8)}
    for role, values in layers.items():
        name = f"s_20200101t000000_x-{row}_y-{col}" + ("" if role == "flood_label" else f"_{role}")
        path = folder / "tiles" / role / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([values] * 3, axis=-1)).save(path)


if __name__ == "__main__":
    sys.exit(main())
