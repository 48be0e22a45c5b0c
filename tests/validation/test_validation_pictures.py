from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from sarflood.validation.pictures import MOST, Picture, write_pictures


def picture(name: str, reasons: int = 1) -> Picture:
    image = np.full((2, 256, 256), -12.0, np.float16)
    image[:, 50:] = -5.0
    image[:, :9] = np.nan
    mask = np.zeros((256, 256), np.uint8)
    mask[:50], mask[:9] = 1, 255
    why = tuple(f"reason {number} of <{name}>" for number in range(reasons))
    return Picture(name, why, ("vv", "vh_pre"), image, mask)


def test_the_worst_come_first_with_pictures_of_bands_and_mask(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write_pictures(path, "Quarantine: <b>", "lead", [picture("mild"), picture("bad & worse", 3)])
    html = path.read_text("utf-8")
    assert html.index("bad &amp; worse") < html.index(">mild<")
    assert "<b>" not in html
    assert "reason 2 of &lt;bad &amp; worse&gt;" in html
    assert re.findall(r"<figcaption>(.*?)</figcaption>", html) == ["VV", "VH BEFORE", "mask"] * 2
    assert not re.findall(r'(?:src|href)="(?!data:)', html), "the page needs nothing else"
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    grey, _, painted = (np.asarray(Image.open(BytesIO(b64decode(item)))) for item in data[:3])
    assert (grey[:9] == 255).all(), "no data is white"
    assert grey[20, 20] < grey[100, 100]
    assert tuple(painted[20, 20]) != tuple(painted[100, 100])
    assert tuple(painted[0, 0]) == (255, 255, 255)


def test_of_many_the_rest_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    pictures = [Picture(f"p{number}", ("bad",)) for number in range(MOST + 3)]
    write_pictures(path, "t", "l", pictures)
    html = path.read_text("utf-8")
    assert html.count("<article>") == MOST
    assert "and 3 more" in html


def test_a_page_without_pictures_says_so(tmp_path: Path) -> None:
    write_pictures(tmp_path / "index.html", "t", "l", [])
    assert "There is none." in (tmp_path / "index.html").read_text("utf-8")
