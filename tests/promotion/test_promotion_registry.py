from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sarflood.errors import GateRefusedError, InputError, SarfloodError
from sarflood.files import write_json
from sarflood.process import git, run
from sarflood.promotion.promote import (
    check_history,
    previous_champion,
    promote,
    promote_judged,
)
from sarflood.promotion.registry import (
    assign_production,
    find_version,
    note_champion,
    production,
    register,
    versions,
)
from sarflood.promotion.status import status
from sarflood.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "config", "user.name", "test")
    git(tmp_path, "config", "user.email", "test@localhost")
    shutil.copy(Path(__file__).parents[2] / "params.yaml", tmp_path)
    return Workspace(tmp_path)


def candidate(
    workspace: Workspace, iou: float, *, passed: bool, champion: str | None = None
) -> None:
    """Commit what a run leaves of a candidate."""
    write_json(workspace.metrics / "evaluation.json", {"test": {"iou": iou}})
    verdict = {"passed": passed, "candidate": f"hash of {iou}", "champion": champion}
    write_json(workspace.metrics / "gate.json", verdict)
    write_json(workspace.model / "model.json", {"trained_on": [{"event": "a"}]})
    git(workspace.root, "add", "-A")
    git(workspace.root, "commit", "--quiet", "-m", f"candidate {iou}")


def test_versions_carry_what_their_commit_says(workspace: Workspace) -> None:
    assert versions(workspace) == []
    assert production(workspace) is None
    candidate(workspace, 0.8, passed=True)
    assert register(workspace, "first").version == "v0.1.0"
    candidate(workspace, 0.6, passed=False)
    assert register(workspace, "second").version == "v0.2.0"
    second, first = versions(workspace)
    assert (first.iou, first.gate_passed, first.events) == (0.8, True, ("a",))
    assert first.weights == "hash of 0.8"
    assert (second.iou, second.gate_passed, second.production) == (0.6, False, False)
    assert second.commit == workspace.commit()
    assert "flood-unet@v0.2.0" in git(workspace.root, "tag", "--list")


def test_promotions_in_a_row_end_with_the_last_one(workspace: Workspace) -> None:
    for iou in (0.8, 0.9):
        candidate(workspace, iou, passed=True)
        register(workspace, "candidate")
    for version in ("v0.1.0", "v0.2.0", "v0.1.0", "v0.2.0", "v0.1.0"):
        assert assign_production(workspace, version, "test").version == version
    now = production(workspace)
    assert now
    assert now.version == "v0.1.0"
    assert len(now.promotions) == 3


def test_two_writers_take_turns(workspace: Workspace) -> None:
    for iou in (0.8, 0.9):
        candidate(workspace, iou, passed=True)
        register(workspace, "candidate")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda v: assign_production(workspace, v, "t"), ("v0.1.0", "v0.2.0")))
    times = [made.at for item in versions(workspace) for made in item.promotions]
    assert len(set(times)) == 2, "each promotion has a second of its own"


def test_a_refused_version_is_not_promoted(workspace: Workspace) -> None:
    candidate(workspace, 0.5, passed=False)
    version = register(workspace, "refused")
    for reason in (None, "", " "):
        with pytest.raises(GateRefusedError, match=r"v0\.1\.0: refused"):
            promote(workspace, version, "please", reason)
    assert production(workspace) is None


def test_the_gate_is_overridden_by_name_and_for_ever(workspace: Workspace) -> None:
    candidate(workspace, 0.5, passed=False)
    version = register(workspace, "refused")
    for name in ("sarflood", ""):
        git(workspace.root, "config", "user.name", name)
        with pytest.raises(InputError, match=r"by name: `git config user\.name"):
            promote(workspace, version, "", "better than nothing")
    git(workspace.root, "config", "user.name", "Maria Reyes")
    promoted = promote(workspace, version, "", "better than nothing")
    (made,) = promoted.promotions
    assert (made.by, made.override) == ("Maria Reyes", True)
    assert made.message == "Override of the gate: better than nothing"
    assert "better than nothing" in git(workspace.root, "tag", "-n", "--list", "*production*")
    live = status(workspace)["production"]
    assert (live["version"], live["override"], live["by"]) == ("v0.1.0", True, "Maria Reyes")
    assert live["gate"] == "refused"


def test_status_says_what_waits_and_what_the_candidate_is(workspace: Workspace) -> None:
    empty = status(workspace)
    assert (empty["production"], empty["candidate"], empty["waiting"]) == (None, None, [])
    candidate(workspace, 0.8, passed=True)
    register(workspace, "first")
    assert status(workspace)["waiting"] == ["v0.1.0"]
    assign_production(workspace, "v0.1.0", "go")
    now = status(workspace)
    assert (now["waiting"], now["production"]["bundle"]) == ([], False)
    with workspace.exclusive(print):
        assert status(workspace)["busy"]
    assert not status(workspace)["busy"]


@pytest.mark.parametrize("how", ["detached", "shallow", "changed"])
def test_no_version_is_made_where_its_commit_or_code_would_be_lost(
    workspace: Workspace, tmp_path: Path, how: str
) -> None:
    candidate(workspace, 0.8, passed=True)
    candidate(workspace, 0.9, passed=True)
    check_history(workspace)
    place, said = (
        workspace,
        {
            "detached": "HEAD is detached.*git switch",
            "shallow": "a shallow clone.*git fetch --unshallow",
            "changed": "not committed: dvc.yaml",
        },
    )
    if how == "detached":
        git(workspace.root, "checkout", "--quiet", "--detach")
    elif how == "shallow":
        place = Workspace(tmp_path / "shallow")
        url = workspace.root.as_uri()
        git(tmp_path, "clone", "--quiet", "--depth", "1", url, str(place.root))
    else:
        write_json(workspace.root / "dvc.yaml", {})
    with pytest.raises(InputError, match=said[how]):
        check_history(place)


def test_a_verdict_against_another_champion_does_not_promote(workspace: Workspace) -> None:
    for iou in (0.7, 0.8):
        candidate(workspace, iou, passed=True)
        assign_production(workspace, register(workspace, "champion").version, "better")
    candidate(workspace, 0.9, passed=True, champion="v0.2.0")
    judged = register(workspace, "judged against v0.2.0")
    assign_production(workspace, "v0.1.0", "rollback while it was trained")
    with pytest.raises(SarfloodError, match=r"judged against v0\.2\.0.*judges it anew"):
        promote_judged(workspace, judged, "gate passed")
    assign_production(workspace, "v0.2.0", "and forth again")
    assert promote_judged(workspace, judged, "gate passed").version == "v0.3.0"


def test_an_unknown_version_is_named_with_those_that_are_known(workspace: Workspace) -> None:
    candidate(workspace, 0.8, passed=True)
    register(workspace, "first")
    with pytest.raises(InputError, match=r"no version v9\.0\.0; registered: v0\.1\.0"):
        find_version(workspace, "v9.0.0")
    with pytest.raises(InputError, match="no version is in production"):
        find_version(workspace, None)


def test_the_champion_is_noted_from_the_tags(workspace: Workspace) -> None:
    note_champion(workspace)
    assert json.loads(workspace.champion.read_text()) == {"version": None}
    candidate(workspace, 0.8, passed=True)
    register(workspace, "first")
    assign_production(workspace, "v0.1.0", "go")
    note_champion(workspace)
    assert json.loads(workspace.champion.read_text()) == {"version": "v0.1.0"}


def test_a_promotion_waits_out_the_second_of_the_last(workspace: Workspace) -> None:
    candidate(workspace, 0.8, passed=True)
    register(workspace, "first")
    started = time.time()
    for _ in range(3):
        assign_production(workspace, "v0.1.0", "again")
    assert time.time() - started >= 1
    assert len({made.at for made in versions(workspace)[0].promotions}) == 3


def test_going_back_twice_goes_back_two_champions(workspace: Workspace) -> None:
    for iou in (0.7, 0.8, 0.9):
        candidate(workspace, iou, passed=True)
        assign_production(workspace, register(workspace, "candidate").version, "better")
    for expected in ("v0.2.0", "v0.1.0"):
        before = previous_champion(workspace)
        assert before
        assert before.version == expected
        assign_production(workspace, before.version, "rollback")
    assert previous_champion(workspace) is None


def test_a_promotion_from_the_future_is_refused(workspace: Workspace) -> None:
    candidate(workspace, 0.8, passed=True)
    register(workspace, "first")
    ahead = {"GIT_COMMITTER_DATE": f"{int(time.time()) + 3600} +0000"}
    command = ["git", "tag", "-a", "-m", "ahead", "flood-unet#production#1", "flood-unet@v0.1.0^{}"]
    run(command, workspace.root, environment=ahead)
    with pytest.raises(SarfloodError, match="in the future; set this machine's clock right"):
        assign_production(workspace, "v0.1.0", "now")


def test_tags_that_somebody_else_made_are_read_and_what_is_no_tag_of_ours_is_not(
    workspace: Workspace, tmp_path: Path
) -> None:
    candidate(workspace, 0.8, passed=True)
    assign_production(workspace, register(workspace, "first").version, "go")
    other = Workspace(tmp_path / "other")
    git(tmp_path, "clone", "--quiet", str(workspace.root), str(other.root))
    git(other.root, "config", "user.name", "somebody else")
    git(other.root, "config", "user.email", "else@localhost")
    candidate(other, 0.9, passed=True, champion="v0.1.0")
    assign_production(other, register(other, "second").version, "better")
    for name in ("flood-unet@latest", "flood-unet#production#77", "other-model@v9.0.0"):
        git(
            other.root,
            "tag",
            "-a",
            "-m",
            "not ours",
            name,
            "HEAD~1" if "77" not in name else "HEAD",
        )
    candidate(workspace, 0.7, passed=True, champion="v0.1.0")
    git(workspace.root, "fetch", "--quiet", "--tags", str(other.root))
    now = production(workspace)
    assert now
    assert (now.version, now.iou) == ("v0.2.0", 0.9)
    judged = register(workspace, "judged against what was champion before the fetch")
    assert judged.version == "v0.3.0"
    with pytest.raises(SarfloodError, match=r"judged against v0\.1\.0, but another version"):
        promote_judged(workspace, judged, "gate passed")
    assert assign_production(workspace, "v0.1.0", "rollback").version == "v0.1.0"
