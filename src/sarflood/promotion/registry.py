"""The registry: GTO's git tags name the versions and the one in production.

The tags are the only truth about what is promoted. GTO's tags tell time in whole seconds, and two
assignments within one second would be read in any order: writers take turns by a lock, wait
until the second has changed, and read back what they wrote.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from sarflood.dvc_remote import dvc_remote
from sarflood.errors import InputError, SarfloodError
from sarflood.files import replacing, sha256, write_json
from sarflood.model import WEIGHTS
from sarflood.process import clear_git_locks, git
from sarflood.workspace import MODEL_NAME, Workspace

if TYPE_CHECKING:
    import pandas as pd  # half a second, for who only asks for versions

PRODUCTION = "production"
OVERRIDE = "Override of the gate"
CLOCK_MAY_DIFFER_S = 5


@dataclass(frozen=True)
class Promotion:
    """An assignment to production: when (seconds since 1970), by whom, and why."""

    at: int
    by: str
    message: str

    @property
    def override(self) -> bool:
        """Whether it was promoted in spite of the gate."""
        return self.message.startswith(OVERRIDE)


@dataclass(frozen=True)
class Version:
    """A registered version, with what its commit says of it.

    `promotions` are in their order; `champion` is the version that the gate compared it with;
    `weights` their SHA-256.
    """

    version: str
    commit: str
    production: bool
    promotions: tuple[Promotion, ...]
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
        known = {state.version: (state.commit_hexsha, _promotions(state)) for state in states}
    last = {version: made[-1].at for version, (_, made) in known.items() if made}
    current = max(last, key=last.__getitem__, default=None)
    return [
        _version(workspace, version, commit, made, production=version == current)
        for version, (commit, made) in known.items()
    ]


def _promotions(state: Any) -> tuple[Promotion, ...]:
    stage = state.stages.get(PRODUCTION)
    made = (
        Promotion(int(item.created_at.timestamp()), item.author, item.message)
        for item in (stage.assignments if stage else ())
    )
    return tuple(sorted(made, key=lambda promotion: promotion.at))


def _version(
    workspace: Workspace,
    version: str,
    commit: str,
    promotions: tuple[Promotion, ...],
    *,
    production: bool,
) -> Version:
    evaluation = json_at(workspace, commit, "metrics/evaluation.json")
    gate = json_at(workspace, commit, "metrics/gate.json")
    model = json_at(workspace, commit, f"models/{MODEL_NAME}/model.json")
    return Version(
        version=version,
        commit=commit,
        production=production,
        promotions=promotions,
        iou=(evaluation.get("test") or {}).get("iou"),
        events=tuple(item["event"] for item in model.get("trained_on", ())),
        gate_passed=gate.get("passed") is True,
        champion=gate.get("champion"),
        weights=gate.get("candidate"),
    )


def json_at(workspace: Workspace, commit: str | None, path: str) -> dict[str, Any]:
    """Read a JSON file of a commit, or of the work tree; {} where there is none."""
    try:
        if commit is None:
            text = (workspace.root / path).read_text(encoding="utf-8")
        else:
            text = git(workspace.root, "show", f"{commit}:{path}")
        content = json.loads(text)
    except (OSError, SarfloodError, ValueError):
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
        made = (promotion.at for item in versions(workspace) for promotion in item.promotions)
        last = max(made, default=0)
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
        clear_git_locks(workspace.root)
        yield


def fetch_version(workspace: Workspace, version: Version) -> Path:
    """Return a folder with the version's model package, from the DVC cache or remote.

    Raises:
        NetworkError: The DVC remote does not answer.
        SarfloodError: It lacks the files, or has others.
    """
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
    with _files_of(workspace, version, "model package") as source:
        inside = workspace.model.relative_to(workspace.root).as_posix()
        known = {
            Path(item["name"]).name: item.get("dvc_info", {}).get("md5")
            for item in source.ls(inside)
        }
        # The weights come last and by rename: a folder that has them is whole.
        for name in sorted(known, key=lambda name: name == WEIGHTS):
            part = folder / f"{name}.part"
            _copy(source, f"{inside}/{name}", part)
            _check_whole(part, known[name], f"{version.tag}: {name}")
            part.replace(folder / name)


@contextmanager
def _files_of(workspace: Workspace, version: Version, what: str) -> Iterator[Any]:
    """Give the files of a version's tag, from the DVC cache or remote."""
    from dvc.api import DVCFileSystem

    with dvc_remote(workspace.root, f"{version.tag}: fetching its {what}"):
        yield DVCFileSystem(str(workspace.root), rev=version.tag)


def _copy(source: Any, inside: str, path: Path) -> None:
    """Copy a file: DVC's own `get` links to its cache, which a later write would spoil."""
    with source.open(inside, "rb") as file, path.open("wb") as copy:
        shutil.copyfileobj(file, copy)


def _check_whole(path: Path, digest: str | None, what: str) -> None:
    """Refuse a file that is not what DVC names it by; git's own files have no such name."""
    if digest is not None and digest != _md5(path):
        raise SarfloodError(
            f"{what} is damaged in the DVC remote; put it back from another copy of the remote, or "
            "from the cache of the machine that made it: delete it there, then `dvc push`"
        )


def _md5(path: Path) -> str:
    """Return what DVC names a file by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch_split(workspace: Workspace, version: Version) -> pd.DataFrame:
    """Return the split that a version was trained with, from the DVC cache or remote."""
    import pandas as pd

    path = workspace.cache / "versions" / f"{version.version}-split.parquet"
    inside = workspace.split.relative_to(workspace.root).as_posix()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, _files_of(workspace, version, "split") as source:
            _copy(source, inside, temporary)
    return pd.read_parquet(path)


def note_champion(workspace: Workspace) -> Version | None:
    """Write `models/champion.json`, which the gate stage depends on, from the tags."""
    champion = production(workspace)
    write_json(workspace.champion, {"version": champion.version if champion else None})
    return champion
