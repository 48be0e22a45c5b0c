"""The parts that `sarflood up` runs, started, watched and started again by supervisord.

The parts are Prefect's server, a worker of the pool `sarflood`, the watcher of inbox and runs, the
service of the version in production, and the pages of reports. Each listens on the loopback alone.
All but the worker and the watcher ask for a token, which lies in the workspace for its owner alone.
"""

from __future__ import annotations

import configparser
import hashlib
import http.client
import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from sarflood.errors import InputError, SarfloodError
from sarflood.files import write_json
from sarflood.process import OWNER, child_environment, end_processes
from sarflood.serving.access import NO_TOKEN, TOKEN
from sarflood.serving.server import HOST, check_port, get
from sarflood.workspace import Workspace

POOL = "sarflood"
SERVER, WORKER = "server", "worker"
WORKSPACE_MARK, PART_MARK = "SARFLOOD_UP", "SARFLOOD_PART"  # in the environment of every part
RUN_MARK = "PREFECT__FLOW_RUN_ID"  # which Prefect gives to the process of a run
REPORTS_URL = "SARFLOOD_REPORTS_URL"
_USER = "sarflood"
_LOG_BYTES, _LOGS = 5_000_000, 3  # of each part
_STOP_WITHIN_S = 20
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Ports:
    """Where the parts listen on the loopback."""

    prefect: int = 4200
    serve: int = 3000
    reports: int = 4300


@dataclass(frozen=True)
class Site:
    """What `sarflood up` keeps of a workspace: its ports, token, logs and supervisor."""

    workspace: Workspace

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self.workspace.cache / "up"

    @property
    def ports(self) -> Ports | None:
        """The ports of the last `up`; None before the first."""
        try:
            return Ports(**json.loads((self.folder / "ports.json").read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise SarfloodError(
                f"{self.folder / 'ports.json'}: cannot be read ({error}); remove it, then "
                "`sarflood up`"
            ) from error

    @property
    def socket(self) -> Path:
        """Where supervisord is asked.

        Not in the workspace: the path of a socket may have 107 letters.
        """
        name = hashlib.sha256(str(self.workspace.root).encode()).hexdigest()[:16]
        folder = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        return Path(folder) / f"sarflood-{name}.sock"

    @property
    def token_place(self) -> str:
        """Where the token is found."""
        return TOKEN if os.environ.get(TOKEN) else str(self.folder / "token")

    def token(self) -> str:
        """Return what the parts ask for: `SARFLOOD_TOKEN`, or a token that is made once."""
        given = os.environ.get(TOKEN)
        if given:
            return given
        file = self.folder / "token"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as opened:
                opened.write(secrets.token_urlsafe(24))
        return file.read_text("utf-8").strip()

    def service_token(self, *, without: bool = False) -> str:
        """Return what the service asks for; "" for nothing.

        Args:
            without: It is to ask for nothing, as `SARFLOOD_NO_TOKEN=1` says likewise.

        Raises:
            InputError: It is, and `SARFLOOD_TOKEN` gives a token none the less.
        """
        if not without and os.environ.get(NO_TOKEN) != "1":
            return self.token()
        if os.environ.get(TOKEN):
            raise InputError(f"{TOKEN} is set: unset it, or do without --no-token and {NO_TOKEN}")
        return ""

    def auth(self) -> str:
        """Return user and token, as Prefect and browsers want them: `sarflood:…`."""
        return f"{_USER}:{self.token()}"

    def client_environment(self) -> dict[str, str]:
        """Return what a process needs to reach this workspace's Prefect server."""
        ports = self.ports
        if ports is None:
            return {}
        return {
            "PREFECT_API_URL": f"http://{HOST}:{ports.prefect}/api",
            "PREFECT_API_AUTH_STRING": self.auth(),
            REPORTS_URL: f"http://{HOST}:{ports.reports}",
        }

    def answers(self) -> bool:
        """Say whether this workspace's Prefect server answers."""
        ports = self.ports
        return ports is not None and get(ports.prefect, "/api/health") is not None

    def ask_supervisor(self, method: str) -> Any:
        """Call a method of supervisord's remote interface; raises OSError where none runs."""
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)()

    def processes(self) -> list[dict[str, Any]]:
        """Return the parts as supervisord sees them, by its names; none where it does not run."""
        try:
            found: list[dict[str, Any]] = self.ask_supervisor("getAllProcessInfo")
        except (OSError, http.client.HTTPException, xmlrpc.client.Fault):
            return []
        return found


def _commands(workspace: Workspace, ports: Ports) -> dict[str, list[str]]:
    """Return the command of each part, in the order in which they start."""
    python, here = sys.executable, str(workspace.root)
    prefect = [python, "-m", "prefect"]
    own = [python, "-m", "sarflood.cli"]
    return {
        SERVER: [*prefect, "server", "start", "--host", HOST, "--port", str(ports.prefect)],
        WORKER: [*prefect, "worker", "start", "--pool", POOL, "--type", "process"],
        "watch": [python, "-m", "flows.watch"],
        "serve": [*own, "serve", "--follow", "--port", str(ports.serve), "--workspace", here],
        "pages": [python, "-m", "sarflood.operations.pages", str(ports.reports), here],
    }


def bring_up(workspace: Workspace, ports: Ports, *, foreground: bool = False) -> Site:
    """Start supervisord with all parts; what is left of an earlier `up` is ended first.

    Args:
        workspace: Where.
        ports: Free ports of the loopback.
        foreground: Stay until supervisord ends, as service managers want it.

    Raises:
        InputError: The parts run already, or a port is taken.
        SarfloodError: supervisord did not start.
    """
    site = Site(workspace)
    if site.processes():
        raise InputError(f"{workspace.root}: is up already; see `sarflood status`")
    site.service_token()  # a contradiction is said now
    end_left(workspace)
    for port in asdict(ports).values():
        check_port(port)
    site.folder.mkdir(parents=True, exist_ok=True)
    write_json(site.folder / "ports.json", asdict(ports))
    site.socket.unlink(missing_ok=True)
    config = site.folder / "supervisord.conf"
    with config.open("w", encoding="utf-8") as file:
        _config(site, _commands(workspace, ports)).write(file)
    environment = child_environment(
        {
            **workspace.environment(),
            **site.client_environment(),
            "PREFECT_SERVER_API_AUTH_STRING": site.auth(),
            "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{ports.prefect}/api",
            # A server that was killed finds again which runs hold which slots.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            # The code that runs is the workspace's own.
            "PYTHONPATH": os.pathsep.join([str(workspace.root / "src"), str(workspace.root)]),
            "PYTHONUNBUFFERED": "1",
            WORKSPACE_MARK: str(workspace.root),
        }
    )
    environment.pop(OWNER, None)  # the parts outlive who brings them up
    command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(config)]
    if foreground:
        command.append("--nodaemon")
    with subprocess.Popen(
        command,
        cwd=workspace.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if foreground else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate()[0]
        except KeyboardInterrupt:
            bring_down(workspace)
            raise
    if process.returncode:
        raise SarfloodError(f"supervisord ended with code {process.returncode}: {said or config}")
    return site


def bring_down(workspace: Workspace) -> bool:
    """End all parts, and what runs in the worker; say whether there was anything to end."""
    site = Site(workspace)
    was_up = bool(site.processes())
    if was_up:
        gone = (OSError, psutil.Error, xmlrpc.client.Fault, http.client.HTTPException)
        with suppress(*gone):  # what stays is ended below
            pid = int(site.ask_supervisor("getPID"))
            site.ask_supervisor("shutdown")
            psutil.Process(pid).wait(_STOP_WITHIN_S * 3)
    left = end_left(workspace)
    site.socket.unlink(missing_ok=True)
    return was_up or left


def end_left(workspace: Workspace, part: str | None = None) -> bool:
    """End the processes of an earlier `up` of this workspace; say whether there were any.

    Args:
        workspace: Whose.
        part: Those of one part alone, but not runs that a worker has started: these go on by
            themselves, and tell the server how they end.
    """
    found = list(marked(workspace, part))
    end_processes(found, _STOP_WITHIN_S)
    return bool(found)


def marked(workspace: Workspace, part: str | None = None) -> Iterator[psutil.Process]:
    """Give the processes that an `up` of this workspace has started; see `end_left`."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if environment.get(WORKSPACE_MARK) != str(workspace.root) or process.pid in own:
            continue
        if part is None or (environment.get(PART_MARK) == part and RUN_MARK not in environment):
            yield process


def _config(site: Site, commands: dict[str, list[str]]) -> configparser.RawConfigParser:
    """Return what supervisord reads. It holds no secret: those are in the environment."""
    config = configparser.RawConfigParser()
    folder = _plain(site.folder)
    config["unix_http_server"] = {"file": _plain(site.socket), "chmod": "0600"}
    config["supervisord"] = {
        "logfile": f"{folder}/supervisord.log",
        "logfile_maxbytes": str(_LOG_BYTES),
        "logfile_backups": str(_LOGS),
        "pidfile": f"{folder}/supervisord.pid",
        "childlogdir": folder,
        "directory": _plain(site.workspace.root),
        "umask": "077",
    }
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    for number, (name, command) in enumerate(commands.items()):
        started = [sys.executable, "-m", "sarflood.operations.part", name, *command]
        config[f"program:{name}"] = {
            "command": _plain(shlex.join(started)),
            "priority": str(number),
            "startsecs": "5",
            "startretries": "1000000",  # each a second later than the one before
            "autorestart": "true",
            "stopasgroup": "true",
            "killasgroup": "true",
            "stopwaitsecs": str(_STOP_WITHIN_S),
            "redirect_stderr": "true",
            "stdout_logfile": f"{folder}/{name}.log",
            "stdout_logfile_maxbytes": str(_LOG_BYTES),
            "stdout_logfile_backups": str(_LOGS),
        }
    return config


def _plain(text: object) -> str:
    return str(text).replace("%", "%%")


def wait_until_up(site: Site, within_s: float) -> None:
    """Wait until Prefect's server answers, the deployments are registered, and the pages answer.

    Raises:
        SarfloodError: Not within that time; names the part and its log.
    """
    deadline = time.monotonic() + within_s
    while missing := _missing(site):
        if time.monotonic() > deadline:
            log = site.folder / f"{missing}.log"
            tail = log.read_text("utf-8", "replace").splitlines()[-10:] if log.exists() else []
            raise SarfloodError(
                f"{missing}: not ready within {within_s:g} s; it is tried again and again until "
                f"`sarflood down`; {log} ends with:\n" + "\n".join(tail)
            )
        time.sleep(_LOOK_EVERY_S)


def _missing(site: Site) -> str | None:
    ports = site.ports
    if ports is None or not site.answers():
        return SERVER
    if not registered_mark(site).exists():
        return "watch"
    return "pages" if get(ports.reports, "/healthz") is None else None


def registered_mark(site: Site) -> Path:
    """Return the file that says that this server knows the workspace's deployments."""
    return site.folder / "registered"
