"""Versions whose files lie in a remote: a folder, or a real server of S3's kind on the loopback."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tiny import write_package

from sarflood.errors import InputError, NetworkError, SarfloodError
from sarflood.files import sha256, write_json, write_text
from sarflood.model import WEIGHTS
from sarflood.model.package import load_model
from sarflood.process import dvc, git
from sarflood.promotion.promote import record_candidate
from sarflood.promotion.registry import Version, fetch_version, versions
from sarflood.workspace import Workspace

BUCKET = "floods"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield server
    server.stop()


def make_workspace(folder: Path, remote: str) -> Workspace:
    """A candidate that a run has left: its package with DVC, metrics, settings."""
    place = Workspace(folder / "workspace")
    root = place.root
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "config", "user.name", "test")
    git(root, "config", "user.email", "test@localhost")
    dvc(root, "init", "--quiet")
    dvc(root, "remote", "add", "--quiet", "--default", "storage", remote)
    if "://" not in remote:
        Path(remote).mkdir()
    place.model.parent.mkdir()
    package = write_package(place.model)
    dvc(root, "add", "--quiet", str(package / WEIGHTS), str(package / "recorded.npz"))
    digest = sha256(package / WEIGHTS)
    write_json(place.metrics / "evaluation.json", {"test": {"iou": 0.8}})
    write_json(place.metrics / "gate.json", {"passed": True, "candidate": digest})
    for name in ("dvc.lock", "params.yaml", "plots/a.csv"):
        write_text(root / name, "{}\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "As a run left it")
    return place


def elsewhere(workspace: Workspace) -> Workspace:
    """The same repository on another machine, with nothing of DVC's."""
    place = Workspace(workspace.root.parent / "elsewhere")
    git(workspace.root.parent, "clone", "--quiet", str(workspace.root), str(place.root))
    return place


def fetched(workspace: Workspace, version: Version) -> str:
    model = load_model(fetch_version(workspace, version))
    assert model.manifest.bands == ("vv", "vh")
    return sha256(workspace.cache / "versions" / version.version / WEIGHTS)


def test_a_version_comes_back_from_s3(s3: ThreadedMotoServer, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, f"s3://{BUCKET}/models")
    version = record_candidate(workspace, "First\n\n- IoU: 0.8, needs at least 0.7")
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET)
    assert {item["Key"].split("/")[0] for item in listed["Contents"]} == {"models"}
    message = git(workspace.root, "tag", "-n9", "--list", version.tag)
    assert "IoU: 0.8, needs at least 0.7" in message
    other = elsewhere(workspace)
    assert fetched(other, versions(other)[0]) == version.weights


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:100]),
            "recorded.npz is damaged in the DVC remote",
        ),
        (Path.unlink, "is all there that it should have"),
    ],
    ids=["truncated", "gone"],
)
def test_what_the_remote_lost_is_refused_when_it_is_fetched(
    tmp_path: Path, spoil: Spoil, said: str
) -> None:
    remote = tmp_path / "remote"
    workspace = make_workspace(tmp_path, str(remote))
    version = record_candidate(workspace, "First")
    other = elsewhere(workspace)
    _spoil(remote, spoil)
    with pytest.raises(SarfloodError, match=said):
        fetch_version(other, version)
    assert not (other.cache / "versions" / version.version / WEIGHTS).exists()
    assert fetched(workspace, version) == version.weights, "the cache here still has it"


def test_a_version_is_not_made_of_what_the_remote_holds_damaged(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    workspace = make_workspace(tmp_path, str(remote))
    dvc(workspace.root, "push", "--quiet")
    _spoil(remote, lambda path: path.write_bytes(path.read_bytes()[:100]))
    with pytest.raises(SarfloodError, match=r"damaged in the DVC remote.*recorded"):
        record_candidate(workspace, "First")
    assert versions(workspace) == []


def test_without_its_remote_no_version_is_made(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, str(tmp_path / "remote"))
    (tmp_path / "remote").rmdir()
    (tmp_path / "remote").write_text("a file where the folder should be")
    with pytest.raises(SarfloodError, match="dvc push"):
        record_candidate(workspace, "First")
    assert versions(workspace) == []


def test_a_bucket_that_is_not_there_is_refused(s3: ThreadedMotoServer, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "s3://nowhere/models")
    with pytest.raises(SarfloodError, match=r"dvc push.*bucket does not exist") as caught:
        record_candidate(workspace, "First")
    assert not isinstance(caught.value, NetworkError), "another try does not help"
    assert versions(workspace) == []


def test_a_server_that_does_not_answer_is_worth_another_try(
    s3: ThreadedMotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    workspace = make_workspace(tmp_path, f"s3://{BUCKET}/models")
    host, port = s3.get_host_and_port()
    s3.stop()
    with pytest.raises(NetworkError, match=rf"{BUCKET}/models does not answer.*:{port}"):
        record_candidate(workspace, "First")
    assert versions(workspace) == []
    again = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
    again.start()
    try:
        version = record_candidate(workspace, "First")
        other = elsewhere(workspace)
        assert fetched(other, version) == version.weights
    finally:
        again.stop()
    shutil.rmtree(other.cache)
    shutil.rmtree(other.root / ".dvc" / "cache", ignore_errors=True)
    with pytest.raises(NetworkError, match=r"fetching its model package.*does not answer"):
        fetch_version(other, version)


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    workspace = make_workspace(tmp_path, str(remote))
    remote.rename(tmp_path / "unmounted")
    with pytest.raises(NetworkError, match="remote is not there; mount its disk"):
        record_candidate(workspace, "First")
    assert not remote.exists()
    (tmp_path / "unmounted").rename(remote)
    version = record_candidate(workspace, "First")
    remote.rename(tmp_path / "unmounted")
    with pytest.raises(NetworkError, match="remote is not there"):
        fetch_version(elsewhere(workspace), version)


def test_without_a_remote_its_remedy_is_named(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, str(tmp_path / "remote"))
    dvc(workspace.root, "remote", "remove", "storage")
    with pytest.raises(InputError, match="dvc remote add"):
        record_candidate(workspace, "First")


def _spoil(remote: Path, spoil: Spoil) -> None:
    """Spoil the recorded patches, the largest file."""
    files = [path for path in (remote / "files").rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    path.chmod(0o644)
    spoil(path)
    if path.exists():
        path.chmod(0o444)  # DVC looks only into files that may have been written since


def test_the_cache_is_enough_where_the_remote_is_away(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, str(tmp_path / "remote"))
    version = record_candidate(workspace, "First")
    shutil.rmtree(tmp_path / "remote")
    assert fetched(workspace, version) == version.weights


def test_what_a_killed_fetch_left_never_spoils_the_cache(tmp_path: Path) -> None:
    """A fetched file is a copy, so that nothing that is written there reaches DVC's cache."""
    workspace = make_workspace(tmp_path, str(tmp_path / "remote"))
    version = record_candidate(workspace, "First")
    folder = fetch_version(workspace, version)
    for path in folder.iterdir():
        assert path.stat().st_nlink == 1
    (folder / WEIGHTS).rename(folder / f"{WEIGHTS}.part")
    (folder / "recorded.npz").rename(folder / "recorded.npz.part")
    assert fetched(workspace, version) == version.weights
    assert dvc(workspace.root, "status", "--cloud", "--json").strip() == "{}"
    shutil.rmtree(folder)
    assert fetched(workspace, version) == version.weights
