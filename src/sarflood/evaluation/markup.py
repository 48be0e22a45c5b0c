"""The few pieces of HTML that the report is made of; all text that comes in is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --blue: #0072b2; --ground: #f5f7fa; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { margin: 0; font-size: 28px; }
h2 { margin: 0 0 12px; font-size: 18px; }
header p, .note, figcaption { color: var(--soft); }
header p { margin: 4px 0 20px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; margin-top: 20px;
  padding: 20px 24px; overflow-x: auto; }
.note, figcaption { font-size: 13px; margin: 8px 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 16px; }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 14px 18px; }
.tile b { display: block; color: var(--blue); font-size: 32px; line-height: 1.2; }
.tile small { color: var(--soft); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 20px; }
.pair section { margin-bottom: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 6px 10px; text-align: right; }
th { color: var(--soft); font-size: 13px; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
td:first-child { white-space: normal; }
table.pooled tbody tr:first-child { background: #eef6fb; font-weight: 600; }
table.plain td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.plain th { text-align: left; }
.card td, .card th { text-align: left; white-space: normal; }
.card summary { cursor: pointer; font-size: 18px; font-weight: 600; }
.passed, .refused { border-left: 6px solid #009e73; }
.refused { border-left-color: #d55e00; }
figure { margin: 0; }
figure > img { max-width: 100%; }
.patches figure { display: inline-block; margin: 0 20px 20px 0; vertical-align: top; }
.patches img { width: 160px; height: 160px; image-rendering: pixelated; border-radius: 4px; }
.patches figcaption { max-width: 490px; }
.legend span { display: inline-block; margin-right: 16px; font-size: 13px; }
.legend i { border: 1px solid #0003; border-radius: 3px; display: inline-block; height: 12px;
  margin-right: 6px; vertical-align: -1px; width: 12px; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole page; `body` is markup already."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def section(title: str, *parts: str, kind: str = "") -> str:
    """Return a section; `parts` are markup already."""
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<section{attribute}><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def note(text: str) -> str:
    """Return a small paragraph."""
    return f'<p class="note">{escape(text)}</p>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Return a table of texts."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<table{attribute}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def tile(label: str, value: str, below: str) -> str:
    """Return one large figure with what it is and what to compare it with."""
    return (
        f'<div class="tile"><small>{escape(label)}</small><b>{escape(value)}</b>'
        f"<small>{escape(below)}</small></div>"
    )


def images(sources: Iterable[tuple[str, str]], caption: str) -> str:
    """Return a figure of images side by side; `sources` are pairs of a data URI and its text."""
    shown = " ".join(f'<img src="{escape(uri)}" alt="{escape(text)}">' for uri, text in sources)
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def legend(colours: Iterable[tuple[str, str]]) -> str:
    """Return names beside their colours."""
    entries = "".join(
        f'<span><i style="background:{escape(colour)}"></i>{escape(name)}</span>'
        for name, colour in colours
    )
    return f'<p class="legend">{entries}</p>'
