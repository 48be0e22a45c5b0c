"""The map page in a real browser, before the real application."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import rasterio
import torch
import uvicorn
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from shapely.geometry import shape
from tiny import LIMITS, by_torch, network_params, tiny_model, write_scene
from torch import Tensor

from sarflood.model.package import FloodModel
from sarflood.model.unet import UNet
from sarflood.serving.app import create_api
from sarflood.serving.guard import Guard
from sarflood.serving.served import BundleInfo, Served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WITHIN_MS = 120_000.0  # on a machine that is busy with other things
TOKEN = "a-token+of/our=own"
CARD = (
    "# flood-unet\n\n<script>alert(1)</script>\n\n| IoU |\n| --- |\n| 0.9 |\n\n[x](javascript:1)\n"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here; install Debian's package `chromium`"
    ),
]


class Darkness(UNet):
    """Calls wet what is dark."""

    def forward(self, images: Tensor) -> Tensor:
        wet = -4.0 * images.mean(dim=1, keepdim=True) - 2.0
        return torch.cat((torch.zeros_like(wet), wet), dim=1)


@dataclass
class Site:
    """Where the application answers, and how programs ask it."""

    url: str
    client: httpx.Client

    def predict(self, scene: Path, accept: str) -> bytes:
        """What a program gets for the scene."""
        answer = self.client.post(
            "/predict", files={"scene": scene.read_bytes()}, headers={"Accept": accept}
        )
        assert answer.status_code == 200, answer.text
        return answer.content


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    model = FloodModel(tiny_model().manifest, Darkness(2, network_params()).eval())
    served = Served(
        by_torch(model),
        BundleInfo(version="v0.3.0", serving=LIMITS.model_copy(update={"max_seconds": 600.0})),
        CARD,
    )
    config = uvicorn.Config(Guard(create_api(lambda: served), TOKEN), log_level="warning")
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # who connects waits until it is served
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=url, headers=headers, timeout=300, trust_env=False) as client:
            yield Site(url, client)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET])
        yield browser
        browser.close()


@dataclass
class Seen:
    """What the page asked for, and what its console said."""

    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def page(browser: Browser, site: Site, seen: Seen) -> Iterator[Page]:
    """The page, opened with the token; at the end it has asked nobody else, and nothing failed."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    context.set_default_timeout(WITHIN_MS)
    page = context.new_page()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.said.append(f"error: {error}"))
    page.goto(f"{site.url}/#token={TOKEN}")
    expect(page.locator("#scene-form")).to_be_visible(timeout=WITHIN_MS)
    yield page
    context.close()
    assert {urlsplit(url).netloc for url in seen.requests} <= {urlsplit(site.url).netloc, ""}
    assert seen.said == []


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three lakes, the largest of them with an island, and a strip without data."""
    row, col = np.mgrid[:160, :150]
    far = np.hypot(row - 90, col - 80)
    wet = (far < 45) & (far > 15)
    for lake_row, lake_col, radius in ((35, 25, 12), (140, 30, 8)):
        wet |= np.hypot(row - lake_row, col - lake_col) < radius
    image = np.where(wet, -20.0, -9.0) + np.random.default_rng(1).normal(0, 0.5, (2, 160, 150))
    image[:, :20] = np.nan
    return write_scene(tmp_path_factory.mktemp("scene") / "ulysses.tif", image.astype(np.float32))


@pytest.fixture(scope="module")
def areas(site: Site, scene: Path) -> list[dict[str, Any]]:
    """The polygons, the largest first."""
    collection = json.loads(site.predict(scene, "application/geo+json"))
    return sorted(
        collection["features"], key=lambda area: area["properties"]["area_km2"], reverse=True
    )


def drop(page: Page, selector: str, *files: Path) -> None:
    """Drop files on an element, as a file manager does."""
    contents = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    transfer = page.evaluate_handle(
        """contents => {
            const transfer = new DataTransfer();
            for (const [name, text] of contents) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name));
            }
            return transfer;
        }""",
        contents,
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def map_dropped(page: Page, *files: Path) -> None:
    drop(page, "#map", *files)
    page.get_by_role("button", name="Map the flood").click()
    expect(page.locator("#largest tbody tr").first).to_be_visible(timeout=WITHIN_MS)


def place_of(page: Page, site: Site, scene: Path, lon: float, lat: float) -> tuple[float, float]:
    """Where on the screen a longitude and latitude of the shown scene are."""
    picture = page.locator(".leaflet-flood-pane img")
    picture.element_handle().wait_for_element_state("stable")  # the map moves to show a popup
    box = picture.bounding_box()
    assert box
    form = site.predict(scene, "multipart/form-data")
    start = form.index(b'{"bounds"')
    west, south, east, north = json.loads(form[start : form.index(b"}", start) + 1])["bounds"]
    bottom, top, y = np.arcsinh(np.tan(np.radians((south, north, lat))))
    x = box["x"] + box["width"] * (lon - west) / (east - west)
    return x, float(box["y"] + box["height"] * (top - y) / (top - bottom))


def opacity(layer: Locator) -> float:
    return float(layer.evaluate("element => getComputedStyle(element).opacity"))


def number(locator: Locator) -> float:
    return float(locator.get_attribute("value") or "nan")


def test_a_dropped_scene_becomes_a_map(
    page: Page, site: Site, scene: Path, areas: list[dict[str, Any]]
) -> None:
    map_dropped(page, scene)
    figures = json.loads(site.predict(scene, "application/json"))
    assert number(page.locator("#area data")) == figures["flooded_km2"]
    assert page.locator("#area-of").inner_text() == "flooded in ulysses.tif"
    shown = page.locator("#figures").inner_text()
    for text in ("areas\n3\n", "v0.3.0", "0.500", "87.5 %", "150 × 160", "EPSG:32651"):
        assert text in shown
    largest = [float(text) for text in page.locator("#largest button").all_inner_texts()]
    expected = [area["properties"]["area_km2"] for area in areas[:10]]
    assert largest == pytest.approx(expected, rel=5e-3)
    for pane in ("radar", "flood"):
        picture = page.locator(f".leaflet-{pane}-pane img")
        assert picture.evaluate("image => image.complete && image.naturalWidth") > 400

    # Sliders, by the keyboard.
    page.locator("#flood").press("Home")
    assert opacity(page.locator(".leaflet-flood-pane img")) == 0
    assert opacity(page.locator(".leaflet-radar-pane img")) == 1
    for _ in range(10):
        page.locator("#radar").press("ArrowLeft")
    assert opacity(page.locator(".leaflet-radar-pane img")) == pytest.approx(0.9)
    expect(page.locator("output[for=radar]")).to_have_text("90 %")


def test_a_click_on_an_area_tells_its_size(
    page: Page, site: Site, scene: Path, areas: list[dict[str, Any]]
) -> None:
    map_dropped(page, scene)
    popup = page.locator(".area")
    assert len(areas) == 3
    for area in areas:
        inside = shape(area["geometry"]).representative_point()
        page.mouse.click(*place_of(page, site, scene, inside.x, inside.y))
        told = popup.filter(has=page.locator(f"data[value='{area['properties']['area_km2']}']"))
        expect(told).to_contain_text(" km²")
        assert number(told.locator("span data")) == area["properties"]["mean_probability"]
    island = shape(areas[0]["geometry"]).centroid
    page.mouse.click(*place_of(page, site, scene, island.x, island.y))
    expect(popup).to_have_count(0)

    # The table does the same, by the keyboard, and shows where the area is.
    page.locator("#largest button").nth(1).press("Enter")
    expect(popup.locator(f"data[value='{areas[1]['properties']['area_km2']}']")).to_be_visible()
    inside = shape(areas[1]["geometry"]).centroid
    x, y = place_of(page, site, scene, inside.x, inside.y)
    box = page.locator("#map").bounding_box()
    assert box
    assert abs(x - (box["x"] + box["width"] / 2)) < box["width"] / 4
    assert abs(y - (box["y"] + box["height"] / 2)) < box["height"] / 4


def test_what_is_downloaded_is_what_the_service_answers(
    page: Page, site: Site, scene: Path
) -> None:
    map_dropped(page, scene)
    for name, expected in (
        ("flood.tif", site.predict(scene, "image/tiff")),
        ("flood.geojson", site.predict(scene, "application/geo+json")),
        ("probability.tif", site.predict(scene, "image/tiff; product=probability")),
    ):
        with page.expect_download() as waiting:
            page.get_by_role("link", name=name).click()
        assert waiting.value.suggested_filename == f"ulysses-{name}"
        content = waiting.value.path().read_bytes()
        assert content == expected


def test_a_refusal_is_the_sentence_of_the_service(
    page: Page, seen: Seen, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.tif").write_text("not a picture at all")
    drop(page, "[data-slot=scene]", tmp_path / "notes.tif")
    page.get_by_role("button", name="Map the flood").click()
    fault = page.get_by_role("alert")
    expect(fault).to_contain_text("scene: not a GeoTIFF", timeout=WITHIN_MS)
    assert page.locator("#result").is_hidden()
    (said,) = seen.said
    assert "status of 415" in said
    seen.said.clear()

    # What is too large is not sent at all.
    (tmp_path / "large.tif").write_bytes(b"II*\0" + bytes(16_100_000))
    asked = len(seen.requests)
    page.locator("[data-slot=scene] input").set_input_files(tmp_path / "large.tif")
    page.get_by_role("button", name="Map the flood").click()
    expect(fault).to_contain_text("16.1 MB are more than the 16 MB that it takes")
    assert len(seen.requests) == asked

    # And then all is well again.
    map_dropped(page, scene)
    expect(fault).to_be_hidden()


def test_each_polarisation_may_have_its_file(
    page: Page, site: Site, scene: Path, tmp_path: Path
) -> None:
    with rasterio.open(scene) as dataset:
        bands = dataset.read()
    files = [
        write_scene(tmp_path / f"S1A-{name}.tif", band[None])
        for name, band in zip(("VH", "vv"), bands[::-1], strict=True)
    ]
    map_dropped(page, *files)
    figures = json.loads(site.predict(scene, "application/json"))
    assert number(page.locator("#area data")) == figures["flooded_km2"]


def test_two_files_that_are_no_pair_are_not_sent(page: Page, seen: Seen, scene: Path) -> None:
    other = scene.with_name("ulysses_vv.tif")
    other.write_bytes(scene.read_bytes())
    asked = len(seen.requests)
    drop(page, "#map", scene, other)
    page.get_by_role("button", name="Map the flood").click()
    expect(page.get_by_role("alert")).to_contain_text("two with VV and VH in their names")
    assert len(seen.requests) == asked


def test_it_can_be_cancelled(page: Page, scene: Path) -> None:
    page.route("**/predict", lambda _: None)  # it gets nowhere
    drop(page, "#map", scene)
    page.get_by_role("button", name="Map the flood").click()
    expect(page.locator("#stage")).to_contain_text("Sending")
    expect(page.get_by_role("button", name="Map the flood")).to_be_disabled()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#work")).to_be_hidden()
    expect(page.get_by_role("button", name="Map the flood")).to_be_enabled()
    expect(page.get_by_role("alert")).to_be_hidden()
    page.unroute_all(behavior="ignoreErrors")


def test_the_card_of_the_version(page: Page) -> None:
    page.get_by_role("button", name="v0.3.0").click()
    card = page.get_by_role("dialog")
    expect(card.get_by_role("heading")).to_have_text("flood-unet")
    expect(card.get_by_role("cell")).to_have_text("0.9")
    expect(card).to_contain_text("<script>alert(1)</script>")
    assert card.locator("script, a").count() == 0
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


def test_the_token_is_asked_for_and_kept_to_the_tab(page: Page, site: Site, seen: Seen) -> None:
    assert page.url == f"{site.url}/"  # no token in the address, nor in the history
    assert page.evaluate("Object.values(sessionStorage)") == [TOKEN]
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    page.evaluate("sessionStorage.clear()")
    page.reload()
    expect(page.locator("#token-form")).to_be_visible(timeout=WITHIN_MS)
    expect(page.get_by_role("alert")).to_be_hidden()
    page.get_by_label("Token").fill("a wrong one")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("alert")).to_contain_text("missing or wrong", timeout=WITHIN_MS)
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#scene-form")).to_be_visible(timeout=WITHIN_MS)
    expect(page.locator("#token-form")).to_be_hidden()
    page.reload()
    expect(page.locator("#scene-form")).to_be_visible(timeout=WITHIN_MS)
    assert len(seen.said) == 2
    assert all("status of 401" in said for said in seen.said)
    seen.said.clear()


def test_a_small_dark_window(page: Page, scene: Path) -> None:
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 640})
    map_dropped(page, scene)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    expect(page.locator("#area")).to_be_in_viewport()
    expect(page.locator(".leaflet-flood-pane img")).to_be_in_viewport()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert all(int(level) < 64 for level in ground.strip("rgb()").split(","))


def test_nothing_inline_and_nothing_from_elsewhere_is_allowed(site: Site) -> None:
    assets = Path(__file__).parents[2] / "src" / "sarflood" / "serving" / "assets"
    names = [str(path.relative_to(assets)) for path in assets.rglob("*") if path.is_file()]
    assert len(names) > 8
    for address in ("/", *(f"/page/{name}" for name in names)):
        answer = httpx.get(site.url + address, trust_env=False)  # without the token
        assert answer.status_code == 200, address
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' blob:;"), address
        assert "unsafe" not in policy
    assert httpx.get(f"{site.url}/page/..%2f..%2fapp.py", trust_env=False).status_code == 404
