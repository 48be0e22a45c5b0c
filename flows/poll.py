"""Flow `poll`: what is new in the areas of interest becomes events."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.ingest import ingest
from flows.retrain import retrain
from flows.support import RETRIED, open_workspace, show_table
from sarflood.errors import DataRefusedError, InputError, NetworkError, SarfloodError
from sarflood.params import PollArea, load_params
from sarflood.sources.poll import NewItem, Seen, new_items, plain, seen_items
from sarflood.workspace import Workspace


@flow(name="poll", validate_parameters=False)
def poll(workspace: str | None = None, retrain_after: bool = False) -> State[dict[str, Any]]:
    """Take in the new items of each area in `params.yaml`, the oldest first.

    What fails for want of a server is left for the next poll, and does not stop the rest.

    Args:
        workspace: Its folder; by default the one that the process stands in.
        retrain_after: Whether a retraining follows where an item was taken in.

    Raises:
        SarfloodError: At the end: names the servers that failed.
    """
    place = open_workspace(workspace)
    rows: list[dict[str, str | None]] = []
    failures: list[str] = []
    areas = load_params(place.params).poll
    for area in areas:
        with seen_items(place, area) as seen:
            try:
                items = look(area, seen)
            except (InputError, NetworkError) as error:
                failures.append(f"{area.name}: {error}")
                continue
            for item in items:
                try:
                    refused = take(place, area, item)
                except NetworkError as error:
                    failures.append(f"{area.name}: {item.name}: {error}")
                    continue
                seen.keep(item, refused)
                rows.append(
                    {
                        "area": area.name,
                        "item": item.name,
                        "acquired": f"{item.acquired:%Y-%m-%d %H:%M}",
                        "event": None if refused else item.event,
                        "refused": refused,
                    }
                )
    taken = sum(row["refused"] is None for row in rows)
    message = f"{taken} taken in, {len(rows) - taken} refused"
    if rows:
        show_table("poll", rows, message)
    outcome: dict[str, Any] = {"areas": len(areas), "items": rows}
    if taken and retrain_after:
        outcome["retrain"] = retrain(workspace=str(place.root))
    if failures:
        raise SarfloodError("\n".join([f"{message}; the next poll goes on", *map(plain, failures)]))
    name = {0: "Nothing new", 1: "1 new item"}.get(len(rows), f"{len(rows)} new items")
    return Completed(name=name, message=message, data=outcome)


@task(task_run_name="look at {area.name}", persist_result=False, **RETRIED)
def look(area: PollArea, seen: Seen) -> list[NewItem]:
    """Ask the server of an area for items that are not known."""
    items = new_items(area, seen)
    get_run_logger().info("%s: %d new items at %s", area.name, len(items), area.url)
    return items


@task(task_run_name="take in {item.name}", persist_result=False)
def take(workspace: Workspace, area: PollArea, item: NewItem) -> str | None:
    """Make an event of an item; return why it was refused, or None."""
    if item.problem:
        return plain(item.problem)
    try:
        ingest(
            source=item.address,
            event=item.event,
            name=item.name,
            region=area.name,
            workspace=str(workspace.root),
        )
    except (InputError, DataRefusedError) as error:
        return plain(str(error))
    return None
