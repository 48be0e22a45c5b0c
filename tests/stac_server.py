"""A STAC API with items in memory and their files on disk, which misbehaves when it is told to."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attr
import numpy as np
import uvicorn
from affine import Affine
from fastapi import HTTPException, Request
from stac_fastapi.api.app import StacApi
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError
from stac_fastapi.types.rfc3339 import str_to_interval
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

BBOX = (120.5, 14.5, 120.6, 14.6)
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DROP = "drop"  # breaks off in the middle of an answer
Fault = int | str | Response


@attr.s
class Items(BaseCoreClient):
    """Searches the items by collection, box and time, `page` at a time, in the order of arrival."""

    held: list[dict[str, Any]] = attr.ib(factory=list)
    page: int = attr.ib(default=2)
    repeats: bool = attr.ib(default=False)  # the last item of a page again on the next one

    def get_search(self, *_: Any, **asked: Any) -> Any:
        request: Request = asked["request"]
        if asked["bbox"][0] > asked["bbox"][2]:
            raise HTTPException(400, "this server knows no antimeridian")
        found = [item for item in self.held if self._matches(item, asked)]
        start = int(request.query_params.get("token", 0))
        end = start + self.page
        links = []
        if end < len(found):
            address = request.url.include_query_params(token=end)
            links.append({"rel": "next", "type": "application/geo+json", "href": str(address)})
        first = start - 1 if self.repeats and start else start
        return {
            "type": "FeatureCollection",
            "features": [self._linked(item, request) for item in found[first:end]],
            "links": links,
        }

    def _matches(self, item: dict[str, Any], asked: dict[str, Any]) -> bool:
        west, south, east, north = asked["bbox"]
        box = item["bbox"]
        interval = str_to_interval(asked["datetime"])
        assert isinstance(interval, tuple)
        since, until = interval
        moment = dt.datetime.fromisoformat(item["properties"]["datetime"])
        return (
            item["collection"] in asked["collections"]
            and (box[0] <= east and west <= box[2] and box[1] <= north and south <= box[3])
            and (since is None or since <= moment)
            and (until is None or moment <= until)
        )

    def _linked(self, item: dict[str, Any], request: Request) -> dict[str, Any]:
        base = str(request.base_url)
        itself = f"{base}collections/{item['collection']}/items/{item['id']}"
        assets = {
            key: {**asset, "href": base + asset["href"]} for key, asset in item["assets"].items()
        }
        links = item["links"] or [
            {"rel": "self", "type": "application/geo+json", "href": itself},
            {"rel": "root", "type": "application/json", "href": base},
        ]
        return {**item, "links": links, "assets": assets}

    def get_item(self, item_id: str, collection_id: str, **asked: Any) -> Any:
        for item in self.held:
            if (item["id"], item["collection"]) == (item_id, collection_id):
                return self._linked(item, asked["request"])
        raise NotFoundError(item_id)

    def _not_served(self, *_: Any, **__: Any) -> Any:
        raise NotFoundError("this server answers GET /search and items alone")

    post_search = all_collections = get_collection = item_collection = _not_served


class StacServer:
    """A STAC API on the loopback.

    Attributes:
        url: Of its landing page.
        items: What it holds.
        folder: The files of its items.
        asked: The paths that were asked for.
        faults: What becomes of the next answers at a path, instead of the answer.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.items = Items()
        self.asked: list[str] = []
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self._app = StacApi(settings=ApiSettings(), client=self.items).app
        self._app.mount("/files", StaticFiles(directory=folder))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.asked.append(path)
        fault = self.faults[path].pop(0) if self.faults[path] else None
        if fault is None:
            await self._app(scope, receive, send)
        elif fault == DROP:
            headers = [(b"content-length", b"100000"), (b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"type": "', "more_body": True})
        else:
            if isinstance(fault, int):
                fault = PlainTextResponse("no", fault, {"Retry-After": "0"})
            await fault(scope, receive, send)  # type: ignore[operator]

    def publish(
        self,
        name: str,
        days_ago: float,
        *,
        files: tuple[str, ...] = (),
        collection: str = "sentinel-1-rtc",
        bbox: tuple[float, float, float, float] = BBOX,
        links: list[dict[str, str]] | None = None,
    ) -> None:
        """Add an item with a GeoTIFF of `folder` an asset, by its key."""
        west, south, east, north = bbox
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        self.items.held.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": name,
                "collection": collection,
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "bbox": list(bbox),
                "properties": {"datetime": (NOW - dt.timedelta(days=days_ago)).isoformat()},
                "assets": {
                    key: {"href": f"files/{name}-{key}.tif", "type": "image/tiff"} for key in files
                },
                "links": links or [],
            }
        )

    def scene(self, name: str, seed: int, write_raster: Callable[..., Path]) -> None:
        """Write VV and VH of an item, as calibrated backscatter on ground of its own."""
        rng = np.random.default_rng(seed)
        where = Affine(10, 0, 300_000 + 10_000 * seed, 0, -10, 1_600_000)
        for key, level in (("vv", 0.1), ("vh", 0.02)):
            values = level * rng.gamma(4.4, 1 / 4.4, (256, 512))
            path = self.folder / f"{name}-{key}.tif"
            write_raster(path, values.astype(np.float32), transform=where)


@contextmanager
def stac_server(folder: Path) -> Iterator[StacServer]:
    """Serve a STAC API on a free port of the loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who connects before the server runs waits
        made = StacServer(f"http://127.0.0.1:{listener.getsockname()[1]}/", folder)
        config = uvicorn.Config(made, lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield made
        finally:
            server.should_exit = True
            thread.join()
