"""What the gate asks of copies of the traffic before a version is promoted."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import pytest

from sarflood.errors import GateRefusedError
from sarflood.files import write_json
from sarflood.monitoring.journal import Journal
from sarflood.process import git
from sarflood.promotion.promote import promote
from sarflood.promotion.registry import Version, find_version, register
from sarflood.promotion.shadow import report, shadow, shadowed
from sarflood.serving.compared import Compared
from sarflood.workspace import Workspace

PARAMS = Path(__file__).parents[2] / "params.yaml"
ASKED = "shadow: {requests: 3, least_equal: 0.9}"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with v0.1.0 in production, v0.2.0 that passed, and a gate that asks."""
    place = Workspace(tmp_path)
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "config", "user.name", "Maria Reyes")
    git(tmp_path, "config", "user.email", "test@localhost")
    shutil.copy(PARAMS, place.params)
    ask(place)
    for number in (1, 2):
        verdict = {"passed": True, "candidate": f"weights {number}"}
        write_json(place.metrics / "gate.json", verdict)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "--quiet", "-m", f"candidate {number}")
        register(place, "candidate")
    promote(place, find_version(place, "v0.1.0"), "nothing was shadowed by a first version")
    return place


def ask(place: Workspace) -> None:
    text = place.params.read_text("utf-8")
    assert "shadow: null" in text
    place.params.write_text(text.replace("shadow: null", ASKED))


def answer(place: Workspace, *equal: float, champion: str = "v0.1.0", status: int = 200) -> None:
    for share in equal:
        line = Compared(
            time=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            champion=champion,
            candidate="v0.2.0",
            status=status,
            pixels=100,
            equal=share,
            iou=share,
            wet=0.2,
            candidate_wet=0.1,
        )
        Journal(place.shadow).note(line)


def second(place: Workspace) -> Version:
    return find_version(place, "v0.2.0")


def test_too_few_copies_keep_a_version_back(workspace: Workspace) -> None:
    with pytest.raises(GateRefusedError, match=r"shadow: requests: 0.* at least 3; shadow: pix"):
        promote(workspace, second(workspace), "because")
    answer(workspace, 1.0, 1.0)
    answer(workspace, 1.0, champion="v0.0.9")
    with pytest.raises(GateRefusedError, match=r"requests: 2\.0.*at least 3 \(see `sarf"):
        promote(workspace, second(workspace), "because")
    assert find_version(workspace, None).version == "v0.1.0"


def test_enough_that_are_alike_let_it_pass_and_it_is_no_shadow_any_more(
    workspace: Workspace,
) -> None:
    shadow(workspace, "v0.2.0")
    answer(workspace, 1.0, 1.0, 0.8)
    assert promote(workspace, second(workspace), "because").version == "v0.2.0"
    assert shadowed(workspace) is None


def test_answers_unlike_the_champions_refuse_it_and_a_failed_one_counts(
    workspace: Workspace,
) -> None:
    answer(workspace, 1.0, 1.0, 1.0)
    answer(workspace, 0.0, status=500)
    with pytest.raises(GateRefusedError, match=r"champion's: 0\.7500, needs at least 0\.9"):
        promote(workspace, second(workspace), "because")
    found = report(workspace, "v0.2.0")
    assert (found["requests"], found["failed"], found["equal"]) == (4, 1, 0.75)


def test_a_person_can_override_it_and_the_tag_says_so(workspace: Workspace) -> None:
    promoted = promote(workspace, second(workspace), "because", "the old model is blind")
    assert promoted.promotions[-1].override


def test_a_version_that_was_in_production_comes_back_without_it(workspace: Workspace) -> None:
    promote(workspace, second(workspace), "because", "the old model is blind")
    back = promote(workspace, find_version(workspace, "v0.1.0"), "rollback")
    assert (back.version, back.promotions[-1].override) == ("v0.1.0", False)


def test_a_gate_that_does_not_ask_lets_pass(workspace: Workspace) -> None:
    text = workspace.params.read_text("utf-8")
    workspace.params.write_text(text.replace(ASKED, "shadow: null"))
    assert promote(workspace, second(workspace), "because").version == "v0.2.0"


def test_the_report_says_who_gets_copies_now(workspace: Workspace) -> None:
    assert report(workspace, "v0.2.0")["live"] is False
    workspace.shadow.mkdir(parents=True)
    (workspace.shadow / "live.json").write_text(json.dumps({"port": 1, "version": "v0.2.0"}))
    assert report(workspace, "v0.2.0") == {
        "version": "v0.2.0",
        "live": True,
        "requests": 0,
        "failed": 0,
        "equal": None,
        "iou": None,
        "wet": None,
        "candidate_wet": None,
    }
