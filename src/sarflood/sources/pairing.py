"""Which files of a source belong together, told from their names alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sarflood.errors import InputError
from sarflood.sources.reader import BadSourceError, Item

RASTERS = frozenset({".tif", ".tiff", ".png"})


@dataclass(frozen=True, order=True)
class Place:
    """What a file's name says: the item it belongs to, as what, and where it stands in the order.

    Attributes:
        order: Sorts the items of a source.
        name: The item's name.
        role: What the file is in the item, such as `vv` or `mask`.
    """

    order: tuple[int | str, ...]
    name: str
    role: str


@dataclass
class _Group:
    order: tuple[int | str, ...]
    files: dict[str, Path] = field(default_factory=dict)


def list_rasters(folder: Path) -> list[Path]:
    """List the GeoTIFFs and PNGs of a folder by name; hidden files do not count.

    A folder that is not there has none.

    Raises:
        InputError: The folder cannot be listed.
    """
    return [path for path in _list(folder) if path.suffix.lower() in RASTERS]


def list_folders(folder: Path) -> list[Path]:
    """List the folders in a folder by name; hidden ones do not count."""
    return [path for path in _list(folder) if path.is_dir()]


def _list(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error


def pair_files(
    root: Path,
    files: Iterable[Path],
    place_of: Callable[[Path], Place | None],
    roles: Mapping[str, str],
) -> Iterator[Item]:
    """Group files into items, in order; what does not fit is an item with its problem.

    Args:
        root: The source's folder.
        files: All rasters of the source.
        place_of: Reads a file's name; None where the layout has no such name.
        roles: The roles that an item needs, images first, each with its file's name in the layout.

    Yields:
        Whole items, items that lack a file, and stray files: each file is in exactly one item.
    """
    groups: dict[str, _Group] = {}
    strays: list[Item] = []
    for path in files:
        place = place_of(path)
        if place is None or place.role not in roles:
            problem = f"{path}: no name of this layout ({_wanted(roles)}); rename or remove it"
            strays.append(stray(root, path, problem))
            continue
        group = groups.setdefault(place.name, _Group(place.order))
        twin = group.files.setdefault(place.role, path)
        if twin != path:
            strays.append(stray(root, path, f"{path}: {twin} stands for the same; remove one"))
    for name, group in sorted(groups.items(), key=lambda pair: (pair[1].order, pair[0])):
        present = tuple(group.files[role] for role in roles if role in group.files)
        missing = [pattern for role, pattern in roles.items() if role not in group.files]
        problem = f"{present[0]}: {' and '.join(missing)} of it missing; an item is "
        yield Item(name, present, root, problem + _wanted(roles) if missing else None)
    yield from strays


def _wanted(roles: Mapping[str, str]) -> str:
    return " with ".join(roles.values())


def stray(root: Path, path: Path, problem: str) -> Item:
    """Return a file that has no place in its source as an item, which `admit` refuses."""
    return Item("-".join(path.relative_to(root).parts), (path,), root, problem)


def admit(item: Item) -> None:
    """Let an item's files be opened.

    Raises:
        BadSourceError: The item is not whole, or one of its files lies outside of the source.
    """
    if item.problem:
        raise BadSourceError(item.problem)
    for path in item.files:
        try:
            inside = path.resolve().is_relative_to(item.root.resolve())
        except (OSError, RuntimeError) as error:  # Python 3.11 has the latter for a loop
            raise BadSourceError(
                f"{path}: a link in a loop; put the file itself in its place"
            ) from error
        if not inside:
            raise BadSourceError(
                f"{path}: a link that leaves the source folder {item.root}; "
                "put the file itself in its place"
            )
        if path.exists() and not path.is_file():
            raise BadSourceError(f"{path}: not a regular file; put the image itself in its place")
