"""From a judged candidate to the version in production, in steps that can each be repeated."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarflood.errors import GateRefusedError, InputError, SarfloodError
from sarflood.files import sha256
from sarflood.model.package import WEIGHTS
from sarflood.params import ServingParams
from sarflood.process import dvc, git
from sarflood.promotion.registry import (
    Version,
    assign_production,
    fetch_version,
    production,
    register,
    versions,
)
from sarflood.serving.bundle import build_bundle, check_bundle
from sarflood.workspace import Workspace

# What makes a version: code that is committed by people, and what a run writes.
CODE = ("src", "flows", "dvc.yaml", "bentofile.yaml")
RUN = ("dvc.lock", "params.yaml", "metrics", "plots", "models")


@dataclass(frozen=True)
class Bundle:
    """A version's bundle that was started once and answered as the evaluation did."""

    tag: str
    check: dict[str, Any]


def check_code_is_committed(workspace: Workspace) -> None:
    """Refuse to make a version whose tag would not hold the code that made it.

    Raises:
        InputError: Code differs from the commit that the workspace stands on.
    """
    changed = git(workspace.root, "status", "--porcelain", "--", *CODE).splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed)
        raise InputError(
            f"{workspace.root}: not committed: {names}; a version holds the code that made it, so "
            "`git commit` or `git checkout` these first"
        )


def known_candidate(workspace: Workspace) -> Version | None:
    """Return the version that there is nothing to add to: no need to judge or register again.

    That is a version with the present weights that was promoted once (if it was rolled back since,
    that was on purpose), or one whose verdict still stands: nothing it depends on has changed, and
    it was judged against the present champion.
    """
    digest = sha256(workspace.model / WEIGHTS)
    same = [item for item in versions(workspace) if item.weights == digest]
    for version in same:
        if version.promotions:
            return version
    if not same or git(workspace.root, "status", "--porcelain", "--", *RUN).strip():
        return None
    if dvc(workspace.root, "status", "--json", "gate").strip() != "{}":
        return None
    return same[0] if verdict_stands(workspace, same[0]) else None


def verdict_stands(workspace: Workspace, version: Version) -> bool:
    """Say whether the version was judged against the champion that is in production now."""
    champion = production(workspace)
    return version.champion == (champion.version if champion else None)


def record_run(workspace: Workspace, message: str) -> None:
    """Push what a run wrote, verify the push, and commit.

    Raises:
        SarfloodError: The remote does not have the files afterwards; nothing is committed then.
    """
    root = workspace.root
    dvc(root, "push", "--quiet")
    missing = dvc(root, "status", "--cloud", "--json").strip()
    if missing not in {"{}", ""}:
        raise SarfloodError(f"{root}: `dvc push` left files behind: {missing}; is the remote full?")
    git(root, "add", "--", *RUN)
    if git(root, "diff", "--cached", "--name-only", "--", *RUN).strip():
        git(root, "commit", "--quiet", "-m", message, "--", *RUN)


def record_candidate(workspace: Workspace, message: str) -> Version:
    """Record the run and register its commit; a commit that is a version already stays that one."""
    record_run(workspace, message)
    commit = workspace.commit()
    for version in versions(workspace):
        if version.commit == commit:
            return version
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
            # Python before 3.11.4 has no filter; the archive is git's own.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(code)  # noqa: S202
        tag = build_bundle(code, package, version.version, workspace.bentos, on_line)
    check = check_bundle(tag, workspace.bentos, package / "recorded.npz", params.ready_within_s)
    return Bundle(tag, check)


def promote_judged(workspace: Workspace, version: Version, message: str) -> Version:
    """Assign production to a version on the strength of its verdict.

    Raises:
        GateRefusedError: It did not pass.
        SarfloodError: Another champion was promoted since, by hand or by a rollback.
    """
    if not verdict_stands(workspace, version):
        raise SarfloodError(
            f"{version.version}: judged against {version.champion or 'no champion'}, but another "
            "version was put into production since; `sarflood retrain` judges it anew"
        )
    return promote(workspace, version, message)


def promote(workspace: Workspace, version: Version, message: str) -> Version:
    """Assign production to a version that passed the gate, whoever is champion now.

    Raises:
        GateRefusedError: It did not pass.
    """
    if not version.gate_passed:
        raise GateRefusedError(
            f"{version.version}: refused by the gate (see `sarflood models`); the champion stays"
        )
    return assign_production(workspace, version.version, message)


def previous_champion(workspace: Workspace) -> Version | None:
    """Return the version that a rollback goes back to.

    Promotions are replayed in their order; going back to an earlier champion takes those after it
    off again, so that a second rollback goes one further back and not forth.
    """
    known = versions(workspace)
    promoted = sorted((time, item.version) for item in known for time in item.promotions)
    champions: list[str] = []
    for _, version in promoted:
        if version in champions:
            del champions[champions.index(version) + 1 :]
        else:
            champions.append(version)
    if len(champions) < 2:
        return None
    return next(item for item in known if item.version == champions[-2])
