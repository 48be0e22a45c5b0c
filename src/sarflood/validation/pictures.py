"""A page with pictures of patches beside what is wrong with them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sarflood.files import write_text
from sarflood.raster.patch import UNKNOWN, WET

MOST = 40
_WET, _DRY, _UNKNOWN = (31, 119, 216), (214, 221, 229), (255, 255, 255)
_STYLE = """
body { background: #f5f7fa; color: #1f2933; margin: 0;
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { margin: 0 auto; max-width: 1120px; padding: 32px 24px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; }
p { color: #616e7c; margin: 0 0 16px; }
article { background: #fff; border: 1px solid #e4e7eb; border-left: 6px solid #d55e00;
  border-radius: 8px; display: flex; flex-wrap: wrap; gap: 16px; margin-top: 16px;
  padding: 16px 20px; }
article.warning { border-left-color: #e69f00; }
figure { margin: 0; }
img { border-radius: 4px; display: block; height: 192px; image-rendering: pixelated; width: 192px; }
figcaption { color: #616e7c; font-size: 13px; text-align: center; }
div { flex: 1 1 320px; }
h2 { font-size: 16px; margin: 0 0 6px; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 20px; }
i { border: 1px solid #0003; border-radius: 3px; display: inline-block; height: 12px;
  margin: 0 4px 0 12px; vertical-align: -1px; width: 12px; }
"""


@dataclass(frozen=True)
class Picture:
    """A patch with what is wrong with it.

    Attributes:
        name: The patch's id, or the item's name where no patch could be read.
        reasons: What is wrong, each a clause.
        bands: The names of the image's bands.
        image: (C, H, W), NaN no data; None where it could not be read.
        mask: (H, W) uint8; None where unlabelled.
    """

    name: str
    reasons: tuple[str, ...]
    bands: tuple[str, ...] = ()
    image: NDArray[np.floating] | None = None
    mask: NDArray[np.uint8] | None = None


def write_pictures(path: Path, title: str, lead: str, pictures: Iterable[Picture]) -> None:
    """Write a page that needs nothing from anywhere, the worst patches first.

    Args:
        path: The HTML file.
        title: Its heading.
        lead: What the page shows, in a sentence.
        pictures: At most 40 are shown, those with most reasons; the others are counted.
    """
    ordered = sorted(pictures, key=lambda item: -len(item.reasons))
    left = len(ordered) - MOST
    more = f"<p>… and {left:,} more, without pictures.</p>" if left > 0 else ""
    articles = "\n".join(_article(item) for item in ordered[:MOST]) or "<p>There is none.</p>"
    write_text(
        path,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(lead)}{_LEGEND}</p>\n{articles}\n{more}\n"
        "</main></body></html>\n",
    )


def _swatch(colour: tuple[int, ...], name: str) -> str:
    return f'<i style="background: rgb{colour}"></i>{name}'


_LEGEND = _swatch(_WET, "wet") + _swatch(_DRY, "dry") + _swatch(_UNKNOWN, "no data")


def _article(picture: Picture) -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in picture.reasons)
    figures = []
    if picture.image is not None:
        figures = [
            _figure(_grey(values), band.replace("_pre", " before").upper())
            for band, values in zip(picture.bands, picture.image, strict=True)
        ]
    if picture.mask is not None:
        figures.append(_figure(_painted(picture.mask), "mask"))
    return (
        f"<article>{''.join(figures)}<div><h2>{escape(picture.name)}</h2><ul>{reasons}</ul></div>"
        "</article>"
    )


def _figure(pixels: NDArray[np.uint8], caption: str) -> str:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    data = b64encode(content.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _grey(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Stretch (H, W) values between their 2 % and 98 % quantiles; no data is white."""
    real = values.astype(np.float32)
    finite = real[np.isfinite(real)]
    low, high = np.quantile(finite, [0.02, 0.98]) if finite.size else (0.0, 1.0)
    grey = np.clip((real - low) / max(float(high - low), 1e-6), 0, 1) * 255
    return np.where(np.isfinite(real), grey, 255).astype(np.uint8)


def _painted(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    painted = np.full((*mask.shape, 3), _DRY, np.uint8)
    painted[mask == WET], painted[mask == UNKNOWN] = _WET, _UNKNOWN
    return painted
