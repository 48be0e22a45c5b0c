"""The guide to operations: its commands, as they stand there, and what it promises of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from loop_workspace import SETTINGS
from operate_page import PAGE, POSTGRESQL, Reader, commands, reader, says, section
from running import edit, until

from sarflood.ingest.track import tracked_events
from sarflood.operations.parts import marked
from sarflood.process import git
from sarflood.promotion.registry import versions
from sarflood.serving.bundle import is_built
from sarflood.sources.simulate import simulate_event

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
UP = "sarflood up --prefect-port 4210 --serve-port 3010 --reports-port 4310"
OVERRIDE = 'sarflood promote v0.2.0 --override --reason "the old one is blind in Luzon"'
NEWER = "Take in a source"
STRICT = {"    iou: {min: 0.05}": "    iou: {min: 0.999}"}
SHADOWING = {
    "    iou: {min: 0.999}": "    iou: {min: 0.05}",
    "margin: 0.01": "margin: 1.0",
    "min_gain: 0.0": "min_gain: -1.0",
    "shadow: null": "shadow: {requests: 100, least_equal: 0.9}",
}
# By the table of what runs leave under Artifacts.
LEFT_BY_INGEST = {"validation-rolly-2020"}
LEFT_BY_RETRAIN = {"training", "validation", "evaluation", "gate", "worst-patches", "model-card"}
LINKS = {"report", "data-docs", "bundle-v0-1-0-page"}


@pytest.fixture(scope="module")
def guide() -> Iterator[Reader]:
    with reader() as found:
        for seed, name in enumerate(("rolly-2020", "ulysses-2020"), start=1):
            simulate_event(found.up.sources / name, seed=seed, size=1280)
        yield found


def test_a_new_workspace_goes_up_and_down_with_a_service_manager(guide: Reader) -> None:
    up = guide.up
    guide.run("sarflood init /srv/floods && cd /srv/floods")
    edit(up.workspace, SETTINGS)
    manager = guide.start("sarflood up --foreground")
    until(lambda: len(up.status()["parts"]) == 5 and not up.status()["trouble"], "all parts", 120)
    assert "no version is in production" in guide.run("sarflood status")
    manager.terminate()
    manager.wait(90)
    assert list(marked(up.workspace)) == []


def test_a_drop_becomes_a_version_that_serves(guide: Reader) -> None:
    up = guide.up
    guide.environment = {"SARFLOOD_NO_TOKEN": "1"}
    guide.run(UP)
    guide.environment = {}
    guide.run("cp -r /srv/incoming/rolly-2020 inbox/")
    until(lambda: up.served() == "v0.1.0", "v0.1.0 serves")
    assert (up.workspace.inbox / "done" / "rolly-2020" / "scene.tif").is_file()
    address = f"http://127.0.0.1:{up.ports.serve}/model"
    assert httpx.get(address).status_code == 200, "it was brought up to ask for no token"


def test_what_ran_can_be_seen(guide: Reader) -> None:
    up = guide.up
    until(up.idle, "the retraining ends")
    said = guide.run("sarflood status")
    assert "v0.1.0 is in production" in said
    assert "retrain after rolly-2020, Promoted" in said
    found = json.loads(guide.run("sarflood status --json"))
    assert {item["state"] for item in found["parts"]} == {"RUNNING"}
    assert {"Accepted", "Promoted"} <= {row["state"] for row in found["runs"]}
    assert found["free_gib"] > 0
    left = {row["key"] for row in up.ask("artifacts")}
    assert left >= LEFT_BY_INGEST | LEFT_BY_RETRAIN | LINKS


def test_a_part_that_does_not_stay_up_is_said_to_be_trouble(guide: Reader) -> None:
    assert says(guide.run("sarflood up", code=2), "is up already")
    psutil.Process(guide.up.processes()["pages"]).kill()
    said: str = until(
        lambda: "TROUBLE" in (text := guide.run("sarflood status")) and text, "trouble", 60
    )
    assert says(said, "TROUBLE: … is …; see …")
    assert "pages.log" in said
    until(lambda: not guide.up.status()["trouble"], "no trouble any more", 60)


def known(guide: Reader) -> dict[str, Any]:
    place = guide.up.workspace
    return {
        "versions": [(item.version, item.commit, item.production) for item in versions(place)],
        "events": tracked_events(place),
        "settings": place.params.read_text("utf-8"),
    }


def test_a_back_up_is_restored_to_an_empty_place(guide: Reader) -> None:
    up = guide.up
    before, runs = known(guide), {row["id"] for row in up.runs("retrain")}
    token = up.site.token()
    guide.run("sarflood down")
    guide.run("tar -C /srv -cf /backup/floods.tar floods floods-remote")
    for folder in (up.workspace.root, Path(f"{up.workspace.root}-remote")):
        shutil.rmtree(folder)
    guide.run("tar -C /srv -xf /backup/floods.tar")
    guide.run("cd /srv/floods && sarflood up")
    until(lambda: up.served() == "v0.1.0", "v0.1.0 serves again", 120)
    assert known(guide) == before
    assert up.site.token() == token
    assert runs <= {row["id"] for row in up.runs("retrain")}
    assert git(up.workspace.root, "status", "--porcelain") == ""


def test_it_goes_on_with_another_event_and_refuses_a_candidate(guide: Reader) -> None:
    up = guide.up
    edit(up.workspace, STRICT)
    said = guide.run("sarflood ingest /srv/incoming/ulysses-2020 --event ulysses-2020")
    assert "ulysses-2020: accepted" in said
    until(
        lambda: any(says(name, "Refused") for name in states(guide, "retrain")),
        "a refused candidate",
    )
    assert set(versions(up.workspace)[0].events) == {"rolly-2020", "ulysses-2020"}
    assert up.served() == "v0.1.0"
    ran = up.sarflood("retrain")
    assert ran.returncode == 4
    assert says(ran.stderr, "the champion stays")


def states(guide: Reader, flow: str) -> list[str]:
    return [row["state_name"] for row in guide.up.runs(flow)]


def test_prefects_command_line_starts_a_run(guide: Reader) -> None:
    guide.run("export PREFECT_API_URL=http://127.0.0.1:4200/api")
    guide.run("export PREFECT_API_AUTH_STRING=sarflood:$(cat .sarflood/up/token)")
    guide.run(
        "prefect deployment run ingest/ingest --watch "
        "--param source=/srv/incoming/ulysses-2020 --param event=ulysses-2020"
    )
    assert states(guide, "ingest")[-1] == "Nothing new"


def test_a_gate_that_asks_for_a_shadow_gets_one(guide: Reader) -> None:
    edit(guide.up.workspace, SHADOWING)
    ran = guide.up.sarflood("retrain")
    assert ran.returncode == 0, ran.stderr
    assert says(states(guide, "retrain")[-1], "Shadowed")
    assert json.loads(guide.run("sarflood shadow"))["version"] == "v0.3.0"


def test_a_refused_version_is_promoted_by_name_and_rolled_back(guide: Reader) -> None:
    up = guide.up
    git(up.workspace.root, "config", "user.name", "sarflood")
    assert says(guide.run(OVERRIDE, code=2), "the gate is overridden by name")
    guide.run('git config user.name "Maria Reyes"')
    guide.run(OVERRIDE)
    assert up.served() == "v0.2.0"
    assert "REFUSED it; by Maria Reyes" in guide.run("sarflood status")
    guide.run("sarflood rollback")
    assert up.served() == "v0.1.0"


def test_it_is_upgraded_also_without_what_may_be_left_out(guide: Reader) -> None:
    up = guide.up
    root, token = up.workspace.root, up.site.token()
    before = known(guide)
    guide.run("sarflood down")
    for name in (".bentoml", ".sarflood", ".prefect"):
        shutil.rmtree(root / name)
    release(guide.root / "srv" / "sarflood")
    guide.run("git pull --no-rebase /srv/sarflood main")
    assert guide.run("git status").count("nothing to commit") == 1
    guide.run("sarflood up")
    deployments = {row["name"]: row["description"] for row in up.ask("deployments")}
    assert deployments["ingest"].startswith(NEWER), "the new code runs"
    assert known(guide) == before
    assert up.site.token() != token
    assert not is_built("flood-unet:v0.1.0", up.workspace.bentos)
    guide.run("sarflood deploy")
    assert up.served() == "v0.1.0"


def release(folder: Path) -> None:
    """Make a clone of the source with a newer commit."""
    git(ROOT, "clone", "--quiet", str(ROOT), str(folder))
    git(folder, "switch", "--quiet", "--force-create", "main")
    deployments, stage = folder / "prefect.yaml", folder / "src/sarflood/stages/split.py"
    text = deployments.read_text("utf-8")
    assert "Take a source in" in text
    deployments.write_text(text.replace("Take a source in", NEWER), "utf-8")
    stage.write_text(f"{stage.read_text('utf-8')}# newer\n", "utf-8")
    git(folder, "config", "user.name", "upstream")
    git(folder, "config", "user.email", "upstream@localhost")
    git(folder, "commit", "--quiet", "-am", "A newer release")


def test_after_that_a_retraining_runs_the_changed_stage_and_finds_nothing_new(
    guide: Reader,
) -> None:
    up = guide.up
    until(lambda: states(guide, "retrain"), "a retraining, for it is not known what one has seen")
    until(up.idle, "its end")
    assert states(guide, "retrain") == ["Nothing new"]
    lines = [row["message"] for row in up.ask("logs", {"limit": 200})]
    ran = {line.split("'")[1] for line in lines if line.startswith("Running stage")}
    assert ran == {"split"}
    assert git(up.workspace.root, "status", "--porcelain") == ""


def test_each_command_of_the_page_was_run(guide: Reader) -> None:
    guide.run("sarflood down")
    page = PAGE.read_text("utf-8")
    assert guide.typed == commands(page.replace(section(POSTGRESQL), ""))
