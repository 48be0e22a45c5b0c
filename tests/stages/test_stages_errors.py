"""What is said of a stage that failed, by a real `dvc repro`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from sarflood.errors import InputError, NetworkError, SarfloodError
from sarflood.process import dvc, git
from sarflood.stages import reproduce
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[2]
SAYS = "import sys; print('error: {0}', file=sys.stderr); sys.exit({1})"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    git(tmp_path, "init", "--quiet")
    dvc(tmp_path, "init", "--quiet")
    return Workspace(tmp_path)


@pytest.mark.parametrize(
    ("code", "kind", "first"),
    [
        (SAYS.format("event po: has no VV", 2), InputError, r"event po: has no VV"),
        (SAYS.format("remote s3://a does not answer", 5), NetworkError, r"remote s3://a does not"),
        (
            "import os; os.kill(os.getpid(), 9)",
            SarfloodError,
            r"stage train was killed, most often for want of memory; .*batch_size",
        ),
        (
            "raise ValueError('mask of 3 bands')",
            SarfloodError,
            r"stage train ended with code 1: ValueError: mask of 3 bands; `dvc repro train`",
        ),
    ],
    ids=["wrong input", "remote", "killed", "fault"],
)
def test_the_first_line_has_cause_and_remedy(
    workspace: Workspace, code: str, kind: type[SarfloodError], first: str
) -> None:
    stage = {"cmd": f'python -c "{code}"', "outs": ["weights"]}
    (workspace.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    with pytest.raises(SarfloodError, match=f"^{first}") as caught:
        reproduce(workspace, "train", print)
    assert type(caught.value) is kind


def test_what_dvc_itself_refuses_is_in_the_first_line(workspace: Workspace) -> None:
    stage = {"cmd": "true", "deps": ["nowhere"], "outs": ["weights"]}
    (workspace.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    with pytest.raises(SarfloodError, match=r"^.* ended with code 255: ERROR: .*nowhere"):
        reproduce(workspace, "train", print)
