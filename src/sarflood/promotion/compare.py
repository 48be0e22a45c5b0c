"""What two versions differ in: metrics, settings, events, code."""

from __future__ import annotations

import json
from typing import Any

from sarflood.process import dvc, git
from sarflood.promotion.registry import Version, json_at
from sarflood.workspace import MODEL_NAME, Workspace


def compare(workspace: Workspace, old: Version, new: Version) -> dict[str, Any]:
    """Return what differs between two versions.

    Returns:
        `versions`; `metrics` and `params`, by file and key, each with `old` and `new`, None where
        one has none; `events`: by id the hash of the patches' index that each was trained on;
        `code`: the files of code that differ.
    """
    tags = (old.tag, new.tag)
    metrics = _changed(dvc(workspace.root, "metrics", "diff", "--json", *tags))
    params = _changed(dvc(workspace.root, "params", "diff", "--json", *tags))
    known = [_events(workspace, version) for version in (old, new)]
    events = {
        event: {"old": known[0].get(event), "new": known[1].get(event)}
        for event in sorted({*known[0], *known[1]})
        if known[0].get(event) != known[1].get(event)
    }
    code = git(workspace.root, "diff", "--name-only", *tags, "--", "src", "dvc.yaml").splitlines()
    return {
        "versions": [old.version, new.version],
        "metrics": metrics,
        "params": params,
        "events": events,
        "code": code,
    }


def _changed(printed: str) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads(printed or "{}")
    return {
        f"{file}: {key}": {"old": values.get("old"), "new": values.get("new")}
        for file, keys in content.items()
        for key, values in keys.items()
    }


def _events(workspace: Workspace, version: Version) -> dict[str, str]:
    manifest = json_at(workspace, version.commit, f"models/{MODEL_NAME}/model.json")
    return {item["event"]: item["index_sha256"] for item in manifest.get("trained_on", ())}
