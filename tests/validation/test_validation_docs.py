from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from validation_tables import BANDS, PARAMS, Image, Mask, patch_table

from sarflood.errors import SarfloodError
from sarflood.validation import docs as docs_module
from sarflood.validation.checkpoint import validate_table


class Loaded(HTMLParser):
    """Collects the addresses that a page loads: scripts, images, style sheets, icons."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"script": "src", "img": "src", "link": "href"}.get(tag)
        self.addresses += [value for name, value in attrs if name == wanted and value]


def swath_edge(image: Image, mask: Mask) -> None:
    image[:, 2:] = float("nan")


def write(folder: Path) -> None:
    table = patch_table(spoil={3: swath_edge})
    verdict = validate_table(table, bands=BANDS, units="db", params=PARAMS, docs=folder)
    assert not verdict.passed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "validation"
    write(folder)
    return folder


def pages(site: Path) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def test_every_page_loads_only_files_of_the_site(site: Path) -> None:
    assert len(pages(site)) == 3
    for path, html in pages(site).items():
        loaded = Loaded()
        loaded.feed(html)
        assert len(loaded.addresses) >= 10
        for address in loaded.addresses:
            target = path.parent / unquote(address.partition("?")[0])
            assert target.is_file(), f"{path.name} loads {address}"
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", html)
    for style in (site / "assets").glob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text("utf-8"))


def test_the_index_leads_to_the_result_and_the_suite(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    quoted = re.findall(r"['\"]((?:expectations|validations)/[^'\"]+)['\"]", unescape(index))
    linked = {unquote(link) for link in quoted}
    assert {(site / link).is_file() for link in linked} == {True}
    assert {link.split("/")[0] for link in linked} == {"expectations", "validations"}


def test_the_result_says_which_event_which_patch_and_why(site: Path) -> None:
    [result] = [html for path, html in pages(site).items() if "validations" in path.parts]
    text = unescape(result)
    assert "Data asset: event elbe-2013" in text
    assert "Sentinel-1 patches in dB" in text
    assert "Valid share. Refused if less than 5% of the pixels have data." in text
    assert "elbe-2013/p3" in text
    assert "elbe-2013/p4" not in text


def test_the_pages_tell_nothing_of_this_machine(site: Path) -> None:
    for html in pages(site).values():
        assert str(site.parent) not in html
        assert str(Path.home()) + "/" not in html
        assert "file://" not in html


def test_docs_are_replaced_not_piled_up(tmp_path: Path) -> None:
    folder = tmp_path / "validation"
    folder.mkdir()
    (folder / "of-an-earlier-run.html").touch()
    write(folder)
    write(folder)
    assert len(list(folder.rglob("validations/**/*.html"))) == 1
    assert not (folder / "of-an-earlier-run.html").exists()
    assert list(tmp_path.iterdir()) == [folder]


def test_docs_stay_when_new_ones_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").write_text("the old page")
    monkeypatch.delitem(docs_module.ASSETS, "bootstrap.min.css")
    with pytest.raises(SarfloodError, match=r"bootstrap\.min\.css, which is not among"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_each_asset_is_there_and_together_they_are_small() -> None:
    folder = Path(docs_module.__file__).parent / "assets"
    there = {path.name for path in folder.iterdir()}
    assert there == {name for name in docs_module.ASSETS.values() if name} | {"LICENSES.txt"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 600_000


def test_the_page_of_rules_is_what_the_suite_asks() -> None:
    root = Path(__file__).parents[2]
    made = subprocess.run(
        [sys.executable, root / "scripts" / "rules.py"], check=True, capture_output=True
    )
    assert (root / "docs" / "rules.md").read_bytes() == made.stdout
