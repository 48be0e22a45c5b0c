"""What counts as changed code of a stage, by a real `dvc repro`."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from sarflood.process import dvc, git
from sarflood.stages import reproduce
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[2]


def test_what_python_adds_to_a_folder_of_code_is_no_change_of_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for name in ("params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path)
    git(tmp_path, "init", "--quiet")
    dvc(tmp_path, "init", "--quiet")
    code = tmp_path / "src" / "patches"
    code.mkdir(parents=True)
    stages = {}
    for name in ("split", "train"):
        (code / f"{name}.py").write_text("print('works')\n")
        command = f"PYTHONPATH=src PYTHONDONTWRITEBYTECODE= python -c 'import patches.{name}'"
        stages[name] = {"cmd": command, "deps": ["src/patches"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))

    def ran(stage: str) -> bool:
        lines: list[str] = []
        reproduce(workspace, stage, lines.append)
        return "works" in lines

    assert ran("split")
    assert ran("train")
    assert list(code.glob("__pycache__/train*.pyc")), "Python has kept what it compiled"
    assert not ran("split")
    (code / "split.py").write_text("print('works')  # otherwise\n")
    assert ran("split")
