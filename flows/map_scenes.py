"""Flow `map`: many scenes, in threads of this machine or, in parts, on Dask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from flows.support import (
    RETRIED,
    end_of_maps,
    fan_out,
    open_workspace,
    submitted_ahead,
    tasks_at_once,
)
from sarflood.mapping.folder import FILES
from sarflood.mapping.scenes import (
    Begun,
    Job,
    begin,
    finish,
    map_part,
    scratch_folder,
)
from sarflood.mapping.series import check_dated, write_series
from sarflood.mapping.sources import find_scenes
from sarflood.mapping.wanted import Wanted
from sarflood.params import load_params
from sarflood.promotion.registry import Version, fetch_version, find_version
from sarflood.workspace import Workspace, check_seen, seen_here


@flow(name="map", validate_parameters=False)
def map_scenes(
    scenes: list[str],
    out: str,
    version: str | None = None,
    wanted: dict[str, Any] | None = None,
    series: bool = False,
    workspace: str | None = None,
) -> State[dict[str, Any]]:
    """Map scenes with a version, by default the one in production.

    A scene that fails is named at the end, when all others are mapped. One that the same version
    has mapped into `out` before is not mapped again.

    Args:
        scenes: What `sarflood.mapping.sources.find_scene` takes; relative paths start where the
            process stands.
        out: The folder that gets a folder with the maps of each scene.
        version: Such as `v0.3.0`.
        wanted: What the files of each map are to hold, see `sarflood.mapping.wanted.Wanted`.
        series: Whether to follow the flood through the scenes' dates, too.
        workspace: Its folder; by default the one that the process stands in.
    """
    place = open_workspace(workspace)
    logger = get_run_logger()
    found = find_version(place, version)
    files = find_scenes(scenes)
    asked = Wanted.model_validate(wanted or {})
    if series:
        check_dated(files)
    package = fetch(place, found)
    folder = Path(out).resolve()
    maps: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    params = load_params(place.params)
    may_round, in_parts = params.serving.engine == "auto", params.run.dask is not None
    runner: Any  # the two kinds of runners have no common type
    with scratch_folder(folder) as scratch, fan_out(place) as runner:
        jobs = [
            Job(package, scene, scratch, folder / scene.name, found.version, may_round, asked)
            for scene in files
        ]
        seen = {job: seen_here((package, scratch, *job.scene.paths, *asked.paths)) for job in jobs}

        def fails(name: str, error: Exception) -> None:
            failed[name] = str(error)
            logger.warning("%s: failed: %s", name, error)

        mapping: dict[Job, list[PrefectFuture[Any]]] = {}
        # Scenes are brought while those before are mapped, not all of them first.
        for job, looking in submitted_ahead(
            jobs,
            lambda job: runner.submit(look, {"job": job, "seen": seen[job], "in_parts": in_parts}),
            lambda: 2 * tasks_at_once(runner),  # an item may wait long for its server
        ):
            try:
                begun = looking.result()
            except Exception as error:  # noqa: BLE001 - whatever became of one, the others go on
                fails(job.scene.name, error)
                continue
            if begun.known:
                maps[job.scene.name] = {**begun.known, "new": False}
                logger.info("%s: was mapped before", job.scene.name)
                continue
            words = {"job": job, "begun": begun, "seen": seen[job]}
            parts: list[PrefectFuture[Any]] = [
                runner.submit(map_strips, {**words, "part": part})
                for part in range(len(begun.firsts))
            ]
            mapping[job] = [*parts, runner.submit(write, words, wait_for=parts)]
        for job, futures in mapping.items():
            name = job.scene.name
            try:
                summary = [future.result() for future in futures][-1]
                check_seen([job.target / FILES["summary"]])
            except Exception as error:  # noqa: BLE001 - as above
                fails(name, error)
            else:
                maps[name] = {**summary, "new": True}
                logger.info("%s: mapped, %.6g km² wet", name, summary["flooded_km2"])
    if series and len(maps) > 1:
        write_series(folder, maps)
    return end_of_maps(maps, failed, found.version, folder)


@task(task_run_name="fetch {version.version}", persist_result=False, **RETRIED)
def fetch(workspace: Workspace, version: Version) -> Path:
    """Bring the version's model package from the DVC cache or remote."""
    return fetch_version(workspace, version)


# Only paths come to tasks, and summaries go back. Dask's workers get tasks and the flow by value,
# what they name by import: that cannot be of this module, which Prefect loads under a name of its
# own.


@task(task_run_name="look at {job.scene.name}", persist_result=False, **RETRIED)
def look(job: Job, seen: tuple[Path, ...], *, in_parts: bool) -> Begun:
    """Look whether a scene has to be mapped, and in how many parts; bring it if it is an item."""
    check_seen(seen)
    return begin(job, in_parts=in_parts)


@task(task_run_name="map {job.scene.name}, part {part}", persist_result=False)
def map_strips(job: Job, begun: Begun, part: int, seen: tuple[Path, ...]) -> None:
    """Map one part of a scene."""
    check_seen(seen)
    map_part(job, begun, part)


@task(task_run_name="write {job.scene.name}", persist_result=False)
def write(job: Job, begun: Begun, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Write the map of a scene whose parts are there."""
    check_seen(seen)
    return finish(job, begun)
