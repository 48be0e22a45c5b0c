"""From a judged candidate to the version in production, in steps that can each be repeated."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarflood.dvc_remote import dvc_remote, push
from sarflood.errors import GateRefusedError, InputError, SarfloodError
from sarflood.files import sha256
from sarflood.model import WEIGHTS
from sarflood.params import ServingParams
from sarflood.process import dvc, git
from sarflood.promotion.gate import judge_bundle
from sarflood.promotion.registry import (
    OVERRIDE,
    Version,
    assign_production,
    fetch_version,
    production,
    register,
    versions,
)
from sarflood.promotion.shadow import lacking, shadow, shadowed
from sarflood.serving.bundle import EVALUATION, build_bundle, content_hash
from sarflood.serving.check import check_bundle
from sarflood.workspace import NOBODY, Workspace

if TYPE_CHECKING:
    from dvc.repo import Repo

# What makes a version: code that is committed by people, and what a run writes.
CODE = ("src", "flows", "dvc.yaml", "bentofile.yaml")
RUN = ("dvc.lock", "params.yaml", "metrics", "plots", "models")


@dataclass(frozen=True)
class Bundle:
    """A version's bundle that was started once and answered as the evaluation did.

    Attributes:
        tag: Such as `flood-unet:v0.3.0`.
        content: See `content_hash`.
        check: What `check_bundle` found.
    """

    tag: str
    content: str
    check: dict[str, Any]


def check_history(workspace: Workspace) -> None:
    """Refuse to make a version where its tag would not hold the code, or its commit would be lost.

    Raises:
        InputError: Code differs from the commit that the workspace stands on, no branch would keep
            the version's commit, or tags may be missing.
    """
    root = workspace.root
    if git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise InputError(
            f"{root}: a shallow clone, whose tags may name another champion; "
            "`git fetch --unshallow --tags`"
        )
    if git(root, "rev-parse", "--abbrev-ref", "HEAD").strip() == "HEAD":
        raise InputError(
            f"{root}: HEAD is detached, so no branch would keep what is committed; "
            "`git switch BRANCH`"
        )
    changed = git(root, "status", "--porcelain", "--", *CODE).splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed)
        raise InputError(
            f"{root}: not committed: {names}; a version holds the code that made it, so "
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
    if not same or not is_recorded(workspace):
        return None
    if dvc(workspace.root, "status", "--json", "gate").strip() != "{}":
        return None
    return same[0] if verdict_stands(workspace, same[0]) else None


def is_recorded(workspace: Workspace) -> bool:
    """Say whether all that runs write is as committed; it was pushed before that."""
    return not git(workspace.root, "status", "--porcelain", "--", *RUN).strip()


def verdict_stands(workspace: Workspace, version: Version) -> bool:
    """Say whether the version was judged against the champion that is in production now."""
    champion = production(workspace)
    return version.champion == (champion.version if champion else None)


def record_run(workspace: Workspace, message: str) -> None:
    """Push what a run wrote, verify the push, and commit.

    Raises:
        NetworkError: The remote does not answer; nothing is committed then.
        SarfloodError: The remote does not have the files afterwards; nor then.
    """
    root = workspace.root
    push(root)
    with dvc_remote(root, "`dvc status --cloud`") as repo:
        missing = repo.status(cloud=True)
        damaged = _damaged(repo)
    if missing:
        raise SarfloodError(f"{root}: `dvc push` left files behind: {missing}; is the remote full?")
    if damaged:
        raise SarfloodError(
            f"{root}: damaged in the DVC remote, of another size than here: {', '.join(damaged)}; "
            "delete these there, then `dvc push`"
        )
    git(root, "add", "--", *RUN)
    if git(root, "diff", "--cached", "--name-only", "--", *RUN).strip():
        git(root, "commit", "--quiet", "-m", message, "--", *RUN)


def _damaged(repo: Repo) -> list[str]:
    """Name the files that the remote has in another size: DVC looks whether they are there."""
    wrong = []
    remote = repo.cloud.get_remote_odb()
    for out in repo.index.outs:
        if out.use_cache and out.hash_info and not out.hash_info.isdir and out.meta:
            place = remote.oid_to_path(out.hash_info.value)
            if remote.fs.size(place) != out.meta.size:
                wrong.append(f"{out} ({place})")
    return wrong


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
        needed = ["src", "bentofile.yaml", "params.yaml"]
        needed += git(
            workspace.root, "ls-tree", "--name-only", version.tag, EVALUATION
        ).splitlines()
        git(workspace.root, "archive", "-o", str(archive), version.tag, *needed)
        with tarfile.open(archive) as tar:
            # Python before 3.11.4 has no filter; the archive is git's own.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(code)  # noqa: S202
        tag = build_bundle(code, package, version.version, workspace.bentos, on_line)
    check = check_bundle(tag, workspace.bentos, package / "recorded.npz", params.ready_within_s)
    failed = [item.sentence() for item in judge_bundle(check, params) if not item.passed]
    if failed:
        raise SarfloodError(f"{tag}: {'; '.join(failed)}")
    return Bundle(tag, content_hash(tag, workspace.bentos), check)


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


def promote(
    workspace: Workspace, version: Version, message: str, override: str | None = None
) -> Version:
    """Assign production to a version that the gate lets pass, whoever is champion now.

    Args:
        workspace: Where.
        version: Which.
        message: Why; stands in the tag.
        override: The reason for which one that was refused is promoted in spite of that; stands in
            the tag, with the name of git's user.

    Raises:
        GateRefusedError: It is refused, and there is no such reason.
        InputError: Git does not know by whom the gate is overridden.
    """
    if overrides_gate(workspace, version, override):
        message = f"{OVERRIDE}: {override}"
    promoted = assign_production(workspace, version.version, message)
    if shadowed(workspace) == version.version:
        shadow(workspace, None)
    return promoted


def overrides_gate(workspace: Workspace, version: Version, override: str | None) -> bool:
    """Say whether the gate refuses a version that is promoted for a reason, by whoever has a name.

    Raises:
        GateRefusedError: It does, and there is no reason.
        InputError: Git does not know who gives it.
    """
    refusal = _refusal(workspace, version)
    if refusal is None:
        return False
    if not (override or "").strip():
        raise GateRefusedError(f"{version.version}: {refusal}; the champion stays")
    if git(workspace.root, "config", "--default", "", "user.name").strip() in {"", NOBODY}:
        raise InputError(
            f"{workspace.root}: the gate is overridden by name: `git config user.name NAME` first"
        )
    return True


def _refusal(workspace: Workspace, version: Version) -> str | None:
    if not version.gate_passed:
        return f"refused by the gate (see `sarflood models show {version.version}`)"
    lacks = [check.sentence() for check in lacking(workspace, version)]
    return f"{'; '.join(lacks)} (see `sarflood shadow`)" if lacks else None


def previous_champion(workspace: Workspace) -> Version | None:
    """Return the version that a rollback goes back to.

    Promotions are replayed in their order; going back to an earlier champion takes those after it
    off again, so that a second rollback goes one further back and not forth.
    """
    known = versions(workspace)
    promoted = sorted((made.at, item.version) for item in known for made in item.promotions)
    champions: list[str] = []
    for _, version in promoted:
        if version in champions:
            del champions[champions.index(version) + 1 :]
        else:
            champions.append(version)
    if len(champions) < 2:
        return None
    return next(item for item in known if item.version == champions[-2])
