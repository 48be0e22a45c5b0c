"""Making a workspace, and looking whether one can do its job."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sarflood.errors import InputError, SarfloodError
from sarflood.params import load_params
from sarflood.process import dvc, git
from sarflood.workspace import NOBODY, Workspace, find_workspace

FREE_GIB = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` is for when it is not `ok`."""

    check: str
    ok: bool
    found: str
    remedy: str


def make_workspace(folder: Path, remote: str | None = None) -> Workspace:
    """Clone the source that sarflood was installed from into a new folder, ready for events.

    Args:
        folder: Must not exist, or be empty.
        remote: Any DVC remote URL; by default the folder `<folder>-remote` beside it.

    Raises:
        InputError: The folder is taken, or sarflood was not installed from a git checkout.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already and not empty; name a new folder")
    source, target = _source(), folder.resolve()
    url = remote or str(target.with_name(f"{target.name}-remote"))
    if "://" not in url:
        url = str(Path(url).resolve())  # DVC would take it from the workspace's own folder
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        clone = Path(temporary) / "workspace"
        git(source, "clone", "--quiet", "--no-tags", "--no-hardlinks", str(source), str(clone))
        for key, value in _identity(source).items():
            git(clone, "config", key, value)
        dvc(clone, "remote", "add", "--quiet", "--local", "--default", "storage", url)
        clone.rename(target)
    if "://" not in url:
        Path(url).mkdir(parents=True, exist_ok=True)  # later it is only used while it is there
    return Workspace(target)


def _source() -> Path:
    """Return the root of the checkout that this package lies in."""
    here = Path(__file__).resolve().parent
    try:
        root = Path(git(here, "rev-parse", "--show-toplevel").strip())
    except SarfloodError as error:
        raise InputError(
            f"{here}: sarflood was not installed from a git checkout; clone the repository, then "
            "`make setup`"
        ) from error
    if not (root / "dvc.yaml").is_file():
        raise InputError(f"{root}: this checkout has no dvc.yaml; clone the repository again")
    return root


def _identity(source: Path) -> dict[str, str]:
    """Return git's name and mail for the audit trail: the user's, or sarflood's own."""
    fallback = {"user.name": NOBODY, "user.email": "sarflood@localhost"}
    known = {}
    for key, value in fallback.items():
        try:
            known[key] = git(source, "config", key).strip()
        except SarfloodError:  # git exits with 1 where the key is not set
            known[key] = value
    return known


def examine(folder: Path | None) -> list[Finding]:
    """Look at Python, programs, disk and workspace."""
    findings = [
        Finding(
            "Python",
            sys.version_info >= (3, 11),
            ".".join(map(str, sys.version_info[:3])),
            "install Python 3.11 or newer",
        ),
        _program("git"),
        *(_package(name) for name in ("prefect", "torch", "dvc", "gto", "bentoml")),
    ]
    try:
        workspace = find_workspace(folder)
        return [*findings, _disk(workspace.root), *_of_workspace(workspace)]
    except SarfloodError as error:
        return [*findings, Finding("workspace", False, "not usable", str(error))]


def _program(name: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path is not None, "found" if path else "missing", f"install {name}")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name), "")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "missing", "run `make setup`")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    return Finding("free disk", free >= FREE_GIB, f"{free:.0f} GiB", f"free {FREE_GIB} GiB of disk")


def _of_workspace(workspace: Workspace) -> list[Finding]:
    findings = [Finding("workspace", True, str(workspace.root), "")]
    try:
        load_params(workspace.params)
        findings.append(Finding("params.yaml", True, "valid", ""))
    except InputError as error:
        findings.append(Finding("params.yaml", False, "invalid", str(error)))
    shallow = git(workspace.root, "rev-parse", "--is-shallow-repository").strip() == "true"
    findings.append(
        Finding(
            "history",
            not shallow,
            "shallow" if shallow else "whole",
            "a shallow clone shows the wrong champion: `git fetch --unshallow --tags`",
        )
    )
    remotes = dvc(workspace.root, "remote", "list").strip() if _has_dvc(workspace) else ""
    findings.append(
        Finding(
            "DVC remote",
            bool(remotes),
            remotes.split()[-1].split("\t")[-1] if remotes else "none",
            "`dvc remote add --default storage URL`, or use a workspace made by `sarflood init`",
        )
    )
    return findings


def _has_dvc(workspace: Workspace) -> bool:
    return (workspace.root / ".dvc").is_dir()
