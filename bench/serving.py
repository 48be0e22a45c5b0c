"""The service against its bare engine, and the engine against PyTorch.

A U-Net of width 16 is trained a little on a simulated event, made a bundle and served. Service and
bare engine have the same cores, the clients another one if there is one; each client sends a patch,
waits for its masks, which must be those of the bare engine, and sends the next. Service and engine
are timed in turns. Answers are not averaged over flips, which would make the rest look cheap.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.claims import Claim, parser, report
from sarflood.evaluation.evaluate import evaluate
from sarflood.evaluation.inputs import model_bands
from sarflood.evaluation.recorded import write_calibration, write_recorded
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.mapping.engines import OpenVino
from sarflood.mapping.fastest import ENGINE, FLOAT32, INT8
from sarflood.mapping.patches import map_patches
from sarflood.model.package import save_model
from sarflood.model.unet import UNet
from sarflood.monitoring.journal import JOURNAL
from sarflood.params import Params, load_params
from sarflood.patches.loader import take
from sarflood.patches.split import split_events
from sarflood.patches.store import open_events
from sarflood.raster.patch import PATCH
from sarflood.serving.bundle import build_bundle, bundle_folder
from sarflood.serving.check import check_bundle
from sarflood.serving.served import load_served
from sarflood.serving.server import HOST, BundleServer
from sarflood.sources.simulate import simulate_event
from sarflood.training.fit import fit
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[1]
VERSION = "v0.1.0"
BATCH = 16
CHANNELS = 8  # of a simulated event: four bands, each on two scales
READY_WITHIN_S = 120.0
FLOAT32_FASTER, INT8_FASTER = 2.0, 3.1
MIN_OF_BARE, MAX_BATCHES, READY_S, MAX_GROWTH_MIB = 0.85, 3.0, 10.0, 16.0


def main() -> int:
    """Measure all and report."""
    command = parser(__doc__ or "")
    command.add_argument("--width", type=int, default=16)
    command.add_argument("--steps", type=int, default=100, help="of the training")
    command.add_argument("--clients", type=int, default=32)
    command.add_argument("--turns", type=int, default=3)
    command.add_argument("--requests", type=int, default=480, help="of a turn")
    command.add_argument("--memory-requests", type=int, default=10_000)
    options = command.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = (cores[:-1], cores[-1:]) if len(cores) > 1 else (cores, cores)
    os.sched_setaffinity(0, ours)  # what is started inherits them
    torch.set_num_threads(len(ours))
    params = load_params(ROOT / "params.yaml")
    eager_s = _eager_s(_changed(params, options.width, 4, 1))
    with tempfile.TemporaryDirectory() as name:
        large = _Bundle(Path(name) / "large", _changed(params, options.width, 4, options.steps))
        load = _Load(options.clients, theirs, options.requests)
        table = Table("", "patches/s", title=f"width {options.width}, {len(ours)} core(s)")
        claims = [
            *_engine_claims(large, eager_s, table),
            *_service_claims(large, load, options.turns, table),
        ]
        small = _Bundle(Path(name) / "small", _changed(params, 2, 2, 20))
        load = _Load(options.clients, theirs, options.memory_requests)
        claims.append(_memory_claim(small, load))
    Console().print(table)
    return report(claims, options.json)


def _changed(params: Params, width: int, depth: int, steps: int) -> Params:
    return params.model_copy(
        update={
            "model": params.model.model_copy(update={"width": width, "depth": depth, "flips": 1}),
            "train": params.train.model_copy(update={"epochs": 2, "min_steps": steps}),
        }
    )


def _eager_s(params: Params) -> float:
    """Return the CPU seconds that PyTorch takes for a patch, before its allocator is changed."""
    network = UNet(CHANNELS, params.model).eval()
    inputs = torch.randn(BATCH, CHANNELS, PATCH, PATCH)
    with torch.inference_mode():
        return _cpu_s(lambda: network(inputs)) / BATCH


def _cpu_s(work: Callable[[], object], turns: int = 5) -> float:
    """Return the median CPU seconds: other programs hardly matter to them."""
    work()
    taken = []
    for _ in range(turns):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


class _Bundle:
    """A model that is trained a little, its bundle, and patches with the masks to expect."""

    def __init__(self, folder: Path, params: Params) -> None:
        self.store, self.package = folder / "store", folder / "package"
        workspace = Workspace(folder / "workspace")
        simulate_event(folder / "source", seed=1, size=8 * PATCH)
        source = str(folder / "source")
        ingest_event(workspace, source, "simulated", Said(), params.validation)
        events = open_events(workspace.events)
        split = split_events(events, params.split)
        train, val = (take(events, split, part, params.input) for part in ("train", "val"))
        event = events[0].event
        model = fit(train, val, event.bands, params, lambda _: None).model(event, params)
        found = evaluate(model, events, split)
        print(f"trained: test IoU {found.metrics['test']['iou']:.3f}", file=sys.stderr)
        save_model(model, self.package)
        write_recorded(self.package / "recorded.npz", model, events, found.patches)
        write_calibration(self.package / "calibration.npz", model, events, split)
        print_line = partial(print, file=sys.stderr)
        self.tag = build_bundle(ROOT, self.package, VERSION, self.store, print_line)
        self.served = bundle_folder(self.tag, self.store) / "src" / "package"
        self.engines = load_served(self.served).engines
        bands = model_bands(events[0], model.manifest)
        self.patches = events[0].images[: 2 * BATCH, bands]


@dataclass(frozen=True)
class _Load:
    """What is asked of a service.

    Attributes:
        clients: How many ask at a time.
        cores: Theirs.
        requests: How many there are in all.
    """

    clients: int
    cores: list[int]
    requests: int

    def ask(self, port: int, folder: Path) -> NDArray[np.float64]:
        """Return when each request was sent, and when it was answered: (N, 2) seconds."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bench.clients", str(port), str(folder)),
                *("--clients", str(self.clients), "--requests", str(self.requests)),
                *("--cores", ",".join(map(str, self.cores))),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        return np.array(json.loads(done.stdout))


def _write_requests(bundle: _Bundle, port: int, folder: Path) -> Path:
    folder.mkdir()
    expected = map_patches(bundle.engines.patches, bundle.patches)
    for number, (patch, mask) in enumerate(zip(bundle.patches, expected, strict=True)):
        body, answer = _npy(patch[None]), _npy(mask[None])
        head = (
            f"POST /predict/patches HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        (folder / f"{number}.request").write_bytes(head.encode() + body)
        (folder / f"{number}.answer").write_bytes(answer)
    return folder


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _engine_claims(bundle: _Bundle, eager_s: float, table: Table) -> list[Claim]:
    """Compare the networks alone: what is prepared before and after is the same for all."""
    model, step = bundle.engines.patches, bundle.engines.patches.network.step
    inputs = model.normalise(bundle.patches[:BATCH])
    table.add_row("eager PyTorch", f"{1 / eager_s:.1f} a core")
    claims = []
    for file, least in ((FLOAT32, FLOAT32_FASTER), (INT8, INT8_FASTER)):
        path = bundle.served / ENGINE / file
        name = f"OpenVINO {path.stem}"
        if not path.exists():
            how = "it does not answer as recorded, and is not in the bundle"
            claims.append(Claim(f"{name}: speed of eager PyTorch", 0.0, least, how, at_least=True))
            continue
        engine = OpenVino(path, step)
        engine_s = _cpu_s(partial(engine, inputs)) / BATCH
        table.add_row(name, f"{1 / engine_s:.1f} a core")
        how = "CPU seconds of a batch of 16 prepared patches; medians of 5"
        ratio = eager_s / engine_s
        claims.append(Claim(f"{name}: speed of eager PyTorch", ratio, least, how, at_least=True))
    return claims


def _service_claims(bundle: _Bundle, load: _Load, turns: int, table: Table) -> list[Claim]:
    ready_s = statistics.median(
        check_bundle(bundle.tag, bundle.store, bundle.package / "recorded.npz", READY_WITHIN_S)[
            "ready_s"
        ]
        for _ in range(turns)
    )
    bare, served, tails, batches = [], [], [], []
    with _service(bundle) as (port, requests):
        load.ask(port, requests)
        for _ in range(turns):
            speed, batch_s = _bare(bundle, load.requests)
            times = load.ask(port, requests)
            bare.append(speed)
            batches.append(batch_s)
            served.append(len(times) / float(times[:, 1].max() - times[:, 0].min()))
            tails.append(float(np.quantile(times[:, 1] - times[:, 0], 0.99)))
    engine = bundle.engines.engine
    for name, speeds in (("bare", bare), ("by HTTP", served)):
        table.add_row(f"{engine.name}, {name}", f"{statistics.median(speeds):.1f}")
    share = statistics.median(one / other for one, other in zip(served, bare, strict=True))
    tail = statistics.median(one / other for one, other in zip(tails, batches, strict=True))
    how = f"{engine.name}, {load.clients} clients, median of {turns} turns"
    tail_s, batch_s = statistics.median(tails), statistics.median(batches)
    p99 = f"{tail_s:.2f} s, a batch {batch_s:.2f} s; {how}"
    return [
        Claim("share of the bare engine by HTTP", share, MIN_OF_BARE, how, at_least=True),
        Claim("99th percentile, in times of a batch", tail, MAX_BATCHES, p99),
        Claim("ready: seconds", ready_s, READY_S, f"median of {turns} starts"),
    ]


def _bare(bundle: _Bundle, patches: int) -> tuple[float, float]:
    """Return the patches a second without HTTP, and the seconds of a batch."""
    engines = bundle.engines
    size = max(1, BATCH // engines.callers)
    batch, taken = bundle.patches[:size], []

    def answer(_: int) -> None:
        started = time.monotonic()
        map_patches(engines.patches, batch)
        taken.append(time.monotonic() - started)

    started = time.monotonic()
    with ThreadPoolExecutor(engines.callers) as callers:
        list(callers.map(answer, range(patches // size)))
    return len(taken) * size / (time.monotonic() - started), statistics.median(taken)


def _memory_claim(bundle: _Bundle, load: _Load) -> Claim:
    """Compare the memory after a tenth of the requests with that after all."""
    first, rest = (
        replace(load, requests=count)
        for count in (load.requests // 10, load.requests - load.requests // 10)
    )
    memory = []
    with _service(bundle) as (port, requests):
        for part in (first, rest):
            part.ask(port, requests)
            processes = psutil.Process().children(recursive=True)
            memory.append(sum(process.memory_full_info().pss for process in processes))
    growth = (memory[1] - memory[0]) / 2**20
    how = f"{memory[0] / 2**20:.0f} MiB after {first.requests} requests, then {rest.requests} more"
    return Claim("growth of memory: MiB", growth, MAX_GROWTH_MIB, how)


@contextmanager
def _service(bundle: _Bundle) -> Iterator[tuple[int, Path]]:
    """Serve a bundle; give its port, and a folder with requests for it."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        kept = {JOURNAL: str(home / "journal")}
        folder = bundle_folder(bundle.tag, bundle.store)
        with closing(BundleServer(folder, home / "serve.log", "", environment=kept)) as server:
            server.wait_until_ready(READY_WITHIN_S)
            yield server.port, _write_requests(bundle, server.port, home / "requests")


if __name__ == "__main__":
    sys.exit(main())
