"""Zip and tar archives from outside, unpacked so that they can do no harm."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from sarflood.errors import InputError, SarfloodError

MAX_FILES = 400_000
MAX_BYTES = 400 * 2**30
MAX_RATIO = 200  # unpacked bytes for each byte of the archive; rasters pack 1 to 20 times
_FREE_BYTES = 64 * 2**20  # small archives may be empty rasters, which pack well
_MAX_NAME = 240
_PIECE = 1 << 20
_JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError)


@dataclass(frozen=True)
class _Member:
    name: str
    problem: str | None
    is_folder: bool
    opened: IO[bytes] | None


def is_archive(path: Path) -> bool:
    """Say by its content whether a file is a zip or tar archive, also a compressed one."""
    with path.open("rb") as file:
        start = file.read(4)
    # A GeoTIFF or PNG never begins so, but GeoPackages hold zips now and then: the start decides.
    return start.startswith(b"PK\x03\x04") or start == b"PK\x05\x06" or tarfile.is_tarfile(path)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive into a new folder, whole or not at all.

    Args:
        archive: A zip or tar file; a tar may be compressed by gzip, bzip2 or xz.
        folder: Is made.

    Returns:
        `folder`, or the one folder that all lies in.

    Raises:
        InputError: A name leads out of the folder, stands twice or is too long; an entry is no
            plain file; there are too many or too large ones; it is encrypted or damaged.
        SarfloodError: It cannot be written, such as on a full disk.
    """
    limit = min(MAX_BYTES, _FREE_BYTES + MAX_RATIO * archive.stat().st_size)
    folder.mkdir(parents=True)
    try:
        _unpack(archive, folder, limit)
    except _DAMAGED as error:
        shutil.rmtree(folder)
        raise InputError(f"{archive}: damaged or truncated ({error}); get it again") from error
    except OSError as error:
        shutil.rmtree(folder)
        raise SarfloodError(
            f"{archive}: cannot be unpacked ({error}); is the disk full?"
        ) from error
    except BaseException:
        shutil.rmtree(folder)
        raise
    inside = sorted(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _unpack(archive: Path, folder: Path, limit: int) -> None:
    seen: set[str] = set()
    written = 0
    for member in _members(archive):
        name = _checked_name(archive, member.name)
        if member.problem:
            raise InputError(f"{archive}: entry {member.name!r} {member.problem}; leave it out")
        if any(part in _JUNK or part.startswith("._") for part in name.parts) or not name.parts:
            continue
        target = folder.joinpath(*name.parts)
        if member.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        if str(name) in seen or len(seen) == MAX_FILES:
            what = "stands twice" if str(name) in seen else f"is one of more than {MAX_FILES:,}"
            raise InputError(f"{archive}: entry {member.name!r} {what}; pack the archive anew")
        seen.add(str(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while member.opened and (piece := member.opened.read(_PIECE)):
                written += len(piece)
                if written > limit:
                    raise InputError(
                        f"{archive}: unpacks to more than {limit >> 20:,} MiB, {MAX_RATIO} times "
                        "its size: a zip bomb, or pack it with less compression"
                    )
                file.write(piece)


def _checked_name(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise InputError(f"{archive}: entry {name!r} leads out of the archive; pack it anew")
    if "\0" in name or any(len(part.encode()) > _MAX_NAME for part in path.parts):
        raise InputError(f"{archive}: entry {name[:60]!r}… has a name that no file may have")
    return path


def _members(archive: Path) -> Iterator[_Member]:
    if not tarfile.is_tarfile(archive):
        yield from _zip_members(archive)
        return
    with tarfile.open(archive) as tar:
        for entry in tar:
            plain = entry.isreg() or entry.isdir()
            problem = None if plain else "is a link or a device, no plain file"
            opened = tar.extractfile(entry) if entry.isreg() else None
            yield _Member(entry.name, problem, entry.isdir(), opened)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            problem = None
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "is a link or a device, no plain file"
            elif entry.flag_bits & 1:
                problem = "is encrypted"
            if problem or entry.is_dir():
                yield _Member(entry.filename, problem, entry.is_dir(), None)
                continue
            with packed.open(entry) as opened:
                yield _Member(entry.filename, None, False, opened)
