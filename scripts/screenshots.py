"""Pictures of the map page for docs/, of simulated data in Debian's Chromium.

After `make demo`: `python scripts/screenshots.py`. The bundle that the demo made is served.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from sarflood.promotion.registry import find_version
from sarflood.serving.bundle import stored_tag
from sarflood.serving.check import serving_bundle
from sarflood.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "build" / "demo"
SCENE = DEMO / "crising"
IMAGES = ROOT / "docs" / "images"
COLOURS = 200  # of a picture: speckle makes large files
WITHIN_MS = 120_000.0
WINDOWS: dict[str, dict[str, Any]] = {
    "page": {"viewport": {"width": 1280, "height": 800}},
    "page-dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "page-narrow": {"viewport": {"width": 390, "height": 800}, "is_mobile": True},
}


def main() -> None:
    """Take the pictures and say where they are."""
    chromium = shutil.which("chromium")
    if chromium is None or not SCENE.is_dir():
        sys.exit("needs Debian's package `chromium`, and what `make demo` makes")
    workspace, log = Workspace(DEMO / "workspace"), DEMO / "screenshots.log"
    tag = stored_tag(find_version(workspace, None).version, workspace.bentos)
    with (
        serving_bundle(tag, workspace.bentos, token="", ready_within_s=120, log=log) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, window in WINDOWS.items():
            context = browser.new_context(**window)
            page = context.new_page()
            page.goto(url)
            map_scene(page)
            take(page, name)
            if name == "page":
                page.locator("#version").click()
                expect(page.get_by_role("dialog")).to_be_visible()
                take(page, "page-card")
            context.close()
        browser.close()


def map_scene(page: Page) -> None:
    """Map the scene that no model has seen, and click on its second area."""
    for slot in ("scene", "pre"):
        page.locator(f"[data-slot={slot}] input").set_input_files(SCENE / f"{slot}.tif")
    page.get_by_role("button", name="Map the flood").click(timeout=WITHIN_MS)
    rows = page.locator("#largest tbody tr")
    expect(rows.first).to_be_visible(timeout=WITHIN_MS)
    whole = page.evaluate("scrollY")
    rows.nth(1).locator("button").evaluate("button => button.click()")
    page.evaluate(f"scrollTo(0, {whole})")
    expect(page.locator(".area")).to_be_visible()


def take(page: Page, name: str) -> None:
    """Write a picture."""
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
