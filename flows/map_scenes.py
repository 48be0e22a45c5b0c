"""Flow `map`: many scenes, each a task, in threads of this machine or on Dask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.support import fan_out, open_workspace, show_table
from sarflood.errors import SarfloodError
from sarflood.mapping.outputs import FILES
from sarflood.mapping.scenes import SceneFiles, find_scenes, map_into, scratch_folder
from sarflood.params import load_params
from sarflood.promotion.registry import fetch_version, find_version
from sarflood.workspace import check_seen, seen_here


@flow(name="map", validate_parameters=False)
def map_scenes(
    scenes: list[str], out: str, version: str | None = None, workspace: str | None = None
) -> State[dict[str, Any]]:
    """Map scenes with a version, by default the one in production.

    A scene that fails is named at the end, when all others are mapped. One that the same version
    has mapped into `out` before is not mapped again.

    Args:
        scenes: GeoTIFFs, or folders with `scene.tif` and maybe `pre.tif`.
        out: The folder that gets a folder with the maps of each scene.
        version: Such as `v0.3.0`.
        workspace: Its folder; by default the one that the process stands in.
    """
    place = open_workspace(workspace)
    logger = get_run_logger()
    found = find_version(place, version)
    files = find_scenes(Path(scene).resolve() for scene in scenes)
    package = fetch_version(place, found)
    folder = Path(out).resolve()
    maps: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    with scratch_folder(folder) as scratch, fan_out(place) as runner:
        settings = {
            "package": package,
            "scratch": scratch,
            "version": found.version,
            "max_megapixels": load_params(place.params).serving.max_megapixels,
        }
        futures = {
            scene.name: runner.submit(
                map_one,
                {
                    "scene": scene,
                    "target": folder / scene.name,
                    "seen": seen_here((*scene.paths, package, scratch)),
                    **settings,
                },
            )
            for scene in files
        }
        for name, future in futures.items():
            try:
                summary = future.result()
                check_seen([folder / name / FILES["summary"]])
            except Exception as error:  # noqa: BLE001 - whatever became of one, the others go on
                failed[name] = str(error)
                logger.warning("%s: failed: %s", name, error)
            else:
                maps[name] = summary
                word = "mapped" if summary["new"] else "was mapped before"
                logger.info("%s: %s, %.6g km² wet", name, word, summary["flooded_km2"])
    rows = [{"scene": name, "flooded km²": row["flooded_km2"]} for name, row in maps.items()]
    rows += [{"scene": name, "failed": reason} for name, reason in failed.items()]
    show_table("maps", rows, f"Maps by {found.version} in {folder}")
    if failed:
        message = "\n".join(
            [
                f"{len(failed)} of {len(files)} scenes failed, {len(maps)} are in {folder}:",
                *(f"  {name}: {reason}" for name, reason in failed.items()),
            ]
        )
        state = "Partly" if maps else "Failed"
        return Failed(name=state, message=message, data=SarfloodError(message))
    new = sum(row["new"] for row in maps.values())
    message = f"{new} mapped by {found.version}, {len(maps) - new} known"
    return Completed(name="Mapped" if new else "Nothing new", message=message, data=maps)


@task(task_run_name="map {scene.name}", persist_result=False)
def map_one(
    package: Path,
    scene: SceneFiles,
    scratch: Path,
    target: Path,
    version: str,
    max_megapixels: int,
    seen: tuple[Path, ...],
) -> dict[str, Any]:
    """Map one scene; only paths come here, and a summary goes back.

    Dask's workers get this by value, what it names by import: that cannot be of this module, which
    Prefect loads under a name of its own.
    """
    check_seen(seen)
    return map_into(package, scene, scratch, target, version=version, max_megapixels=max_megapixels)
