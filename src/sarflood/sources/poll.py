"""New items in an area of interest, asked of a STAC API, and the memory of those known."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from filelock import FileLock

from sarflood.errors import InputError
from sarflood.files import write_json
from sarflood.params import PollArea
from sarflood.workspace import Workspace

MAX_FOUND = 10_000
_PAGE = 100  # items that are asked for at once
_MAX_NAME = 200
_LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class NewItem:
    """An item that is not known yet.

    Attributes:
        key: Collection and id: tells it from all others of its server.
        name: Its id.
        event: Id of the event that it becomes.
        acquired: When it was; long ago where the item does not say.
        address: Where the item itself lies.
        problem: Why it cannot be taken in, where that is known already.
    """

    key: str
    name: str
    event: str
    acquired: dt.datetime
    address: str
    problem: str | None


class Seen:
    """The items of an area that were taken in or refused, in a JSON file.

    Raises:
        InputError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fates: dict[str, dict[str, str | None]] = {}
        if path.exists():
            try:
                self._fates = dict(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise InputError(
                    f"{path}: cannot be read: {error}; remove it: items are brought again then, "
                    "and events that are there already stay as they are"
                ) from error

    def __contains__(self, key: object) -> bool:
        return key in self._fates

    def keep(self, item: NewItem, refused: str | None = None) -> None:
        """Remember an item for good, once it is an event or refused for a reason."""
        self._fates[item.key] = {"event": item.event, "refused": refused}
        write_json(self._path, self._fates)


@contextmanager
def seen_items(workspace: Workspace, area: PollArea) -> Iterator[Seen]:
    """Give what is known of an area, to one poll of it at a time."""
    path = workspace.cache / "poll" / f"{area.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        yield Seen(path)


def new_items(area: PollArea, seen: Container[str]) -> list[NewItem]:
    """Ask the server of an area for all items of the last days; return the unknown ones.

    That an item is known follows from its id alone, so one that appears late is found as well.

    Args:
        area: Where to ask, and for what.
        seen: The keys of the known items.

    Returns:
        `max_items` at most, in the order of their acquisition.

    Raises:
        InputError: The server is no STAC API, answers with too much, or leads to another server.
        NetworkError: It does not answer, or breaks off.
    """
    found = {item.key: item for item in _found(area) if item.key not in seen}
    ordered = sorted(found.values(), key=lambda item: (item.acquired, item.key))
    return ordered[: area.max_items]


def plain(text: str) -> str:
    """Return text of a server as one short line, fit for a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:1000]


def _found(area: PollArea) -> Iterator[NewItem]:
    from pystac_client import Client
    from pystac_client.warnings import PystacClientWarning

    from sarflood.sources.remote import NOT_STAC, GuardedIO

    since = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(days=area.since_days)
    try:
        client = Client.open(area.url, stac_io=GuardedIO(partial(_check_server, area.url)))
        for box in area.boxes():
            search = client.search(
                method="GET",  # a question that may be asked again
                collections=list(area.collections),
                bbox=box,
                datetime=(since, None),
                limit=_PAGE,
            )
            for number, feature in enumerate(search.items_as_dicts()):
                if number == MAX_FOUND:
                    raise InputError(
                        f"{area.url}: more than {MAX_FOUND:,} items; lower since_days of the area "
                        f"{area.name}, or make its bbox smaller"
                    )
                yield _item(area, feature)
    except (*NOT_STAC, PystacClientWarning) as error:
        raise InputError(
            f"{area.url}: does not answer as a STAC API: {plain(str(error))}"
        ) from error


def _check_server(url: str, address: str) -> None:
    """Refuse an address of another server than that of `url`."""
    if _server(address) != _server(url):
        raise InputError(
            f"{url}: names {plain(address)} on another server; if that is right, correct the url "
            "of the area in params.yaml"
        )


def _server(address: str) -> tuple[str | None, str | None, int | None]:
    from urllib3.util import parse_url  # as requests will take it

    parts = parse_url(address)
    return (
        parts.scheme,
        parts.host,
        parts.port or {"http": 80, "https": 443}.get(parts.scheme or ""),
    )


def _item(area: PollArea, feature: Any) -> NewItem:
    collection, name = _names(feature)
    key = f"{collection}/{name}"
    acquired, address, problem = _LONG_AGO, "", None
    try:
        acquired = _acquired(feature["properties"])
        links = (link["href"] for link in feature["links"] if link["rel"] == "self")
        address = urljoin(area.url, next(links))
        _check_server(area.url, address)
    except InputError as error:
        problem = str(error)
    except (AttributeError, LookupError, OverflowError, StopIteration, TypeError, ValueError):
        problem = "not a STAC item: needs an id, a datetime and a link to itself"
    return NewItem(key, name, _event_id(area.name, key, name), acquired, address, problem)


def _names(feature: Any) -> tuple[str, str]:
    """Return collection and id; where there is no sound id, a hash of all in its place."""
    said = feature if isinstance(feature, dict) else {}
    collection, name = said.get("collection") or "", said.get("id")
    for text in (collection, name):
        if not (isinstance(text, str) and text.isprintable() and len(text) <= _MAX_NAME):
            name = None
    if not name:
        whole = json.dumps(feature, sort_keys=True).encode()
        return "", f"item {hashlib.sha256(whole).hexdigest()[:12]} without a sound id"
    return collection, name


def _acquired(properties: dict[str, Any]) -> dt.datetime:
    moment = dt.datetime.fromisoformat(properties.get("datetime") or properties["start_datetime"])
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)


def _event_id(area: str, key: str, name: str) -> str:
    """Return an event id that no other item has, however long or odd the names are."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{area}-{name}".lower())
    mark = hashlib.sha256(f"{area}/{key}".encode()).hexdigest()[:12]
    return f"{words[:50].rstrip('-')}-{mark}"
