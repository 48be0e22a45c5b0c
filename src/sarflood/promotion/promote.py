"""From a judged candidate to the version in production, in steps that can each be repeated."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarflood.errors import GateRefusedError, SarfloodError
from sarflood.files import sha256
from sarflood.model.package import WEIGHTS
from sarflood.params import ServingParams
from sarflood.process import dvc, git
from sarflood.promotion.registry import (
    Version,
    assign_production,
    fetch_version,
    register,
    versions,
)
from sarflood.serving.bundle import build_bundle, check_bundle
from sarflood.workspace import Workspace


@dataclass(frozen=True)
class Bundle:
    """A version's bundle that was started once and answered as the evaluation did."""

    tag: str
    check: dict[str, Any]


def known_candidate(workspace: Workspace) -> Version | None:
    """Return the version that the workspace's present weights are registered as.

    None where they are new, or where data, settings or code of the gate have changed since.
    """
    weights = workspace.model / WEIGHTS
    if not weights.is_file():
        return None
    if git(workspace.root, "status", "--porcelain", "--", "dvc.lock", "metrics").strip():
        return None
    if dvc(workspace.root, "status", "--json", "gate").strip() != "{}":
        return None
    digest = sha256(weights)
    return next((item for item in versions(workspace) if item.weights == digest), None)


def record_candidate(workspace: Workspace, message: str) -> Version:
    """Push the candidate's files, commit what the run wrote, and register the commit.

    Raises:
        SarfloodError: The remote does not have the files afterwards; nothing is registered then.
    """
    root = workspace.root
    dvc(root, "push", "--quiet")
    missing = dvc(root, "status", "--cloud", "--json").strip()
    if missing not in {"{}", ""}:
        raise SarfloodError(f"{root}: `dvc push` left files behind: {missing}; is the remote full?")
    git(root, "add", "--", "dvc.lock", "params.yaml", "metrics", "plots", "models")
    if git(root, "diff", "--cached", "--name-only").strip():
        git(root, "commit", "--quiet", "-m", message)
    return register(workspace, message)


def bundle_version(
    workspace: Workspace,
    version: Version,
    params: ServingParams,
    on_line: Callable[[str], object] | None = None,
) -> Bundle:
    """Build the bundle of a registered version from its tag, start it, and check its answers."""
    package = fetch_version(workspace, version)
    with tempfile.TemporaryDirectory(prefix="sarflood-code-") as folder:
        code = Path(folder)
        archive = code / "code.tar"
        needed = ("src", "bentofile.yaml", "params.yaml")
        git(workspace.root, "archive", "-o", str(archive), version.tag, *needed)
        with tarfile.open(archive) as tar:
            tar.extractall(code, filter="data")
        tag = build_bundle(code, package, version.version, workspace.bentos, on_line)
    check = check_bundle(tag, workspace.bentos, package / "recorded.npz", params.ready_within_s)
    return Bundle(tag, check)


def promote(workspace: Workspace, version: Version, message: str) -> Version:
    """Assign production to a version that passed the gate.

    Raises:
        GateRefusedError: It did not pass.
    """
    if not version.gate_passed:
        raise GateRefusedError(
            f"{version.version}: refused by the gate (see `sarflood models`); the champion stays"
        )
    return assign_production(workspace, version.version, message)


def previous_champion(workspace: Workspace) -> Version | None:
    """Return the version that was in production before the present one."""
    known = versions(workspace)
    promoted = [item for item in known if item.promotions and not item.production]
    return max(promoted, key=lambda item: item.promotions[-1], default=None)
