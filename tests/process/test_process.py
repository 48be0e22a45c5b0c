from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sarflood.errors import SarfloodError
from sarflood.files import replacing, write_json
from sarflood.process import clear_git_locks, git, orphans, run, running
from sarflood.workspace import Workspace

SPAWN_AND_WAIT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "child.wait()\n"
)


def test_output_is_streamed_and_returned(tmp_path: Path) -> None:
    seen: list[str] = []
    text = run([sys.executable, "-c", "print('a'); print('b')"], tmp_path, on_line=seen.append)
    assert seen == ["a", "b"]
    assert text == "a\nb"


@pytest.mark.parametrize("own", [None, "5"])
def test_children_share_the_cores_unless_one_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if own:
        monkeypatch.setenv("GOMP_SPINCOUNT", own)
    code = "import os; print(os.environ['GOMP_SPINCOUNT'])"
    assert run([sys.executable, "-c", code], tmp_path) == (own or "1000")


def test_a_failure_names_the_command_the_code_and_the_last_lines(tmp_path: Path) -> None:
    code = "import sys; print('writing'); print('disk full\\n'); sys.exit(7)"
    with pytest.raises(SarfloodError, match=r"ended with code 7: disk full\n  writing$"):
        run([sys.executable, "-c", code], tmp_path)


def test_leaving_the_block_ends_the_child_and_its_children(tmp_path: Path) -> None:
    with running([sys.executable, "-c", SPAWN_AND_WAIT], tmp_path) as process:
        assert process.stdout
        grandchild = psutil.Process(int(process.stdout.readline()))
        assert grandchild.is_running()
    assert process.returncode is not None
    _, alive = psutil.wait_procs([grandchild], timeout=10)
    assert not alive


OWNER_AND_CHILD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from sarflood.process import running\n"
    "with running([sys.executable, '-c', sys.argv[1]], Path.cwd()) as process:\n"
    "    print(process.pid, process.stdout.readline(), flush=True)\n"
    "    process.wait()\n"
)


def test_what_a_killed_command_has_left_at_work_is_found_and_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER_AND_CHILD, SPAWN_AND_WAIT]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        left = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        assert orphans(tmp_path) == [], "its owner lives"
        owner.kill()
    assert len(left) == 2
    assert set(orphans(tmp_path)) == set(left)
    assert orphans(tmp_path / "another") == []
    Workspace(tmp_path).clear(print)
    assert not any(process.is_running() for process in left)


def test_it_is_left_alone_while_another_command_works_there(tmp_path: Path) -> None:
    said: list[str] = []
    command = [sys.executable, "-c", OWNER_AND_CHILD, SPAWN_AND_WAIT]
    with Workspace(tmp_path).exclusive(print):
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout
            owner.stdout.readline()
            owner.kill()
        Workspace(tmp_path).clear(said.append)
        assert len(orphans(tmp_path)) == 2
    with Workspace(tmp_path).exclusive(said.append):
        assert orphans(tmp_path) == []
    assert all("left by a command that was killed" in line for line in said)
    assert len(said) == 2


def test_an_interrupted_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"iou": 0.5})

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == '{\n  "iou": 0.5\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_json_without_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "metrics.json", {"iou": float("nan")})
    assert not list(tmp_path.iterdir())


def test_locks_that_a_killed_git_left_are_removed(tmp_path: Path) -> None:
    assert clear_git_locks(tmp_path) == [], "no repository"
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    assert clear_git_locks(tmp_path) == []
    (tmp_path / "a.txt").write_text("a", "utf-8")
    left = [tmp_path / ".git" / name for name in ("index.lock", "refs/heads/main.lock")]
    for path in left:
        path.touch()
    with pytest.raises(SarfloodError, match=r"index\.lock"):
        git(tmp_path, "add", "a.txt")
    assert sorted(clear_git_locks(tmp_path)) == sorted(left)
    git(tmp_path, "add", "a.txt")


def test_locks_stay_while_git_works_there(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    lock = tmp_path / ".git" / "index.lock"
    lock.touch()
    command = ["git", "cat-file", "--batch"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE) as working:
        assert clear_git_locks(tmp_path) == []
        working.communicate(b"")
    assert clear_git_locks(tmp_path) == [lock]
    with_dvc = [sys.executable, "-c", "input()", "dvc"]
    lock.touch()
    with subprocess.Popen(with_dvc, cwd=tmp_path, stdin=subprocess.PIPE) as working:
        assert clear_git_locks(tmp_path) == []
        working.communicate(b"\n")
