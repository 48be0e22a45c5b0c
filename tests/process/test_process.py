from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from sarflood.errors import SarfloodError
from sarflood.files import replacing, write_json
from sarflood.process import run, running

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


def test_a_failure_names_the_command_the_code_and_the_last_lines(tmp_path: Path) -> None:
    code = "import sys; print('disk full'); sys.exit(7)"
    with pytest.raises(SarfloodError, match=r"ended with code 7:\ndisk full"):
        run([sys.executable, "-c", code], tmp_path)


def test_leaving_the_block_ends_the_child_and_its_children(tmp_path: Path) -> None:
    with running([sys.executable, "-c", SPAWN_AND_WAIT], tmp_path) as process:
        assert process.stdout
        grandchild = psutil.Process(int(process.stdout.readline()))
        assert grandchild.is_running()
    assert process.returncode is not None
    _, alive = psutil.wait_procs([grandchild], timeout=10)
    assert not alive


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
