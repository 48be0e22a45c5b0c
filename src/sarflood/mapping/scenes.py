"""Scenes mapped into folders: once each, and gone on with where a killed run has left off."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock, Timeout

from sarflood.errors import InputError
from sarflood.mapping.bands import Files, open_scene, scene_grid
from sarflood.mapping.convert import load_fastest
from sarflood.mapping.folder import FILES, make_folder, write_map
from sarflood.mapping.scene import answer_strips, finished
from sarflood.mapping.sources import SceneFiles, bring
from sarflood.mapping.tiles import spans
from sarflood.mapping.wanted import Wanted, check_wanted, check_zones
from sarflood.model.package import FloodModel, load_manifest, load_model
from sarflood.monitoring.reference import REFERENCE, read_reference
from sarflood.raster.grd import geocode, grd_images, is_safe
from sarflood.sources.stac import is_remote

SCRATCH = ".mapping"  # in the folder of the maps
STRIPS_A_PART = 4  # of 1024 rows: a scene of Sentinel-1 has four or five parts
_LOADING = Lock()


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Give a folder in `out` for maps that are being made; gone at the end if nothing is left.

    What a killed run has left there is gone on with when its scene is mapped again.

    Raises:
        InputError: `out` cannot be written, or another command maps scenes into it.
    """
    make_folder(out)
    folder = out / SCRATCH
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            folder.mkdir(exist_ok=True)
            try:
                yield folder
            finally:
                with suppress(OSError):  # the beginnings of a map lie there
                    folder.rmdir()
    except Timeout as error:
        raise InputError(
            f"{out}: another command maps scenes into it; wait for its end, or name another folder"
        ) from error


@dataclass(frozen=True)
class Job:
    """A scene to be mapped into a folder.

    Attributes:
        package: The model's.
        scene: The files.
        scratch: A folder for what is not whole yet, on the file system of `target`.
        target: The folder of the map.
        version: The model's version.
        may_round: Whether an engine may compute it that rounds.
        wanted: What is asked of the files.
    """

    package: Path
    scene: SceneFiles
    scratch: Path
    target: Path
    version: str
    may_round: bool
    wanted: Wanted = field(default_factory=Wanted)


@dataclass(frozen=True)
class Begun:
    """A job whose files were looked at.

    Attributes:
        inputs: Their SHA-256, and the STAC item that names them.
        wanted: What is asked of the map's files, with the way that the satellite flew.
        said: The same as plain JSON, with the SHA-256 of what is read for it.
        known: The summary, if the same version has mapped the same files in the same way into the
            folder before.
        work: The folder for the map's rasters, that only the same version and files go on with.
        scene: What is read as the scene: a GRD product lies geocoded in `work`.
        pre: Likewise, from before the flood.
        firsts: The strips that the parts of the job begin with.
    """

    inputs: dict[str, str]
    wanted: Wanted
    said: dict[str, Any]
    known: dict[str, Any] | None
    work: Path
    scene: Files
    pre: Files | None
    firsts: tuple[int, ...]


def begin(job: Job, *, in_parts: bool = False) -> Begun:
    """Look whether there is something to do, and how it can be shared out.

    Args:
        job: The job.
        in_parts: Share it out, some strips a part.

    The files of a STAC item are brought first.

    Raises:
        InputError: The files do not fit the model, or cannot be read; or radar shadow is asked for,
            and nothing says which way the satellite flew.
        NetworkError: An address of the item does not answer.
    """
    files = job.scene
    inputs = {} if files.item else files.hashes()  # says what is not there before all else
    asked = _with_orbit(job)
    said, known = asked.said(), _known(job.target)
    if known and (known.get("version"), known.get("wanted")) != (job.version, said):
        known = {}
    check_wanted(asked)
    if files.item:
        named = {"item": files.item}
        if known and is_remote(files.item) and known["inputs"].get("item") == files.item:
            return Begun(known["inputs"], asked, said, known, job.scratch, {}, None, ())
        work = job.scratch / _key(job.version, named)
        files = bring(files.item, work / "item")
        inputs = {**named, **files.hashes()}
    else:
        work = job.scratch / _key(job.version, inputs)
    if known and known["inputs"] == inputs:
        shutil.rmtree(work, ignore_errors=True)  # what was brought
        return Begun(inputs, asked, said, known, work, {}, None, ())
    scene, pre = files.scene, files.pre
    scene = _readable(scene, work / "scene")
    pre = _readable(pre, work / "pre") if pre else None
    firsts: tuple[int, ...] = (0,)
    if in_parts or job.wanted.zones:
        manifest = load_manifest(job.package)
        with open_scene(manifest, scene, pre) as bands:
            if in_parts:
                firsts = tuple(range(0, len(spans(bands.height)), STRIPS_A_PART))
        check_zones(job.wanted, scene_grid(manifest, scene, pre))
    return Begun(inputs, asked, said, None, work, scene, pre, firsts)


def _readable(path: Files, folder: Path) -> Files:
    """Return a scene's files; a GRD product is geocoded first, unless that was done before."""
    if not isinstance(path, Path) or not is_safe(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for polarisation, image in grd_images(path).items():
        made[polarisation] = folder / f"{polarisation}.tif"
        if not made[polarisation].exists():
            geocode(image, made[polarisation])
    return made


def map_part(
    job: Job,
    begun: Begun,
    part: int = 0,
    on_progress: Callable[[float], object] | None = None,
) -> None:
    """Map a part of a scene. Killed, it goes on from its last finished rows when called again.

    The model is loaded once a process.

    Raises:
        InputError: As `map_scene`.
    """
    answer_strips(
        _model(job.package, may_round=job.may_round),
        begun.scene,
        begun.pre,
        folder=begun.work,
        first=begun.firsts[part],
        last=(*begun.firsts, None)[part + 1],
        on_progress=on_progress,
        ranges=_ranges(job.package),
    )


def finish(job: Job, begun: Begun) -> dict[str, Any]:
    """Write the map of a scene, all parts of which are there; return its summary.

    Raises:
        InputError: `target` cannot be written, such as on a full disk.
    """
    result = finished(
        load_model(job.package),
        begun.scene,
        begun.pre,
        folder=begun.work,
        firsts=begun.firsts,
        knows_outside=_ranges(job.package) is not None,
    )
    when = job.scene.acquired
    origin = {
        "scene": job.scene.item or job.scene.paths[0].name,
        "acquired": when.isoformat() if when else None,
        "inputs": begun.inputs,
        "wanted": begun.said,
    }
    write_map(result, job.target, version=job.version, origin=origin, wanted=begun.wanted)
    shutil.rmtree(begun.work)
    return _known(job.target)


def _with_orbit(job: Job) -> Wanted:
    """Return what is asked of the files, with the way that the satellite flew: the scene knows.

    Raises:
        InputError: Radar shadow is asked for, and nothing says which way.
    """
    terrain = job.wanted.terrain
    if terrain is None:
        return job.wanted
    orbit = job.scene.flown or terrain.orbit
    if orbit is None:
        raise InputError(
            f"{job.scene.name}: does not say which way the satellite flew: --dem needs --orbit "
            "ascending or descending, for the radar looks east or west, and shadow falls to the "
            "other side"
        )
    found = terrain.model_copy(update={"orbit": orbit})
    return job.wanted.model_copy(update={"terrain": found})


def map_into(job: Job, on_progress: Callable[[float], object] | None = None) -> dict[str, Any]:
    """Map a scene into a folder, unless the same version has mapped it in the same way before.

    An earlier map there is replaced.

    Args:
        job: What, and where to.
        on_progress: Is told the share that is done, up to 1.

    Returns:
        The summary, and under `new` whether the scene was mapped now.

    Raises:
        InputError: As `map_scene`.
    """
    begun = begin(job)
    if begun.known:
        return {**begun.known, "new": False}
    map_part(job, begun, on_progress=on_progress)
    return {**finish(job, begun), "new": True}


def _key(version: str, inputs: Mapping[str, str]) -> str:
    """Return what a folder is called that only the same version and files may go on with."""
    said = json.dumps([version, inputs], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:20]


def _known(target: Path) -> dict[str, Any]:
    """Return the summary of the map in a folder; {} where there is no whole one."""
    try:
        summary = json.loads((target / FILES["summary"]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = all((target / file).exists() for file in FILES.values())
    return summary if isinstance(summary, dict) and whole else {}


def _model(package: Path, *, may_round: bool) -> FloodModel:
    with _LOADING:  # scenes that begin together load it once
        return _loaded(package, may_round=may_round)


@lru_cache(maxsize=1)
def _loaded(package: Path, *, may_round: bool) -> FloodModel:
    return load_fastest(package, may_round=may_round)


def _ranges(package: Path) -> dict[str, tuple[float, float]] | None:
    """Return between which values each band's training lay; early versions do not tell."""
    return read_reference(package).ranges() if (package / REFERENCE).exists() else None
