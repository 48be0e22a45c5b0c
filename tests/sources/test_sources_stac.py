"""STAC items and catalogues, read from disk and from a server on the loopback."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pystac
import pytest
from affine import Affine
from tiny import full_disk

from sarflood.errors import InputError, NetworkError, SarfloodError
from sarflood.sources import remote, stac
from sarflood.sources.fetch import local_copy
from sarflood.sources.manifest import read_manifest
from sarflood.sources.reader import RawPatch

WriteRaster = Callable[..., Path]
ReadAll = Callable[[Path], list[RawPatch]]
DEEP = f'{{"type": "Feature", "stac_version": "1.0.0", "properties": {"[" * 1000}{"]" * 1000}}}'
WHERE = Affine(10, 0, 400_000, 0, -10, 1_700_000)


class Served(BaseHTTPRequestHandler):
    """Serves the files of `root`, and misbehaves where `special` says how."""

    root: Path
    special: dict[str, Callable[[Served], None]]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path in self.special:
            self.special[self.path](self)
            return
        path = self.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, type[Served]]]:
    handler = type("Handler", (Served,), {"root": tmp_path / "site", "special": {}, "asked": []})
    (tmp_path / "site").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}", handler
        finally:
            served.shutdown()
            thread.join()


def item(folder: Path, write_raster: WriteRaster, name: str = "one", seed: int = 0) -> Path:
    """Write an item with VV, VH and a mask of 300×270 pixels."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for band, level in (("vv", -10.0), ("vh", -17.0)):
        values = (level + rng.normal(0, 2, (300, 270))).astype(np.float32)
        write_raster(folder / f"{name}-{band}.tif", values, transform=WHERE)
    mask = (rng.random((300, 270)) < 0.2).astype(np.uint8)
    write_raster(folder / f"{name}-mask.tif", mask, transform=WHERE)
    made = pystac.Item(
        name,
        None,
        None,
        dt.datetime(2020, 11, 12, tzinfo=dt.UTC),
        {"license": "CC-BY-4.0"},
    )
    for key, roles in (("vv", ["data"]), ("vh", ["data"]), ("mask", ["labels"])):
        made.add_asset(
            key,
            pystac.Asset(
                f"./{name}-{key}.tif", media_type="image/tiff; application=geotiff", roles=roles
            ),
        )
    made.add_asset(
        "thumbnail", pystac.Asset("./t.png", media_type="image/png", roles=["thumbnail"])
    )
    path = folder / f"{name}.json"
    path.write_text(json.dumps(made.to_dict()))
    return path


def edit(path: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    content = json.loads(path.read_text())
    change(content["assets"])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("remote", [False, True])
def test_an_item_becomes_a_scene(
    remote: bool,
    tmp_path: Path,
    server: tuple[str, type[Served]],
    write_raster: WriteRaster,
    read_all: ReadAll,
) -> None:
    path = item(tmp_path / "site" / "items", write_raster)
    address = f"{server[0]}/items/one.json"
    root = local_copy(address if remote else str(path), tmp_path / "scratch")
    patches = read_all(root)
    assert len(patches) == 4
    assert patches[0].crs == "EPSG:32651"
    assert patches[0].mask is not None
    manifest = read_manifest(root)
    assert manifest.acquired == dt.date(2020, 11, 12)
    assert manifest.source is not None
    assert manifest.source.licence == "CC-BY-4.0"
    assert manifest.source.url == (address if remote else None)
    assert "/items/t.png" not in server[1].asked


@pytest.mark.parametrize("remote", [False, True])
def test_a_catalogue_becomes_a_folder_of_scenes(
    remote: bool,
    tmp_path: Path,
    server: tuple[str, type[Served]],
    write_raster: WriteRaster,
    read_all: ReadAll,
) -> None:
    site = tmp_path / "site"
    catalogue = pystac.Catalog("floods", "two frames")
    for number, name in enumerate(("north", "south")):
        path = item(site / name, write_raster, name, number)
        catalogue.add_link(pystac.Link("item", f"./{name}/{path.name}", "application/json"))
    content = catalogue.to_dict(include_self_link=False)
    (site / "catalog.json").write_text(json.dumps(content))
    source = f"{server[0]}/catalog.json" if remote else str(site / "catalog.json")
    patches = read_all(local_copy(source, tmp_path / "scratch"))
    assert {patch.grid for patch in patches} == {"north", "south"}
    assert len(patches) == 8


def test_polarisations_are_told_by_what_the_item_says(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll
) -> None:
    path = item(tmp_path / "site", write_raster)

    def rename(assets: dict[str, dict[str, object]]) -> None:
        for key in ("vv", "vh"):
            asset = assets.pop(key)
            assets[f"band-{ord(key[1])}"] = {**asset, "sar:polarizations": [key.upper()]}

    for band in ("vv", "vh"):
        (path.parent / f"one-{band}.tif").rename(path.parent / f"x{ord(band[1])}.tif")
    edit(path, rename)
    text = path.read_text().replace("one-vv.tif", "x118.tif").replace("one-vh.tif", "x104.tif")
    path.write_text(text)
    assert len(read_all(local_copy(str(path), tmp_path / "scratch"))) == 4


def refused(source: str, tmp_path: Path, error: type[SarfloodError], match: str) -> None:
    with pytest.raises(error, match=match):
        local_copy(source, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists(), "nothing half brought is left"


@pytest.mark.parametrize(
    ("href", "match"),
    [
        ("file:///etc/passwd", "only http addresses"),
        ("/etc/passwd", "only http addresses|404"),
        ("ftp://127.0.0.1/x.tif", "only http addresses"),
    ],
)
def test_what_comes_from_afar_may_name_no_local_file(
    href: str,
    match: str,
    tmp_path: Path,
    server: tuple[str, type[Served]],
    write_raster: WriteRaster,
) -> None:
    path = item(tmp_path / "site", write_raster)
    edit(path, lambda assets: assets["vv"].update(href=href, type="image/tiff"))
    refused(f"{server[0]}/one.json", tmp_path, SarfloodError, match)


def test_a_redirect_to_a_local_file_is_not_followed(
    tmp_path: Path, server: tuple[str, type[Served]], write_raster: WriteRaster
) -> None:
    item(tmp_path / "site", write_raster)

    def elsewhere(request: Served) -> None:
        request.send_response(302)
        request.send_header("Location", "file:///etc/passwd")
        request.send_header("Content-Length", "0")
        request.end_headers()

    server[1].special["/one-vh.tif"] = elsewhere
    refused(f"{server[0]}/one.json", tmp_path, InputError, "names file:///etc/passwd; only http")


def test_a_download_that_breaks_off_is_an_error(
    tmp_path: Path, server: tuple[str, type[Served]], write_raster: WriteRaster
) -> None:
    item(tmp_path / "site", write_raster)

    def broken(request: Served) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        request.wfile.write(b"II*\0")

    server[1].special["/one-vh.tif"] = broken
    refused(f"{server[0]}/one.json", tmp_path, NetworkError, r"one-vh\.tif: does not answer as it")


@pytest.mark.parametrize("from_afar", [False, True])
def test_a_full_disk_is_said(
    from_afar: bool,
    tmp_path: Path,
    server: tuple[str, type[Served]],
    write_raster: WriteRaster,
) -> None:
    path = item(tmp_path / "site", write_raster)
    source = f"{server[0]}/one.json" if from_afar else str(path)
    with full_disk():
        refused(source, tmp_path, SarfloodError, r"one\.json: cannot be written .*too large")


def test_a_missing_asset_and_too_large_ones_are_named(
    tmp_path: Path,
    server: tuple[str, type[Served]],
    write_raster: WriteRaster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = item(tmp_path / "site", write_raster)
    monkeypatch.setattr(stac, "MAX_ASSET_BYTES", 1000)
    refused(f"{server[0]}/one.json", tmp_path, InputError, "at most 1,000")
    monkeypatch.undo()
    (path.parent / "one-vh.tif").unlink()
    refused(f"{server[0]}/one.json", tmp_path, InputError, r"one-vh\.tif: 404 Not Found")


def test_an_item_without_radar_says_what_it_has(tmp_path: Path, write_raster: WriteRaster) -> None:
    path = item(tmp_path / "site", write_raster)
    edit(path, lambda assets: assets.pop("vh"))
    refused(str(path), tmp_path, InputError, "has the assets vv, mask, thumbnail; needed")


def test_a_busy_server_is_asked_again(
    tmp_path: Path, server: tuple[str, type[Served]], write_raster: WriteRaster, read_all: ReadAll
) -> None:
    path = item(tmp_path / "site", write_raster)
    content = (path.parent / "one-vv.tif").read_bytes()

    def busy_once(request: Served) -> None:
        again = request.asked.count(request.path) > 1
        request.send_response(200 if again else 503)
        request.send_header("Content-Length", str(len(content) if again else 0))
        request.end_headers()
        request.wfile.write(content if again else b"")

    server[1].special["/one-vv.tif"] = busy_once
    assert len(read_all(local_copy(f"{server[0]}/one.json", tmp_path / "scratch"))) == 4


@pytest.mark.parametrize("text", ["<!DOCTYPE html>", "{", '{"type": "Feature"}', "[]", DEEP])
def test_what_is_no_stac_is_said(
    text: str, tmp_path: Path, server: tuple[str, type[Served]]
) -> None:
    (tmp_path / "site" / "item.json").write_text(text)
    refused(f"{server[0]}/item.json", tmp_path, SarfloodError, "not a STAC item|item.json")


def test_no_answer_is_an_error(tmp_path: Path, server: tuple[str, type[Served]]) -> None:
    refused(f"{server[0]}/nowhere.json", tmp_path, InputError, "nowhere.json: 404 Not Found")


def test_a_document_without_end_is_not_read(
    tmp_path: Path, server: tuple[str, type[Served]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MAX_JSON_BYTES", 1000)

    def endless(request: Served) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):
            while True:
                request.wfile.write(b"[" * 1000)

    server[1].special["/item.json"] = endless
    refused(f"{server[0]}/item.json", tmp_path, InputError, "item.json: more than 1,000 bytes")


@pytest.mark.parametrize("source", ["s3://bucket/item.json", "ftp://127.0.0.1/a.zip"])
def test_other_addresses_are_refused(source: str, tmp_path: Path) -> None:
    refused(source, tmp_path, InputError, "paths or http addresses")
