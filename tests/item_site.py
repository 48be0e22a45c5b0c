"""A STAC item with the two polarisations of a scene, on disk and on a server of the loopback."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pystac
from numpy.typing import NDArray
from tiny import write_scene


class Site(SimpleHTTPRequestHandler):
    """Serves a folder and notes what is asked for; breaks off what `breaks` names, once."""

    def __init__(self, asked: list[str], breaks: set[str], *args: Any, **words: Any) -> None:
        self._asked, self._breaks = asked, breaks
        super().__init__(*args, **words)

    def do_GET(self) -> None:
        self._asked.append(self.path)
        if self.path in self._breaks:
            self._breaks.remove(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def write_apart(folder: Path, image: NDArray[Any]) -> Path:
    """Write the two polarisations (2, H, W) of a scene into a folder."""
    folder.mkdir(parents=True)
    for band, name in zip(image, ("vv", "vh"), strict=True):
        write_scene(folder / f"scene_{name}.tif", band[None], (name.upper(),))
    return folder


def write_item(folder: Path, image: NDArray[Any], name: str = "S1A_of_Beira") -> Path:
    """Write an item of such a scene beside its files."""
    write_apart(folder, image)
    made = pystac.Item(name, None, None, dt.datetime(2019, 3, 19, 16, tzinfo=dt.UTC), {})
    for key in ("vv", "vh"):
        href = f"./scene_{key}.tif"
        made.add_asset(key, pystac.Asset(href, media_type="image/tiff", roles=["data"]))
    made.save_object(include_self_link=False, dest_href=str(folder / "item.json"))
    return folder / "item.json"


@contextmanager
def serving(folder: Path, asked: list[str], breaks: set[str]) -> Iterator[str]:
    """Serve a folder; give its address."""
    handler = partial(Site, asked, breaks, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}"
        finally:
            served.shutdown()
            thread.join()
