"""What is mapped as one: files, products of the archive, items of a STAC."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sarflood.errors import InputError
from sarflood.files import sha256
from sarflood.mapping.acquired import acquired
from sarflood.mapping.bands import ROLES, Files, of_date
from sarflood.raster.grd import flown, is_safe
from sarflood.raster.terrain import Orbit, orbit_of
from sarflood.sources.manifest import MANIFEST
from sarflood.sources.stac import fetch_stac, is_remote, is_stac, read_item


@dataclass(frozen=True)
class SceneFiles:
    """The files of a scene, or the STAC item that names them.

    Attributes:
        name: Of the scene, and of the folder with its maps.
        files: Each with what it is: `scene`, or `scene_vv` and `scene_vh`, GeoTIFFs of the flood,
            `scene` also the SAFE folder of a GRD product; `pre` likewise, from before the flood.
            None of an item, whose files are not here yet.
        item: The path or address of a STAC item; None where there is none.
        moment: When it was acquired, as the item says.
        orbit: Which way the satellite flew, as the item says.
    """

    name: str
    files: tuple[tuple[str, Path], ...]
    item: str | None = None
    moment: dt.datetime | None = None
    orbit: str | None = None

    @property
    def scene(self) -> Files:
        """The flood: a file, or one for each polarisation."""
        found = of_date(dict(self.files), "scene")
        if found is None:
            raise _without_scene(self.name)
        return found

    @property
    def pre(self) -> Files | None:
        """Likewise, from before the flood; None where there is none."""
        return of_date(dict(self.files), "pre")

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(path for _, path in self.files)

    @property
    def acquired(self) -> dt.datetime | None:
        """When it was acquired, in UTC; None where nothing tells."""
        return self.moment or (acquired(self.paths[0]) if self.paths else None)

    @property
    def flown(self) -> Orbit | None:
        """Which way the satellite flew, as an item or a GRD product says it; None of other scenes.

        Raises:
            InputError: The product is not whole.
        """
        if self.item:
            return orbit_of(self.orbit or "")
        scene = self.scene
        return flown(scene) if isinstance(scene, Path) and is_safe(scene) else None

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each file.

        Raises:
            InputError: A file cannot be read.
        """
        try:
            return {name: _hash(path) for name, path in self.files}
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


def find_scene(source: str | Path) -> SceneFiles:
    """Return the scene at a path or address.

    That is a GeoTIFF; the SAFE folder of a GRD product; a folder with `scene.tif`, or with
    `scene_vv.tif` and `scene_vh.tif`, and maybe `pre.tif` or the same of it; or a STAC item by path
    or http address.

    Raises:
        InputError: It is no STAC item, or a catalogue of several.
        NetworkError: The address does not answer.
    """
    if is_remote(str(source)) or (Path(source).is_file() and is_stac(Path(source))):
        address = str(source) if is_remote(str(source)) else str(Path(source).resolve())
        name, moment, orbit = read_item(address)
        return SceneFiles(name, (), address, moment, orbit)
    path = Path(source).absolute()
    if not path.is_dir() or is_safe(path):
        return SceneFiles(path.resolve().stem, (("scene", path),))
    return SceneFiles(path.resolve().name, _in_folder(path))


def with_scene_before(flood: SceneFiles, before: SceneFiles) -> SceneFiles:
    """Return a scene with the files of one from before the flood.

    Raises:
        InputError: `flood` names what was there before itself; `before` is a STAC item, has a scene
            from before as well, or no scene.
    """
    if flood.item or flood.pre:
        raise InputError(
            f"{flood.item or flood.name}: names what was there before the flood itself; leave out "
            "--pre"
        )
    if before.item or before.pre:
        what = "a STAC item" if before.item else "a scene with one from before it"
        raise InputError(f"--pre {before.item or before.name}: {what}; name a scene's own files")
    if not before.files:
        raise _without_scene(before.name)
    files = ((name.replace("scene", "pre", 1), path) for name, path in before.files)
    return replace(flood, files=(*flood.files, *files))


def find_scenes(sources: Iterable[str | Path]) -> list[SceneFiles]:
    """Return the scenes at some paths and addresses.

    Raises:
        InputError: As `find_scene`; or two have one name, and so one folder for their maps.
        NetworkError: As `find_scene`.
    """
    found: dict[str, str | Path] = {}
    scenes = []
    for source in sources:
        scene = find_scene(source)
        if scene.name in found:
            raise InputError(
                f"{found[scene.name]}, {source}: both are named {scene.name}, and so would be the "
                "folders of their maps; rename one, or map them one by one"
            )
        found[scene.name] = source
        scenes.append(scene)
    return scenes


def bring(item: str, folder: Path) -> SceneFiles:
    """Bring the files of a STAC item into a folder, unless all of them are there.

    Raises:
        InputError: It names no VV and VH, or what it must not.
        NetworkError: An address does not answer, or breaks off.
    """
    if not (folder / MANIFEST).exists():  # which comes last
        shutil.rmtree(folder, ignore_errors=True)
        fetch_stac(item, folder)
    return SceneFiles(folder.name, _in_folder(folder), item)


def _without_scene(name: str) -> InputError:
    return InputError(f"{name}: no scene.tif, nor scene_vv.tif and scene_vh.tif")


def _in_folder(folder: Path) -> tuple[tuple[str, Path], ...]:
    files = ((name, folder / f"{name}.tif") for name in ROLES)
    return tuple((name, path) for name, path in files if path.exists())


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of a product's files."""
    if not is_safe(path):
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = "".join(f"{sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()
