"""What stands in a workspace: which version is in production, and what is left to do."""

from __future__ import annotations

import datetime as dt
from typing import Any

from filelock import FileLock, Timeout

from sarflood.files import sha256
from sarflood.model import WEIGHTS
from sarflood.promotion.promote import verdict_stands
from sarflood.promotion.registry import Version, json_at, versions
from sarflood.serving.bundle import is_built
from sarflood.workspace import MODEL_NAME, Workspace


def status(workspace: Workspace) -> dict[str, Any]:
    """Say what is true of a workspace, by its tags and files.

    Returns:
        `production`, None without one: `version`, `since`, `by`, `why`, `override` (whether it was
        promoted in spite of the gate), `gate` (its verdict), `iou`, `bundle` (whether it is built,
        so that it can be served at once). `candidate`, None without one: the `version` that its
        weights are registered as, None where they are not, its `gate` (`passed`, `refused`, or None
        before it was judged). `waiting`: versions that passed against the champion of today and
        were never promoted. `versions`: how many there are. `busy`: whether a command works in the
        workspace now. `workspace`: its folder.
    """
    known = versions(workspace)
    champion = next((item for item in known if item.production), None)
    waiting = [
        item.version
        for item in known
        if item.gate_passed and not item.promotions and verdict_stands(workspace, item)
    ]
    return {
        "workspace": str(workspace.root),
        "production": _production(workspace, champion) if champion else None,
        "candidate": _candidate(workspace, known),
        "waiting": waiting,
        "versions": len(known),
        "busy": _busy(workspace),
    }


def _production(workspace: Workspace, champion: Version) -> dict[str, Any]:
    last = champion.promotions[-1]
    return {
        "version": champion.version,
        "since": dt.datetime.fromtimestamp(last.at, dt.UTC).isoformat(),
        "by": last.by,
        "why": last.message,
        "override": last.override,
        "gate": "passed" if champion.gate_passed else "refused",
        "iou": champion.iou,
        "bundle": is_built(f"{MODEL_NAME}:{champion.version}", workspace.bentos),
    }


def _candidate(workspace: Workspace, known: list[Version]) -> dict[str, Any] | None:
    weights = workspace.model / WEIGHTS
    if not weights.is_file():
        return None
    digest = sha256(weights)
    judged = json_at(workspace, None, "metrics/gate.json")
    gate = None
    if judged.get("candidate") == digest:
        gate = "passed" if judged.get("passed") is True else "refused"
    version = next((item.version for item in known if item.weights == digest), None)
    return {"version": version, "gate": gate}


def _busy(workspace: Workspace) -> bool:
    if not workspace.cache.is_dir():
        return False
    lock = FileLock(workspace.cache / "workspace.lock")
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
