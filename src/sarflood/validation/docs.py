"""Data Docs that work without internet: built fresh, assets beside the pages, then swapped in."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from sarflood.errors import SarfloodError
from sarflood.files import write_text

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.ephemeral_data_context import (
        EphemeralDataContext,
    )

SITE = "sarflood"
# What Great Expectations' pages load from content networks, by the last part of the address, and
# the file in `assets` that takes its place. The dark theme and the charts of other expectations
# than ours are left out.
ASSETS = {
    "all.min.css": "icons.css",
    "bootstrap-datepicker.min.css": "bootstrap-datepicker.min.css",
    "bootstrap-datepicker.min.js": "bootstrap-datepicker.min.js",
    "bootstrap-prefers-dark.css": None,
    "bootstrap-table-filter-control.css": "bootstrap-table-filter-control.min.css",
    "bootstrap-table-filter-control.min.css": "bootstrap-table-filter-control.min.css",
    "bootstrap-table-filter-control.min.js": "bootstrap-table-filter-control.min.js",
    "bootstrap-table.min.css": "bootstrap-table.min.css",
    "bootstrap-table.min.js": "bootstrap-table.min.js",
    "bootstrap.min.css": "bootstrap.min.css",
    "bootstrap.min.js": "bootstrap.min.js",
    "jquery-3.7.1.min.js": "jquery.min.js",
    "popper.min.js": "popper.min.js",
    "vega-embed@6": None,
    "vega-lite@5": None,
    "vega@5": None,
}
NO_ASSET = "Data asset: None"  # what Great Expectations writes for a data frame
IMAGES = ("favicon.ico", "logo-long.png")  # the others are megabytes that no page shows

_SCRIPT = re.compile(r'<script\s[^>]*?src="(https?:[^"]+)"[^>]*></script>')
_STYLE = re.compile(r'<link\s[^>]*?href="(https?:[^"]+)"[^>]*>')
_IMAGE = re.compile(r'src="https?:[^"]*/([\w.-]+)(?:\?[^"]*)?"')
_BODY = re.compile(r"<body[^>]*>")
_ICON = re.compile(r'href="[./]*static/images/favicon\.ico"')
_BACKGROUND = re.compile(r"background: url\('https?:[^']*'\)[^;]*;")
_NEWSLETTER = re.compile(r"<footer>.*?</footer>", re.DOTALL)


def write_docs(context: EphemeralDataContext, folder: Path, title: str) -> None:
    """Build the Data Docs of all that `context` has validated; `folder/index.html` is their entry.

    Args:
        context: Its suites and validation results become pages.
        folder: Replaced as a whole, so that pages of earlier runs do not pile up.
        title: Which events the data are of, for the head of the result's page.

    Raises:
        SarfloodError: A page loads something that is not among the assets.
    """
    with _replacing_folder(folder) as fresh:
        context.add_data_docs_site(
            site_name=SITE,
            site_config={
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,  # type: ignore[typeddict-unknown-key]
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(fresh),
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            },
        )
        context.build_data_docs(site_names=[SITE])
        _add_assets(fresh)
        for page in fresh.rglob("*.html"):
            html = page.read_text(encoding="utf-8").replace(NO_ASSET, f"Data asset: {title}")
            to_root = "../" * (len(page.relative_to(fresh).parts) - 1)
            page.write_text(_offline(html, to_root), encoding="utf-8")


def add_page(folder: Path, page: str, title: str) -> None:
    """Link a page that lies in the Data Docs' folder from their entry.

    Args:
        folder: What `write_docs` wrote.
        page: The page's file name.
        title: What the link says.

    Raises:
        SarfloodError: The entry has no body to put the link in.
    """
    index = folder / "index.html"
    link = f'<p style="margin: 12px 24px"><a href="{escape(page)}">{escape(title)}</a></p>'
    html, count = _BODY.subn(lambda body: f"{body[0]}\n{link}", index.read_text("utf-8"), count=1)
    if not count:
        raise SarfloodError(f"{index}: no <body>; Great Expectations' pages have changed")
    write_text(index, html)


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside `folder`; swap it in once the block ended well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        fresh, old = Path(name) / "fresh", Path(name) / "old"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)


def _add_assets(site: Path) -> None:
    """Put our assets beside the pages; of Great Expectations' own keep what the pages show."""
    unused = site / "static"
    (site / "assets").mkdir()
    for image in IMAGES:
        shutil.copyfile(unused / "images" / image, site / "assets" / image)
    shutil.rmtree(unused)
    with as_file(files("sarflood.validation") / "assets") as assets:
        for asset in assets.iterdir():
            shutil.copyfile(asset, site / "assets" / asset.name)


def _offline(html: str, to_root: str) -> str:
    """Return a page that loads from `<to_root>assets` what it loaded from content networks."""

    def local(match: re.Match[str], tag: str) -> str:
        address = match[1]
        name = address.rpartition("/")[2]
        if name not in ASSETS:
            raise SarfloodError(
                f"Data Docs load {address}, which is not among sarflood's assets: "
                "Great Expectations' pages have changed; install the version in constraints.txt"
            )
        asset = ASSETS[name]
        return tag.format(f"{to_root}assets/{asset}") if asset else ""

    html = _NEWSLETTER.sub("", html)
    html = _BACKGROUND.sub("", html)
    html = _SCRIPT.sub(lambda match: local(match, '<script src="{}"></script>'), html)
    html = _STYLE.sub(lambda match: local(match, '<link rel="stylesheet" href="{}">'), html)
    html = _IMAGE.sub(lambda match: f'src="{to_root}assets/{match[1]}"', html)
    return _ICON.sub(f'href="{to_root}assets/favicon.ico"', html)
