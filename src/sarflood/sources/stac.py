"""STAC items and static catalogues (https://stacspec.org), brought as folders of scenes."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import yaml

from sarflood.errors import InputError, SarfloodError
from sarflood.files import replacing, write_text
from sarflood.sources.manifest import MANIFEST

if TYPE_CHECKING:
    import pystac

    from sarflood.sources.remote import GuardedIO

MAX_ITEMS = 500
MAX_ASSET_BYTES = 50 * 2**30
MAX_JSON_BYTES = 32 * 2**20
_MASK = re.compile(r"(?<![a-z])(mask|label|labels|flood|water)(?![a-z])")
_PRE = re.compile(r"(?<![a-z])(pre|before|reference)(?![a-z])")
_POLARISATION = re.compile(r"(?<![a-z])(vv|vh)(?![a-z])")
_IMAGE, _VECTORS = (".tif", ".tiff"), (".geojson", ".gpkg")


def is_stac(path: Path) -> bool:
    """Say whether a file is a STAC item, catalogue or collection."""
    if path.suffix.lower() not in {".json", ".geojson"} or path.stat().st_size > MAX_JSON_BYTES:
        return False
    try:
        return "stac_version" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def fetch_stac(source: str, folder: Path) -> Path:
    """Bring the radar and mask assets of an item, or of all items of a catalogue.

    Args:
        source: An item or catalogue, by path or http address.
        folder: Is made; whole or not at all.

    Returns:
        `folder`: a scene, or a folder with a scene for each item; with a manifest.

    Raises:
        InputError: It is no STAC, names no VV and VH, or names something that it must not: a local
            file from afar or outside of the catalogue's folder.
        NetworkError: An address does not answer, or breaks off.
        SarfloodError: It cannot be written, such as on a full disk.
    """
    try:
        folder.mkdir(parents=True)
        _fetch(source, folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise SarfloodError(
            f"{source}: cannot be written to {folder.parent}: {error.strerror or error}"
        ) from error
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def _fetch(source: str, folder: Path) -> None:
    base, io, items = _read(source)
    for item in items:
        place = folder if len(items) == 1 else folder / _file_name(item.id)
        if place != folder and place.exists():
            raise InputError(f"{source}: two items have the id {item.id!r}")
        place.mkdir(exist_ok=True)
        for role, asset in _assets(source, item).items():
            address = str(asset.get_absolute_href() or asset.href)
            suffix = _suffix(asset)
            _bring(io, base, address, place / f"{role}{suffix}")
    write_text(folder / MANIFEST, _manifest(source, items))


def _read(source: str) -> tuple[str, GuardedIO, list[pystac.Item]]:
    """Return the address that links start from, what reads them, and the items."""
    import pystac

    from sarflood.sources.remote import NOT_STAC, GuardedIO

    base = source if is_remote(source) else str(Path(source).resolve())
    io = GuardedIO(partial(_check_address, base))
    try:
        found = pystac.read_file(base, stac_io=io)
        items = [found] if isinstance(found, pystac.Item) else list(_items_of(found))
    except NOT_STAC as error:
        raise InputError(f"{source}: not a STAC item or catalogue: {error}") from error
    if not items:
        raise InputError(f"{source}: the catalogue has no item")
    return base, io, items


def read_item(source: str) -> tuple[str, dt.datetime | None, str | None]:
    """Return the id of an item, as a name for files, and, if it says so, when and on which orbit.

    That is the moment of its acquisition, and `sat:orbit_state`, such as `ascending`.

    Args:
        source: Its path or http address.

    Raises:
        InputError: It is no STAC, or a catalogue of several items.
        NetworkError: An address does not answer.
    """
    _, _, items = _read(source)
    if len(items) > 1:
        raise InputError(f"{source}: a catalogue of several items; name them one by one")
    orbit = items[0].properties.get("sat:orbit_state")
    return _file_name(items[0].id), items[0].datetime, None if orbit is None else str(orbit)


def _items_of(catalogue: Any) -> Iterator[pystac.Item]:
    items = list(islice(catalogue.get_items(recursive=True), MAX_ITEMS + 1))
    if len(items) > MAX_ITEMS:
        raise InputError(f"{catalogue.id}: more than {MAX_ITEMS} items; name a smaller catalogue")
    yield from items


def is_remote(address: str) -> bool:
    """Say whether an address is one of http."""
    return address.startswith(("http://", "https://"))


def _check_address(base: str, address: str) -> None:
    """Refuse what a source must not name.

    What comes from afar may name addresses alone; a local catalogue also files in its folder.
    """
    if is_remote(address):
        return
    scheme = urlparse(address).scheme
    if is_remote(base) or scheme:
        raise InputError(f"{base}: names {address}; only http addresses may be named there")
    if not Path(address).resolve().is_relative_to(Path(base).parent):
        raise InputError(f"{base}: names {address}, which lies outside of the catalogue's folder")


def _assets(source: str, item: pystac.Item) -> dict[str, pystac.Asset]:
    """Choose an item's assets, by the names of a scene's files without suffix."""
    chosen: dict[str, pystac.Asset] = {}
    for key, asset in item.assets.items():
        role = _role(key, asset)
        if role is None:
            continue
        if role in chosen:
            raise InputError(f"{source}: item {item.id}: two assets could be {role}; remove one")
        chosen[role] = asset
    whole = "scene" in chosen or {"scene_vv", "scene_vh"} <= chosen.keys()
    if not whole:
        raise InputError(
            f"{source}: item {item.id} has the assets {', '.join(item.assets) or 'none'}; needed "
            "are GeoTIFFs of VV and VH, told by their keys or sar:polarizations"
        )
    return chosen


def _role(key: str, asset: pystac.Asset) -> str | None:
    words = f"{key} {Path(urlparse(asset.href).path).stem}".lower()
    roles = set(asset.roles or [])
    suffix = _suffix(asset)
    if "labels" in roles or (_MASK.search(key.lower()) and suffix in (*_IMAGE, *_VECTORS)):
        return "mask"
    if suffix not in _IMAGE or roles & {"thumbnail", "metadata", "overview"}:
        return None
    date = "pre" if _PRE.search(key.lower()) else "scene"
    stated = asset.extra_fields.get("sar:polarizations") or []
    told = {str(item).lower() for item in stated} or set(_POLARISATION.findall(words))
    if told == {"vv", "vh"} or (not told and {"data", "scene"} & (roles | {key.lower()})):
        return date
    return f"{date}_{told.pop()}" if told in ({"vv"}, {"vh"}) else None


def _suffix(asset: pystac.Asset) -> str:
    suffix = Path(urlparse(asset.href).path).suffix.lower()
    if (asset.media_type or "").startswith("image/tiff") or suffix == ".tiff":
        return ".tif"
    return ".geojson" if asset.media_type == "application/geo+json" else suffix


def _bring(io: GuardedIO, base: str, address: str, target: Path) -> None:
    """Copy or download a file, whole or not at all."""
    _check_address(base, address)
    pieces = io.pieces(address, MAX_ASSET_BYTES) if is_remote(address) else _pieces(Path(address))
    with replacing(target) as temporary, temporary.open("wb") as file:
        file.writelines(pieces)


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from iter(partial(file.read, 1 << 20), b"")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:200] or "item"


def _manifest(source: str, items: list[pystac.Item]) -> str:
    """Write down what the items say of the event."""
    first = items[0]
    days = sorted(item.datetime.date() for item in items if item.datetime)
    origin: dict[str, str] = {"name": first.collection_id or first.id}
    if is_remote(source):
        origin["url"] = source
    if licence := first.properties.get("license"):
        origin["licence"] = str(licence)
    said: dict[str, Any] = {"source": origin}
    if days:
        said["acquired"] = days[0]
    return yaml.safe_dump(said, allow_unicode=True)
