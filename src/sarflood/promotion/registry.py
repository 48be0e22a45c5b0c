"""The registry: GTO's git tags name the versions and the one in production.

The tags are the only truth about what is promoted. GTO's tags tell time in whole seconds, and two
assignments within one second would be read in any order: writers take turns by a lock, wait
until the second has changed, and read back what they wrote.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from sarflood.errors import InputError, SarfloodError
from sarflood.files import replacing, sha256, write_json
from sarflood.model.package import WEIGHTS
from sarflood.process import git
from sarflood.workspace import MODEL_NAME, Workspace

PRODUCTION = "production"
CLOCK_MAY_DIFFER_S = 5


@dataclass(frozen=True)
class Version:
    """A registered version, with what its commit says of it.

    `promotions` are the times (seconds since 1970) at which it was assigned to production;
    `champion` is the version that the gate compared it with; `weights` their SHA-256.
    """

    version: str
    commit: str
    production: bool
    promotions: tuple[int, ...]
    iou: float | None
    events: tuple[str, ...]
    gate_passed: bool
    champion: str | None
    weights: str | None

    @property
    def tag(self) -> str:
        """The git tag that registers it."""
        return f"{MODEL_NAME}@{self.version}"


def versions(workspace: Workspace) -> list[Version]:
    """List the registered versions, newest first."""
    from gto.registry import GitRegistry

    with GitRegistry.from_url(str(workspace.root)) as registry:
        artifact = registry.get_artifacts().get(MODEL_NAME)
        states = artifact.get_versions() if artifact else []
        assigned = {
            assignment.created_at.timestamp(): state.version
            for state in states
            for assignment in _assignments(state)
        }
        current = assigned[max(assigned)] if assigned else None
        return [
            _version(
                workspace,
                state,
                [int(a.created_at.timestamp()) for a in _assignments(state)],
                current,
            )
            for state in states
        ]


def _assignments(state: Any) -> list[Any]:
    stage = state.stages.get(PRODUCTION)
    return list(stage.assignments) if stage else []


def _version(
    workspace: Workspace, state: Any, promotions: list[int], current: str | None
) -> Version:
    commit = state.commit_hexsha
    evaluation = _json_at(workspace, commit, "metrics/evaluation.json")
    gate = _json_at(workspace, commit, "metrics/gate.json")
    model = _json_at(workspace, commit, f"models/{MODEL_NAME}/model.json")
    return Version(
        version=state.version,
        commit=commit,
        production=state.version == current,
        promotions=tuple(promotions),
        iou=(evaluation.get("test") or {}).get("iou"),
        events=tuple(item["event"] for item in model.get("trained_on", ())),
        gate_passed=gate.get("passed") is True,
        champion=gate.get("champion"),
        weights=gate.get("candidate"),
    )


def _json_at(workspace: Workspace, commit: str, path: str) -> dict[str, Any]:
    """Read a JSON file of a commit; {} where the commit has none."""
    try:
        content = json.loads(git(workspace.root, "show", f"{commit}:{path}"))
    except (SarfloodError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def find_version(workspace: Workspace, version: str | None) -> Version:
    """Return the named version, or the one in production.

    Raises:
        InputError: There is none; says which there are.
    """
    known = versions(workspace)
    for item in known:
        if item.version == version or (version is None and item.production):
            return item
    names = ", ".join(item.version for item in known) or "none"
    wanted = f"no version {version}" if version else "no version is in production"
    raise InputError(f"{workspace.root}: {wanted}; registered: {names} (see `sarflood models`)")


def production(workspace: Workspace) -> Version | None:
    """Return the version in production."""
    return next((item for item in versions(workspace) if item.production), None)


def register(workspace: Workspace, message: str) -> Version:
    """Register the commit that the workspace stands on as the next minor version."""
    import gto.api

    with _writer(workspace):
        known = versions(workspace)
        tag = gto.api.register(
            str(workspace.root),
            MODEL_NAME,
            "HEAD",
            message=message,
            version=None if known else "v0.1.0",
            bump_minor=bool(known),
        )
    return find_version(workspace, tag.version)


def assign_production(workspace: Workspace, version: str, message: str) -> Version:
    """Make `version` the one in production: the one moment of promotion."""
    import gto.api

    with _writer(workspace):
        last = max((max(item.promotions, default=0) for item in versions(workspace)), default=0)
        if last > time.time() + CLOCK_MAY_DIFFER_S:
            raise SarfloodError(
                f"{workspace.root}: the last promotion is dated {last - time.time():.0f} s in the "
                "future; set this machine's clock right, then promote again"
            )
        while int(time.time()) <= last:
            time.sleep(0.05)  # the tag's clock has no finer tick that could be watched
        gto.api.assign(
            str(workspace.root),
            MODEL_NAME,
            PRODUCTION,
            version=version,
            message=message,
            force=True,
        )
        promoted = find_version(workspace, None)
        if promoted.version != version:
            raise SarfloodError(
                f"{workspace.root}: assigned {version}, but the tags say {promoted.version}; "
                "look at `git tag --list 'flood-unet#*'`"
            )
    return promoted


@contextmanager
def _writer(workspace: Workspace) -> Iterator[None]:
    workspace.cache.mkdir(exist_ok=True)
    with FileLock(workspace.cache / "registry.lock"):
        yield


def fetch_version(workspace: Workspace, version: Version) -> Path:
    """Return a folder with the version's model package, from the DVC cache or remote."""
    folder = workspace.cache / "versions" / version.version
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{version.version}.lock")):
        if not _is_whole(folder, version):
            _fetch(workspace, version, folder)
        if not _is_whole(folder, version):
            raise SarfloodError(f"{folder}: not the weights that {version.tag} was judged with")
    return folder


def _is_whole(folder: Path, version: Version) -> bool:
    weights = folder / WEIGHTS
    return weights.is_file() and sha256(weights) == version.weights


def _fetch(workspace: Workspace, version: Version, folder: Path) -> None:
    from dvc.api import DVCFileSystem

    source = DVCFileSystem(str(workspace.root), rev=version.tag)
    inside = workspace.model.relative_to(workspace.root).as_posix()
    try:
        names = [Path(path).name for path in source.ls(inside, detail=False)]
        # The weights come last and by rename: a folder that has them is whole.
        for name in sorted(names, key=lambda name: name == WEIGHTS):
            part = folder / f"{name}.part"
            source.get_file(f"{inside}/{name}", str(part))
            part.replace(folder / name)
    except Exception as error:
        raise _unreachable(version, "model package", error) from error


def fetch_split(workspace: Workspace, version: Version) -> pd.DataFrame:
    """Return the split that a version was trained with, from the DVC cache or remote."""
    from dvc.api import DVCFileSystem

    path = workspace.cache / "versions" / f"{version.version}-split.parquet"
    inside = workspace.split.relative_to(workspace.root).as_posix()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as temporary:
                source = DVCFileSystem(str(workspace.root), rev=version.tag)
                source.get_file(inside, str(temporary))
        except Exception as error:
            raise _unreachable(version, "split", error) from error
    return pd.read_parquet(path)


def _unreachable(version: Version, what: str, error: Exception) -> SarfloodError:
    return SarfloodError(
        f"{version.tag}: its {what} cannot be fetched ({error}); "
        "is the DVC remote reachable? `dvc remote list` names it"
    )


def note_champion(workspace: Workspace) -> Version | None:
    """Write `models/champion.json`, which the gate stage depends on, from the tags."""
    champion = production(workspace)
    write_json(workspace.champion, {"version": champion.version if champion else None})
    return champion
