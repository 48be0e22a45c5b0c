"""PostgreSQL in the place of Prefect's SQLite, by the commands of the guide."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from operate_page import POSTGRESQL, Reader, commands, reader, section
from running import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
USER, PASSWORD = "prefect", "secret"


def program(name: str) -> str:
    """A program of PostgreSQL's server, which Debian does not put into the path."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(newest[-1]) if newest else None)
    return found or pytest.skip(f"no {name}: `apt-get install postgresql` brings it")


@contextmanager
def postgresql(port: int) -> Iterator[None]:
    """A server on the loopback while the block runs; it refuses to be root's."""
    initdb, postgres = program("initdb"), program("postgres")
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="sarflood-postgresql-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if owner:
            for path in (folder, folder / "password"):
                shutil.chown(path, owner["user"], owner["group"])
        data = str(folder / "data")
        command = [initdb, "--no-sync", "--username", USER, "--auth", "scram-sha-256"]
        command += ["--pwfile", str(folder / "password"), "--encoding", "UTF8", "--locale", "C"]
        subprocess.run(
            [*command, "--pgdata", data], cwd=folder, check=True, capture_output=True, **owner
        )
        command = [postgres, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", name, "-F"]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, **owner) as server:
            try:
                until(lambda: answers(port), "PostgreSQL answers", 60)
                yield
            finally:
                server.send_signal(signal.SIGINT)  # clients are not waited for


def answers(port: int) -> bool:
    try:
        ask(port, "postgres", f"CREATE DATABASE {USER}")
    except (OSError, asyncpg.CannotConnectNowError):
        return False
    return True


def ask(port: int, database: str, query: str) -> list[dict[str, Any]]:
    async def fetch() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=port, user=USER, password=PASSWORD, database=database
        )
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(fetch())


@pytest.fixture
def guide() -> Iterator[Reader]:
    with reader() as found, postgresql(found.postgresql_port):
        found.run("sarflood init /srv/floods && cd /srv/floods")
        yield found
        found.run("sarflood down")


def test_runs_are_kept_in_postgresql(guide: Reader) -> None:
    for command in commands(section(POSTGRESQL)):
        if command.startswith("export "):
            guide.run(command)
    guide.run("sarflood up")
    run = guide.up.start("monitor/monitor")
    until(lambda: guide.up.state(run) == "COMPLETED", "a run", 120)
    kept = ask(guide.postgresql_port, USER, "SELECT id, name, state_name FROM flow_run")
    assert ("monitor", "Nothing seen") in {(row["name"], row["state_name"]) for row in kept}
    assert not list(guide.up.workspace.prefect.glob("*.db")), "and nowhere else"
    assert guide.typed >= commands(section(POSTGRESQL))
