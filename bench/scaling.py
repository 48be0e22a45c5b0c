"""A scene in parts on Dask: how much sooner two workers of one core each are ready than one.

A worker is kept on a core of its own: with one alone the other core would read and write for it.
The parts are those of the flow `map`; what Prefect takes for its tasks is not in here. The last
step, which joins the parts and writes the files, is one task, and is told apart.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from distributed import Client, LocalCluster
from rich.console import Console

from bench.claims import Claim, parser, report
from bench.mapping import make_model, write_scene
from sarflood.mapping.scenes import Job, begin, finish, map_part, scratch_folder
from sarflood.mapping.sources import find_scene

say = Console(stderr=True).print


def part(job: Job, begun: Any, number: int) -> None:
    """Map a part on one thread, as a worker of one core does."""
    torch.set_num_threads(1)
    map_part(job, begun, number)


def seconds(folder: Path, job: Job, workers: int) -> tuple[float, float]:
    """Return the seconds for the parts, and for the last step, with so many workers."""
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(folder / "dask"),
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
        scratch_folder(job.scratch.parent),
    ):
        begun = begin(job, in_parts=True)
        client.run(torch.set_num_threads, 1)
        for core, address in enumerate(client.scheduler_info()["workers"]):
            client.run(_keep_on, core, workers=[address])
        client.run(_warm, job)
        started = time.monotonic()
        futures = [client.submit(part, job, begun, n) for n in range(len(begun.firsts))]
        client.gather(futures)
        parts = time.monotonic() - started
        client.submit(finish, job, begun).result()
        return parts, time.monotonic() - started - parts


def _keep_on(core: int) -> None:
    """Keep all threads of this process, and those that they begin, on one core."""
    chosen = {sorted(os.sched_getaffinity(0))[core]}
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), chosen)


def _warm(job: Job) -> None:
    """Import what a part needs, and load the model."""
    from sarflood.mapping.scenes import _model

    _model(job.package, may_round=job.may_round)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parser(__doc__ or "")
    options.add_argument("--height", type=int, default=16 * 1024, help="of the scene in pixels")
    options.add_argument("--width", type=int, default=1536)
    asked = options.parse_args(arguments)
    found = {}
    with tempfile.TemporaryDirectory(prefix="sarflood-scaling-") as name:
        folder = Path(name)
        scene = find_scene(write_scene(folder / "scene.tif", asked.height, asked.width))
        package = make_model(folder / "model", 8)
        for workers in (1, 2):
            out = folder / f"maps{workers}"
            job = Job(package, scene, out / ".mapping", out / "scene", "v0.0.0", may_round=False)
            found[workers] = seconds(folder, job, workers)
            say(f"{workers}: parts {found[workers][0]:.1f} s, last step {found[workers][1]:.1f} s")
    cores = os.cpu_count() or 1
    return report(
        [
            Claim(
                "times sooner with two workers than with one: the parts",
                found[1][0] / found[2][0],
                1.7,
                f"{asked.height} × {asked.width} pixels in 4 parts; this machine has {cores} cores",
                at_least=True,
            ),
            Claim(
                "share of the last step, done by one worker, in the time with one worker",
                found[1][1] / sum(found[1]),
                0.15,
                "joining the parts, COGs, polygons, preview",
            ),
        ],
        asked.json,
    )


if __name__ == "__main__":
    raise SystemExit(main())
