"""Markdown as markup that can be shown as it is."""

from __future__ import annotations

from markdown_it import MarkdownIt


def from_markdown(text: str) -> str:
    """Return Markdown as markup; markup in it stays text, and links lead to pages alone."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    shown: str = reader.render(text)
    return shown
