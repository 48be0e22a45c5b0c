"""Promotions that are killed, that race, and that run out of disk: real runs in real workspaces.

`python -m bench.crash` kills at more points; docs/reliability.md has what was seen.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench.crash import Harness, harness
from sarflood.process import child_environment, git
from sarflood.promotion.registry import versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def made() -> Iterator[Harness]:
    with harness() as prepared:
        yield prepared


def test_wherever_a_promotion_is_killed_the_next_run_ends_it(made: Harness) -> None:
    made.restore()
    assert made.watched().returncode == 0
    writes = made.writes()
    places = {write.split("/")[1] for write in writes if "/" in write}
    assert {"metrics", ".git", ".dvc", ".bentoml"} <= places, "each part of it is seen"
    for at in (len(writes) // 2, len(writes) - 12):  # runs differ by a few writes
        seen = made.crash(at, serve=False)
        assert not seen.wrong, seen


def test_of_two_retrainings_at_once_one_waits_and_finds_nothing_new(made: Harness) -> None:
    made.restore()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "sarflood.cli", "retrain"],
            cwd=made.workspace.root,
            env=child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    said = sorted("nothing new" in out for out, _ in ended)
    assert said == [False, True]
    assert sum("another command works" in err for _, err in ended) == 1
    assert [item.version for item in versions(made.workspace)] == ["v0.2.0", "v0.1.0"]
    assert made.look(serve=False) == ("v0.2.0", [])


def test_a_full_disk_is_refused_and_the_next_run_ends_it(made: Harness) -> None:
    """No file can grow beyond 20 kB, so that some write fails as on a full disk."""
    made.restore()
    done = subprocess.run(
        [sys.executable, "-m", "sarflood.cli", "gate"],
        cwd=made.workspace.root,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode not in {0, 4}, done.stdout
    assert "Traceback" not in done.stderr.splitlines()[-1]
    assert made.look(serve=False) == ("v0.1.0", [])
    made.run("retrain")
    assert made.look(serve=False) == ("v0.2.0", [])


def test_a_champion_that_somebody_else_made_and_did_not_push_is_named(made: Harness) -> None:
    made.restore()
    root = made.workspace.root
    lock = (root / "dvc.lock").read_text("utf-8")
    stash = git(root, "stash", "create").strip()
    git(root, "tag", "-a", "-m", "theirs", "flood-unet@v0.9.0", stash)
    git(root, "tag", "-a", "-m", "theirs", "flood-unet#production#9", "flood-unet@v0.9.0^{}")
    assert (root / "dvc.lock").read_text("utf-8") == lock
    ran = made.start("gate")
    assert ran.returncode in {1, 2}
    assert "v0.9.0" in ran.stderr
    assert json.loads(made.run("status", "--json"))["production"]["version"] == "v0.9.0"
    made.run("rollback")
    assert made.look(serve=False)[0] == "v0.1.0"
