"""Many scenes mapped by one model: the maps of each in a folder, which is whole or not there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sarflood.errors import InputError
from sarflood.files import sha256
from sarflood.mapping.outputs import FILES, make_folder, write_map
from sarflood.mapping.scene import map_scene
from sarflood.model.package import FloodModel, load_model

SCRATCH = ".mapping"  # in the folder of the maps, so that a map is put there by a rename


@dataclass(frozen=True)
class SceneFiles:
    """What is mapped as one.

    Attributes:
        name: Of the scene, and of the folder with its maps.
        scene: GeoTIFF of the flood.
        pre: GeoTIFF from before the flood.
    """

    name: str
    scene: Path
    pre: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return (self.scene, self.pre) if self.pre else (self.scene,)

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of `scene` and, if there is one, `pre`.

        Raises:
            InputError: A file cannot be read.
        """
        try:
            return dict(zip(("scene", "pre"), map(sha256, self.paths), strict=False))
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


def find_scene(path: Path) -> SceneFiles:
    """Return the scene at a path: a GeoTIFF, or a folder with `scene.tif` and maybe `pre.tif`."""
    if not path.is_dir():
        return SceneFiles(path.stem, path)
    pre = path / "pre.tif"
    return SceneFiles(path.resolve().name, path / "scene.tif", pre if pre.exists() else None)


def find_scenes(paths: Iterable[Path]) -> list[SceneFiles]:
    """Return the scenes at some paths.

    Raises:
        InputError: Two have one name, and so one folder for their maps.
    """
    found: dict[str, SceneFiles] = {}
    for path in paths:
        scene = find_scene(path)
        if scene.name in found:
            raise InputError(
                f"{scene.scene}, {found[scene.name].scene}: both are named {scene.name}, and so "
                "would be the folders of their maps; rename one, or map them one by one"
            )
        found[scene.name] = scene
    return list(found.values())


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder in `out` for maps that are being made; gone at the end.

    What killed workers have left in it goes, too.

    Raises:
        InputError: `out` cannot be written, or another command maps scenes into it.
    """
    make_folder(out)
    folder = out / SCRATCH
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise InputError(
            f"{out}: another command maps scenes into it; wait for its end, or name another folder"
        ) from error


def map_into(
    package: Path,
    scene: SceneFiles,
    scratch: Path,
    target: Path,
    *,
    version: str,
    max_megapixels: int,
) -> dict[str, Any]:
    """Map a scene into a folder of its own, unless the same version mapped the same files before.

    The model is loaded once a process. An earlier map of the scene is replaced.

    Args:
        package: The model's.
        scene: The files.
        scratch: A folder on the file system of `target`.
        target: The folder of the maps: it is there whole or not at all.
        version: The model's version.
        max_megapixels: A larger scene is refused from its header.

    Returns:
        The summary, and under `new` whether the scene was mapped now.

    Raises:
        InputError: As `map_scene`; or `target` holds other files than a map.
    """
    inputs = scene.hashes()
    known = _known(target)
    if known and (known.get("version"), known.get("inputs")) == (version, inputs):
        return {**known, "new": False}
    model = _model(package)
    with tempfile.TemporaryDirectory(prefix=f"{scene.name[:64]}-", dir=scratch) as name:
        made = Path(name) / "made"
        result = map_scene(model, scene.scene, scene.pre, max_megapixels=max_megapixels)
        write_map(result, made, version=version, scene=scene.scene, inputs=inputs)
        if target.exists():
            target.rename(Path(name) / "former")
        made.rename(target)
    return {**_known(target), "new": True}


def _known(target: Path) -> dict[str, Any]:
    """Return the summary of the map in a folder; {} where there is no whole one.

    Raises:
        InputError: There are other files, which a new map would take away.
    """
    try:
        names = {path.name for path in target.iterdir()}
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        names = {"a file of that name"}
    if others := names - set(FILES.values()):
        raise InputError(
            f"{target}: holds {min(others)}, which belongs to no map; move it, or name another "
            "folder with --out"
        )
    try:
        summary = json.loads((target / FILES["summary"]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) and names == set(FILES.values()) else {}


@lru_cache(maxsize=1)
def _model(package: Path) -> FloodModel:
    return load_model(package)
