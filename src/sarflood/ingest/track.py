"""Hand an accepted event to DVC and git."""

from __future__ import annotations

import json
from pathlib import Path

from sarflood.dvc_remote import push
from sarflood.files import sha256, write_json
from sarflood.process import dvc, git
from sarflood.workspace import Workspace


def track_event(workspace: Workspace, event_id: str, message: str) -> bool:
    """Add `data/events/<id>` to DVC, push it to the remote, commit its `.dvc` file.

    Repeating it is cheap, so an ingest that was killed half-way is finished by the next one.

    Returns:
        Whether there was something to commit.

    Raises:
        NetworkError: The DVC remote does not answer; nothing is committed then.
        SarfloodError: Anything else is wrong with it.
    """
    root = workspace.root
    name = f"data/events/{event_id}"
    dvc(root, "add", "--quiet", name)
    push(root, f"{name}.dvc")
    git(root, "add", "--", f"{name}.dvc")
    if not git(root, "diff", "--cached", "--name-only", "--", f"{name}.dvc").strip():
        return False
    git(root, "commit", "--quiet", "-m", message, "--", f"{name}.dvc")
    return True


def tracked_events(workspace: Workspace) -> dict[str, str]:
    """Return the events that are tracked, each with the hash of its `.dvc` file."""
    return {path.stem: sha256(path) for path in sorted(workspace.events.glob("*.dvc"))}


def seen_events(workspace: Workspace) -> dict[str, str] | None:
    """Return the events that the last retraining has seen, as `tracked_events` gave them then."""
    try:
        found: dict[str, str] = json.loads(_seen(workspace).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


def note_seen(workspace: Workspace, events: dict[str, str]) -> None:
    """Note what a retraining has seen, however it ended."""
    write_json(_seen(workspace), events)


def _seen(workspace: Workspace) -> Path:
    return workspace.cache / "seen.json"
