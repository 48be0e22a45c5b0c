"""What `sarflood status` says beside the versions: parts, runs, inbox, disk."""

from __future__ import annotations

import datetime as dt
import shutil
from typing import Any

import httpx

from sarflood.errors import SarfloodError
from sarflood.monitoring.report import last_report
from sarflood.operations.inbox import REFUSED, Inbox
from sarflood.operations.parts import Site
from sarflood.promotion.status import status
from sarflood.serving.rollout import services
from sarflood.serving.server import HOST
from sarflood.workspace import Workspace

LAST_RUNS = 5
_TIMEOUT_S = 10.0
_AT_WORK = ("RUNNING", "PENDING", "CANCELLING")


def overview(workspace: Workspace) -> dict[str, Any]:
    """Say what is true of a workspace: `promotion.status`, and what is at work.

    Returns:
        All that `promotion.status.status` does, and `parts`: of each `name`, `state` (of
        supervisord, `RUNNING` where all is well), `since`; empty where the workspace is not up.
        `addresses`: of the parts that answer over http. `runs`: the last ones, newest first, each
        `flow`, `name`, `state`, `since`, `message`. `at_work` and `queue`: names of the runs that
        work and that are due. `inbox`: names of the drops that wait; `refused`: how many were
        refused. `drift`: what the last `monitor` found, None before it. `free_gib`: of the disk.
        `trouble`: sentences about what is not as it should be.
    """
    site = Site(workspace)
    processes = site.processes()
    ports = site.ports if processes else None
    inbox = Inbox(workspace.inbox, workspace.cache / "inbox")
    there = workspace.inbox.is_dir()
    found: dict[str, Any] = {
        **status(workspace),
        "parts": [_part(item) for item in processes],
        "addresses": {},
        "runs": [],
        "at_work": [],
        "queue": [],
        "inbox": [drop.name for drop in inbox.drops()] if there else [],
        "refused": _refused(workspace) if there else 0,
        "drift": last_report(workspace),
        "free_gib": round(shutil.disk_usage(workspace.root).free / 2**30, 1),
        "trouble": [
            f"{item['name']} is {item['statename'].lower()}; see {site.folder / item['name']}.log"
            for item in processes
            if item["statename"] != "RUNNING"
        ],
    }
    found["trouble"] += _behind(workspace, found["production"])
    if ports:
        found["addresses"] = {
            "prefect": f"http://{HOST}:{ports.prefect}",
            "service": f"http://{HOST}:{ports.serve}",
            "reports": f"http://{HOST}:{ports.reports}",
        }
        try:
            found |= _runs(site)
        except (httpx.HTTPError, SarfloodError, KeyError) as error:
            found["trouble"].append(f"Prefect's server does not answer ({error})")
    return found


def _behind(workspace: Workspace, production: dict[str, Any] | None) -> list[str]:
    """Say where the version in production did not become ready, and another one goes on."""
    return [
        f"port {item['port']} goes on with {item['version']}: {item['refused']['why']}"
        for item in services(workspace)
        if production and item["refused"] and item["version"] != production["version"]
    ]


def _part(process: dict[str, Any]) -> dict[str, Any]:
    since = dt.datetime.fromtimestamp(process["start"], dt.UTC).isoformat()
    up = process["statename"] == "RUNNING"
    return {
        "name": process["name"],
        "state": process["statename"],
        "since": since if up else None,
        "pid": process["pid"] or None,
    }


def _refused(workspace: Workspace) -> int:
    folder = workspace.inbox / REFUSED
    return len(list(folder.glob("*.reason.txt"))) if folder.is_dir() else 0


def _runs(site: Site) -> dict[str, Any]:
    """Ask Prefect's server for the last runs, those at work, and those that are due."""
    environment = site.client_environment()
    user, _, token = environment["PREFECT_API_AUTH_STRING"].partition(":")
    with httpx.Client(
        base_url=environment["PREFECT_API_URL"], auth=(user, token), timeout=_TIMEOUT_S
    ) as client:

        def ask(what: str, query: dict[str, Any]) -> list[dict[str, Any]]:
            answer = client.post(f"/{what}/filter", json=query)
            answer.raise_for_status()
            rows: list[dict[str, Any]] = answer.json()
            return rows

        flows = {row["id"]: row["name"] for row in ask("flows", {})}
        top = {"parent_task_run_id": {"is_null_": True}}
        started = {"flow_runs": {**top, "start_time": {"is_null_": False}}}
        last = ask("flow_runs", {**started, "sort": "START_TIME_DESC", "limit": LAST_RUNS})
        now = dt.datetime.now(dt.UTC).isoformat()
        due = ask(
            "flow_runs",
            {
                "flow_runs": {
                    **top,
                    "state": {"type": {"any_": [*_AT_WORK, "SCHEDULED"]}},
                    "expected_start_time": {"before_": now},
                },
                "sort": "EXPECTED_START_TIME_ASC",
            },
        )
    return {
        "runs": [_run(row, flows) for row in last],
        "at_work": [row["name"] for row in due if row["state_type"] in _AT_WORK],
        "queue": [row["name"] for row in due if row["state_type"] == "SCHEDULED"],
    }


def _run(row: dict[str, Any], flows: dict[str, str]) -> dict[str, Any]:
    state = row.get("state") or {}
    return {
        "flow": flows.get(row["flow_id"]),
        "name": row["name"],
        "state": state.get("name"),
        "since": row["start_time"],
        "message": state.get("message"),
    }
