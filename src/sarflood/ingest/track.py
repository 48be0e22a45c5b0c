"""Hand an accepted event to DVC and git."""

from __future__ import annotations

from sarflood.process import dvc, git
from sarflood.workspace import Workspace


def track_event(workspace: Workspace, event_id: str, message: str) -> bool:
    """Add `data/events/<id>` to DVC, push it to the remote, commit its `.dvc` file.

    Repeating it is cheap, so an ingest that was killed half-way is finished by the next one.

    Returns:
        Whether there was something to commit.
    """
    root = workspace.root
    name = f"data/events/{event_id}"
    dvc(root, "add", "--quiet", name)
    dvc(root, "push", "--quiet", f"{name}.dvc")
    git(root, "add", "--", f"{name}.dvc")
    if not git(root, "diff", "--cached", "--name-only", "--", f"{name}.dvc").strip():
        return False
    git(root, "commit", "--quiet", "-m", message, "--", f"{name}.dvc")
    return True
