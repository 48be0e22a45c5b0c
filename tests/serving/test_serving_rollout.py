"""A switch and a rollback under load, and versions that do not become ready."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from loop_workspace import prefect_server

from bench.rollout import KEEPING, ONE_SHOT, TOKEN, Load, answers, following, make_versions
from sarflood.errors import SarfloodError
from sarflood.operations.overview import overview
from sarflood.operations.parts import Site
from sarflood.params import load_params
from sarflood.process import child_environment
from sarflood.promotion.promote import bundle_version
from sarflood.promotion.registry import assign_production, find_version
from sarflood.promotion.shadow import compared, shadow
from sarflood.serving.access import token_environment
from sarflood.serving.bundle import bundle_folder
from sarflood.serving.rollout import log_of, services, wait_until_served
from sarflood.serving.server import free_port, get
from sarflood.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
THIRD = 1000  # requests before the switch, between it and the rollback, and after that
VERSIONS = ("v0.1.0", "v0.2.0", "v0.3.0", "v0.4.0")


@dataclass(frozen=True)
class Running:
    """A workspace with four versions, two of them spoiled copies, and the port that follows it."""

    workspace: Workspace
    port: int
    log: Path

    def servers(self) -> list[psutil.Process]:
        """The processes of versions."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(str(self.workspace.bentos) in part for part in process.info["cmdline"] or ())
        ]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="sarflood-rollout-") as name:
        place = make_versions(Path(name) / "workspace", 4)
        params = load_params(place.params).serving
        for version in VERSIONS[:2]:
            bundle_version(place, find_version(place, version), params)
        second = bundle_folder("flood-unet:v0.2.0", place.bentos)
        for version in VERSIONS[2:]:
            shutil.copytree(second, second.with_name(version))
        assign_production(place, "v0.1.0", "first")
        with following(place) as port:
            yield Running(place, port, log_of(place, port))


def test_no_request_is_lost_by_a_switch_and_a_rollback(running: Running) -> None:
    place = running.workspace
    with Load(place, running.port) as load:
        load.wait_for(THIRD)
        for version in ("v0.2.0", "v0.1.0"):
            assign_production(place, version, "change")
            assert wait_until_served(place, version) == [running.port]
            load.wait_for(load.count() + THIRD)
    assert load.failed() == []
    assert load.count() >= 3 * THIRD
    assert {item.version for item in load.asked[:THIRD]} == {"v0.1.0"}
    assert {item.version for item in load.asked[-THIRD // 2 :]} == {"v0.1.0"}
    second = [item for item in load.asked if item.version == "v0.2.0"]
    assert len(second) > THIRD // 2
    assert load.longest_gap() < 30


def test_the_old_servers_are_gone_once_their_clients_are(running: Running) -> None:
    servers = running.servers()
    psutil.wait_procs(servers[:-1], timeout=120)
    assert len(running.servers()) == 1


def test_a_shadow_answers_nobody_and_its_death_harms_nobody(running: Running) -> None:
    place = running.workspace
    champion = running.servers()[0].pid
    shadow(place, "v0.2.0")
    with Load(place, running.port) as load:
        until(lambda: len(compared(place, "v0.2.0")) >= 5)
        (candidate,) = [item for item in running.servers() if item.pid != champion]
        assert candidate.nice() == 19
        candidate.suspend()  # it is slow
        load.wait_for(load.count() + 50)
        candidate.kill()
        load.wait_for(load.count() + 50)
        metrics = get(running.port, "/metrics", TOKEN) or b""
    assert load.failed() == []
    assert {item.version for item in load.asked} == {"v0.1.0"}
    line, *_ = compared(place, "v0.2.0")
    masks = answers(place)
    assert line.equal == pytest.approx((masks["v0.1.0"] == masks["v0.2.0"]).mean(), abs=0.01)
    for outcome in ("compared", "dropped"):
        assert f'candidate="v0.2.0",outcome="{outcome}"'.encode() in metrics
    shadow(place, None)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_version_that_does_not_become_ready_gets_no_request(running: Running) -> None:
    place = running.workspace
    bundle = bundle_folder("flood-unet:v0.3.0", place.bentos)
    weights = bundle / "src" / "package" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    _no_request_reaches(running, "v0.3.0", "weights.safetensors")


def test_what_answers_as_another_version_gets_no_request(running: Running) -> None:
    _no_request_reaches(running, "v0.4.0", "it is of another version: v0.2.0")


def _no_request_reaches(running: Running, version: str, why: str) -> None:
    place = running.workspace
    with Load(place, running.port) as load:
        load.wait_for(20)
        assign_production(place, version, "change")
        with pytest.raises(SarfloodError, match=f"goes on with v0.1.0, not {version}: ") as refusal:
            wait_until_served(place, version)
        load.wait_for(load.count() + 20)
        trouble = overview(place)["trouble"]
    assert why in str(refusal.value)
    assert any(f"port {running.port} goes on with v0.1.0" in line for line in trouble)
    assert load.failed() == []
    assert {item.version for item in load.asked} == {"v0.1.0"}
    assign_production(place, "v0.1.0", "back")


def test_a_server_that_is_killed_is_started_again_and_requests_wait_for_it(
    running: Running,
) -> None:
    place = running.workspace
    wait_until_served(place, "v0.1.0")
    with Load(place, running.port) as load:
        load.wait_for(20)
        for server in running.servers():
            server.kill()
        load.wait_for(load.count() + 50)
    # What was in flight is lost with the process; connections made after that wait.
    assert len(load.failed()) <= 2 * (KEEPING + ONE_SHOT)
    assert running.log.read_text("utf-8").count("Application startup complete") >= 2


def test_the_commands_of_the_page_work_as_they_stand_there(running: Running) -> None:
    place = running.workspace
    wait_until_served(place, "v0.1.0")
    script = ["set -eo pipefail", "trap 'kill $(jobs -p); wait' EXIT"]
    ports = {"3000": str(free_port()), "3001": str(free_port())}
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        for line in block.splitlines():
            command = line.removeprefix("$ ")
            for known, free in ports.items():
                command = command.replace(known, free)
            script += [f"echo {shlex.quote(f'$ {command}')}", command]
    assert len(script) > 25
    with prefect_server(place.root.parent) as api:
        environment = {"PREFECT_API_URL": api, **token_environment(TOKEN)}
        Site(place).folder.mkdir(parents=True, exist_ok=True)
        (Site(place).folder / "token").write_text(TOKEN)
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=place.root,
            env=child_environment(environment),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    said = {block.partition("\n")[0]: block for block in done.stdout.split("$ ")}
    assert re.search(r'"content": "[0-9a-f]{64}"', said["sarflood bundle v0.2.0"])
    deployed = said["sarflood deploy v0.2.0"]
    assert set(re.findall(r"\d{4,5}", deployed)) == {str(running.port), ports["3000"]}
    assert any('"version":"v0.2.0"' in block for name, block in said.items() if "/model" in name)
    assert json.loads(said["sarflood shadow"].partition("\n")[2])["version"] == "v0.2.0"
    assert (place.root / "flood-unet-v0.2.0.bento").is_file()
    wait_until_served(place, "v0.1.0")


def test_no_server_outlives_the_rollout_that_started_it(running: Running) -> None:
    (state,) = services(running.workspace)
    servers = running.servers()
    assert servers
    psutil.Process(state["pid"]).kill()
    _, alive = psutil.wait_procs(servers, timeout=60)
    assert not alive
    assert services(running.workspace) == []
