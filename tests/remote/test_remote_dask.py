"""Scenes and events on Dask, on the loopback and on machines of their own, one of which dies."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import rasterio
import torch
from distributed import get_task_stream
from item_site import serving, write_item
from machines import Cluster, Machine, bridged, contents, make_workspace, set_dask, until
from tiny import speckle, write_scene
from typer.testing import CliRunner

from sarflood.cli.console import app
from sarflood.files import write_text
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.mapping.series import FILES
from sarflood.params import load_params
from sarflood.process import git
from sarflood.sources.simulate import simulate_event
from sarflood.workspace import Workspace

pytestmark = pytest.mark.slow


class Setting:
    """A cluster, a workspace that names it, some scenes and an event's source."""

    def __init__(self, folder: Path, machines: list[Machine], stack: ExitStack) -> None:
        self.folder = folder
        self.cluster = Cluster(folder, machines, stack)
        for machine in machines[2:]:
            self.cluster.add_worker(machine)
        self.workspace = make_workspace(folder / "workspace", self.cluster.address)
        self.scenes = [
            # The first has two parts.
            write_scene(folder / f"scene{n}.tif", speckle(2, high, wide, n), ("VV", "VH"))
            for n, (high, wide) in enumerate([(4400, 64), (500, 400), (500, 400), (500, 400)])
        ]
        for day, path in enumerate(self.scenes, start=1):
            with rasterio.open(path, "r+") as scene:
                scene.update_tags(ACQUIRED=f"2019-03-0{day}T16:10:00Z")
        self.source = folder / "source"
        simulate_event(self.source, seed=3, size=1536)

    def expected_maps(self) -> dict[str, bytes]:
        """What the verb `map` says of one scene after the other, in this process."""
        out = self.folder / "expected"
        torch.set_num_threads(1)  # as the workers have: more of them round otherwise
        for scene in self.scenes:
            words = ["map", str(scene), "--out", str(out / scene.stem)]
            ran = CliRunner().invoke(app, [*words, "--workspace", str(self.workspace.root)])
            assert ran.exit_code == 0, ran.exception
        return contents(out)

    def expected_event(self) -> dict[str, bytes]:
        """What an ingest in threads of this process gives."""
        place = Workspace(self.folder / "expected-event")
        place.root.mkdir()
        params = load_params(self.workspace.params).validation
        ingest_event(place, str(self.source), "po", Said(), params)
        return contents(place.events)


@pytest.fixture(scope="module")
def loopback() -> Iterator[Setting]:
    with tempfile.TemporaryDirectory(prefix="sarflood-dask-") as name, ExitStack() as stack:
        yield Setting(Path(name), [Machine("127.0.0.1")] * 4, stack)


@pytest.fixture(scope="module")
def network() -> Iterator[Setting]:
    with (
        tempfile.TemporaryDirectory(prefix="sarflood-net-") as name,
        ExitStack() as stack,
    ):
        machines = stack.enter_context(bridged(4))
        yield Setting(Path(name), machines, stack)


class TestLoopback:
    def test_scenes_have_the_same_bytes_by_dask_by_threads_and_one_by_one(
        self, loopback: Setting
    ) -> None:
        cluster, place = loopback.cluster, loopback.workspace
        expected = loopback.expected_maps()
        for name, address in (("dask", cluster.address), ("threads", None)):
            set_dask(place, address)
            words = ("map", *loopback.scenes, "--out", loopback.folder / name, "--series")
            code, out, err = cluster.ran(place, *words)
            assert code == 0, err
            assert "Still processing items" not in err, "GTO was imported within the flow"
            assert all(row["new"] for row in json.loads(out).values())
            found = contents(loopback.folder / name)
            series = [found.pop(file) for file in FILES.values()]
            (course,) = json.loads(series[0])["zones"]
            assert [point["scene"] for point in course["points"]] == sorted(json.loads(out))
            assert found == expected
        again = cluster.ran(place, *words)
        assert not any(row["new"] for row in json.loads(again[1]).values())
        runs = [run["state"]["name"] for run in cluster.runs("flow_runs") if run["flow_id"]]
        assert sorted(runs) == ["Mapped", "Mapped", "Nothing new"]

    def test_a_scene_that_fails_is_named_and_the_others_are_mapped(self, loopback: Setting) -> None:
        set_dask(loopback.workspace, loopback.cluster.address)
        (loopback.folder / "bad.tif").write_bytes(b"no raster")
        scenes = (loopback.folder / "bad.tif", loopback.folder / "gone.tif", *loopback.scenes[:1])
        out = loopback.folder / "partly"
        code, _, err = loopback.cluster.ran(loopback.workspace, "map", *scenes, "--out", out)
        assert code == 1
        assert "2 of 3 scenes failed, 1 are in" in err
        assert f"bad: {loopback.folder}/bad.tif: " in err
        assert f"gone: {loopback.folder}/gone.tif: cannot be read: No such file" in err
        assert "Traceback" not in err
        assert {path.name for path in out.iterdir()} == {"scene0", ".mapping.lock"}
        assert "Partly" in [run["state"]["name"] for run in loopback.cluster.runs("flow_runs")]

    def test_items_of_a_server_that_breaks_off_once_are_brought(self, loopback: Setting) -> None:
        set_dask(loopback.workspace, loopback.cluster.address)
        site, out = loopback.folder / "site", loopback.folder / "items"
        for number in (1, 2):
            write_item(site / str(number), speckle(2, 500, 400, number), f"item{number}")
        breaks = {"/1/scene_vh.tif"}
        with serving(site, [], breaks) as address:
            items = [f"{address}/{number}/item.json" for number in (1, 2)]
            code, _, err = loopback.cluster.ran(loopback.workspace, "map", *items, "--out", out)
        assert code == 0, err
        assert not breaks
        expected = loopback.expected_maps()
        for number in (1, 2):
            found = (out / f"item{number}" / "flood.tif").read_bytes()
            assert found == expected[f"scene{number}/flood.tif"]

    def test_an_item_is_brought_while_those_before_it_are_mapped(self, loopback: Setting) -> None:
        set_dask(loopback.workspace, None)
        site, out = loopback.folder / "many", loopback.folder / "in-turn"
        for number in range(8):
            write_item(site / str(number), speckle(2, 100, 100, number), f"item{number}")
        there: dict[str, bool] = {}

        class Asked(list[str]):
            def append(self, path: str) -> None:
                there[path] = (out / "item0" / "summary.json").exists()

        with serving(site, Asked(), set()) as address:
            items = [f"{address}/{number}/item.json" for number in range(8)]
            code, _, err = loopback.cluster.ran(loopback.workspace, "map", *items, "--out", out)
        assert code == 0, err
        assert [there[f"/{number}/scene_vv.tif"] for number in (0, 7)] == [False, True]

    def test_an_event_has_the_same_bytes(self, loopback: Setting) -> None:
        cluster, place = loopback.cluster, loopback.workspace
        set_dask(place, cluster.address)
        with get_task_stream(cluster.client) as done:
            code, out, err = cluster.ran(place, "ingest", loopback.source, "--event", "po")
        assert code == 0, err
        assert "po: accepted; 36 patches" in out
        assert len({task["worker"] for task in done.data}) == 2
        assert [task["key"].startswith("_read_there") for task in done.data] == [True] * 6
        assert contents(place.events / "po") == {
            name.removeprefix("po/"): told for name, told in loopback.expected_event().items()
        }

    def test_a_scheduler_that_does_not_answer_is_one_clear_error(self, loopback: Setting) -> None:
        set_dask(loopback.workspace, "tcp://127.0.0.1:9")
        words = ("map", *loopback.scenes[:2], "--out", loopback.folder / "nowhere")
        code, _, err = loopback.cluster.ran(loopback.workspace, *words)
        assert code == 2
        assert "run.dask is tcp://127.0.0.1:9, where no scheduler answers" in err
        assert "Traceback" not in err

    def test_dask_without_a_prefect_server_is_refused(
        self, loopback: Setting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_dask(loopback.workspace, loopback.cluster.address)
        monkeypatch.delitem(loopback.cluster.environment, "PREFECT_API_URL")
        words = ("map", *loopback.scenes[:2], "--out", loopback.folder / "nowhere")
        code, _, err = loopback.cluster.ran(loopback.workspace, *words)
        assert code == 2
        assert "set PREFECT_API_URL=" in err


class TestMachines:
    """Scheduler and workers in network namespaces of their own."""

    def test_a_worker_that_dies_while_it_maps_loses_nothing(self, network: Setting) -> None:
        cluster, out = network.cluster, network.folder / "maps"
        process = cluster.sarflood(network.workspace, "map", *network.scenes, "--out", out)
        scratch = out / ".mapping"
        # A folder there is a scene at work; a worker has one thread.
        until(lambda: len(list(scratch.glob("*"))) == 2, "two scenes at work", [process])
        cluster.kill(next(iter(cluster.workers)))
        _, err = process.communicate(timeout=360)
        assert process.returncode == 0, err
        assert len(cluster.workers) == len(cluster.client.nthreads()) == 1
        assert contents(out) == network.expected_maps()
        assert {path.name for path in out.iterdir() if path.is_dir()} == {
            scene.stem for scene in network.scenes
        }
        states = {run["name"]: run["state"]["name"] for run in cluster.runs("task_runs")}
        kinds = ("look at {}", "map {}, part 0", "write {}")
        names = {kind.format(scene.stem) for scene in network.scenes for kind in kinds}
        names.add("map scene0, part 1")
        assert states == dict.fromkeys({"fetch v0.1.0", *names}, "Completed")

    def test_a_worker_that_dies_while_it_reads_loses_nothing(self, network: Setting) -> None:
        cluster, place = network.cluster, network.workspace
        if len(cluster.workers) < 2:
            cluster.add_worker(cluster.machines[2])
        process = cluster.sarflood(place, "ingest", network.source, "--event", "po")
        cluster.kill(until(lambda: cluster.busy("_read_there"), "a busy worker", [process]))
        out, err = process.communicate(timeout=360)
        assert process.returncode == 0, err
        assert "po: accepted; 36 patches" in out
        expected = network.expected_event()
        assert contents(place.events / "po") == {
            name.removeprefix("po/"): told for name, told in expected.items()
        }
        assert "data/events/po.dvc" in git(place.root, "ls-files")

    def test_a_process_worker_on_another_machine_runs_the_same_flow(self, network: Setting) -> None:
        cluster, place = network.cluster, network.workspace
        write_text(place.root / "prefect.yaml", DEPLOYMENT.format(place.root))
        cluster.prefect("work-pool", "create", "far", "--type", "process")
        cluster.prefect("deploy", "--all", cwd=place.root)
        cluster.start(cluster.machines[3], "process", "prefect", "worker", "start", "--pool", "far")
        out = network.folder / "deployed"
        asked = {"scenes": [str(scene) for scene in network.scenes[:2]], "out": str(out)}
        words = ("deployment", "run", "map/map", "--params", json.dumps(asked))
        said = cluster.prefect(*words, "--watch", "--watch-interval", 1, "--watch-timeout", 300)
        log = (network.folder / "process.log").read_text("utf-8")
        assert "Mapped" in said, log
        expected = network.expected_maps()
        names = {scene.stem for scene in network.scenes[:2]}
        assert contents(out) == {
            name: told for name, told in expected.items() if name.split("/")[0] in names
        }
        assert "Connecting to an existing Dask cluster" in log


DEPLOYMENT = """
name: sarflood
pull:
  - prefect.deployments.steps.set_working_directory: {{directory: {}}}
deployments:
  - name: map
    entrypoint: flows/map_scenes.py:map_scenes
    work_pool: {{name: far}}
"""
