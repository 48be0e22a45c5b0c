"""Which version gets a copy of what the champion is asked, and how the two answered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sarflood.files import write_text
from sarflood.monitoring.journal import read_lines
from sarflood.params import load_params
from sarflood.promotion.gate import Check, judge_shadow
from sarflood.promotion.registry import Version, production
from sarflood.serving.compared import LIVE, OK, Compared
from sarflood.workspace import Workspace

_WANTED = "wanted"  # in the folder: a version
_SHOWN = ("equal", "iou", "wet", "candidate_wet")


def shadowed(workspace: Workspace) -> str | None:
    """Return the version that is to get copies; it gets them while a bundle of another serves."""
    try:
        return (workspace.shadow / _WANTED).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def shadow(workspace: Workspace, version: str | None) -> None:
    """Let a version get copies, or none."""
    if version is None:
        (workspace.shadow / _WANTED).unlink(missing_ok=True)
    else:
        write_text(workspace.shadow / _WANTED, f"{version}\n")


def compared(workspace: Workspace, version: str) -> list[Compared]:
    """Return how a version answered copies of what the champion of today was asked."""
    champion = production(workspace)
    return [
        item
        for item in read_lines(workspace.shadow, Compared)
        if champion and (item.champion, item.candidate) == (champion.version, version)
    ]


def report(workspace: Workspace, version: str) -> dict[str, Any]:
    """Say how a version answered so far.

    Returns:
        `version`; `live`, whether it gets copies now; `requests` that were compared, `failed` of
        these without an answer; means of `equal`, the share of the pixels, `iou` of the wet areas,
        and `wet` and `candidate_wet`, the shares of the champion's and its own; None without any.
    """
    found = compared(workspace, version)
    try:
        live = json.loads((workspace.shadow / LIVE).read_text(encoding="utf-8"))["version"]
    except FileNotFoundError:
        live = None
    return {
        "version": version,
        "live": live == version,
        "requests": len(found),
        "failed": sum(item.status != OK for item in found),
        **{name: _mean(getattr(item, name) for item in found) for name in _SHOWN},
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def lacking(workspace: Workspace, version: Version) -> list[Check]:
    """Return the checks that a version fails as a shadow; none where no such check is asked for.

    None is asked for of a first version, nor of one that was in production before.
    """
    params = load_params(workspace.params).gate.shadow
    if params is None or version.promotions or production(workspace) is None:
        return []
    checks = judge_shadow(compared(workspace, version.version), params)
    return [check for check in checks if not check.passed]
