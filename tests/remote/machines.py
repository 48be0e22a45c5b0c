"""Machines to be: processes on the loopback, or in network namespaces of their own on a bridge."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from distributed import Client
from tiny import write_package

from sarflood.files import sha256, write_json, write_text
from sarflood.model import WEIGHTS
from sarflood.process import child_environment, dvc, end_group, git
from sarflood.promotion.registry import assign_production, register
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0


@dataclass(frozen=True)
class Machine:
    """An address, and the network namespace that it belongs to."""

    address: str
    namespace: str | None = None

    def command(self, *words: object) -> list[str]:
        """Return what runs a command on this machine; the process stays the same."""
        there = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return [*there, *map(str, words)]


@contextmanager
def bridged(many: int) -> Iterator[list[Machine]]:
    """Make machines on one bridge; the first one is where the tests run."""
    name = f"sf{os.getpid()}"
    net = f"198.18.{os.getpid() % 256}"  # set apart for tests of networks
    try:
        ip("netns", "add", f"{name}-0")
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"network namespaces are not permitted here: {said.strip()}")
    with ExitStack() as stack:
        stack.callback(ip, "netns", "del", f"{name}-0")
        ip("link", "add", name, "type", "bridge")
        stack.callback(ip, "link", "del", name)
        ip("addr", "add", f"{net}.1/24", "dev", name)
        ip("link", "set", name, "up")
        machines = [Machine(f"{net}.1")]
        for number in range(1, many):
            there = Machine(f"{net}.{number + 1}", f"{name}-{number}")
            ip("netns", "add", f"{name}-{number}")
            # Its end of the cable goes with it, and so does the other.
            stack.callback(ip, "netns", "del", f"{name}-{number}")
            ends = (f"{name}h{number}", f"{name}n{number}")
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            ip("link", "set", ends[0], "master", name, "up")
            ip("link", "set", ends[1], "netns", f"{name}-{number}")
            for words in (
                ("link", "set", "lo", "up"),
                ("addr", "add", f"{there.address}/24", "dev", ends[1]),
                ("link", "set", ends[1], "up"),
            ):
                ip("-n", f"{name}-{number}", *words)
            machines.append(there)
        yield machines


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def free_ports() -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(2)]
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]


def until(ready: Callable[[], Any], what: str, processes: list[subprocess.Popen[str]]) -> Any:
    """Watch until `ready` says something true; a process that ends meanwhile is an error."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := ready():
            return found
        for process in processes:
            assert process.poll() is None, f"{process.args!r} ended; waited for {what}"
        time.sleep(0.02)  # between two looks
    raise AssertionError(f"{what}: not within {WAIT_S:.0f} s")


@dataclass
class Cluster:
    """A Prefect server, a Dask scheduler and its workers; all end with the tests."""

    folder: Path
    machines: list[Machine]
    stack: ExitStack
    workers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        home, second = self.machines[0], self.machines[1]
        port, dask_port = free_ports()
        self.api = f"http://{home.address}:{port}/api"
        self.environment = {
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        }
        prefect = ("prefect", "server", "start", "--host", home.address, "--port", port)
        self.server = self.start(home, "server", *prefect)
        self.address = f"tcp://{second.address}:{dask_port}"
        place = ("--host", second.address, "--port", dask_port, "--no-dashboard")
        self.scheduler = self.start(second, "scheduler", "distributed.cli.dask_scheduler", *place)
        until(self._answers, "the Prefect server", [self.server, self.scheduler])
        connect: Any = Client
        self.client = self.stack.enter_context(
            connect(self.address, timeout=WAIT_S, set_as_default=False)
        )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health").status_code == 200
        except httpx.TransportError:
            return False

    def start(self, machine: Machine, name: str, module: str, *words: object) -> Any:
        """Start a Python module on a machine, with a log of its own."""
        log = self.stack.enter_context((self.folder / f"{name}.log").open("w"))
        process = subprocess.Popen(
            machine.command(sys.executable, "-m", module, *words),
            cwd=self.folder,
            env=child_environment(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.stack.callback(end_group, process)
        return process

    def add_worker(self, machine: Machine) -> str:
        """Start a Dask worker of one thread; return its name once the scheduler knows it."""
        name = f"worker-{next(self.numbers)}"
        words = (self.address, "--name", name, "--host", machine.address, "--nthreads", 1)
        options = ("--no-nanny", "--no-dashboard", "--local-directory", self.folder / name)
        self.workers[name] = self.start(
            machine, name, "distributed.cli.dask_worker", *words, *options
        )
        until(lambda: self.place_of(name), name, [self.workers[name], self.scheduler])
        return name

    def place_of(self, name: str) -> str | None:
        known = self.client.scheduler_info(n_workers=-1)["workers"].items()
        return next((place for place, facts in known if facts["id"] == name), None)

    def busy(self, key: str) -> str | None:
        """Return a worker that works on a task whose key begins so."""
        tasks = self.client.processing()
        for name in self.workers:
            place = self.place_of(name)
            if any(str(task).startswith(key) for task in tasks.get(place, ())):
                return name
        return None

    def kill(self, name: str) -> None:
        """Kill a worker as a machine dies that loses its power."""
        process = self.workers.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def prefect(self, *words: object, cwd: Path | None = None) -> str:
        """Run one of Prefect's own commands to its end; return what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *map(str, words)],
            cwd=cwd,
            env=child_environment(self.environment),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sarflood(self, workspace: Workspace, *words: object) -> subprocess.Popen[str]:
        """Start the command line where the tests run."""
        return subprocess.Popen(
            [sys.executable, "-m", "sarflood.cli", *map(str, words)],
            cwd=workspace.root,
            env=child_environment(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ran(self, workspace: Workspace, *words: object) -> tuple[int, str, str]:
        """Run the command line to its end; return its exit code, stdout and stderr."""
        process = self.sarflood(workspace, *words)
        out, err = process.communicate(timeout=WAIT_S * 3)
        return process.returncode, out, err

    def runs(self, kind: str) -> list[dict[str, Any]]:
        """Return the runs of flows or tasks that the Prefect server knows."""
        answer = httpx.post(f"{self.api}/{kind}/filter", json={}, timeout=30)
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        return found


def make_workspace(root: Path, dask: str | None) -> Workspace:
    """A workspace with v0.1.0 in production and fetched, that keeps its events in DVC."""
    place = Workspace(root)
    root.mkdir(parents=True)
    shutil.copytree(ROOT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", root)
    set_dask(place, dask)
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "config", "user.name", "test")
    git(root, "config", "user.email", "test@localhost")
    shutil.copy(ROOT / ".gitignore", root)
    dvc(root, "init", "--quiet")
    dvc(root, "remote", "add", "--quiet", "--local", "--default", "storage", f"{root}-remote")
    Path(f"{root}-remote").mkdir()
    (place.cache / "versions").mkdir(parents=True)
    package = write_package(place.cache / "versions" / "v0.1.0")
    write_json(place.metrics / "evaluation.json", {"test": {"iou": 0.8}})
    digest = sha256(package / WEIGHTS)
    write_json(place.metrics / "gate.json", {"passed": True, "candidate": digest, "checks": []})
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "candidate")
    register(place, "candidate")
    assign_production(place, "v0.1.0", "first")
    return place


def set_dask(place: Workspace, dask: str | None) -> None:
    settings = (ROOT / "params.yaml").read_text("utf-8")
    assert "dask: null" in settings
    write_text(place.params, settings.replace("dask: null", f"dask: {dask or 'null'}"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder, but for how long a map took."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            told = path.read_bytes()
            if path.name == "summary.json":
                told = json.dumps({**json.loads(told), "seconds": 0}).encode()
            found[str(path.relative_to(folder))] = told
    return found
