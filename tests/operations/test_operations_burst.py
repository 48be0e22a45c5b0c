"""Twenty events dropped at once, with Prefect's server killed while they are taken in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from loop_workspace import SETTINGS
from running import Up, until, workspace_up

from sarflood.ingest.track import seen_events, tracked_events
from sarflood.operations.parts import SERVER, marked
from sarflood.process import git
from sarflood.promotion.registry import versions
from sarflood.sources.simulate import simulate_event

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
QUICKER = {**SETTINGS, "epochs: 48": "epochs: 1"}
# Of simulated events that small, the seeds left out are refused. The last one is large enough to be
# set apart into training, validation and test patches; the others train.
SEEDS = (*range(2, 10), *range(13, 23), 24, 1)
SIZES = {f"event-{seed:02}": 512 if seed > 1 else 1280 for seed in SEEDS}


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with workspace_up(QUICKER) as found:
        for seed, (name, size) in zip(SEEDS, SIZES.items(), strict=True):
            simulate_event(found.sources / name, seed=seed, size=size)
        yield found


def test_each_of_twenty_events_is_ingested_once_though_the_server_is_killed(up: Up) -> None:
    inbox = up.workspace.inbox
    for name in SIZES:
        (up.sources / name).rename(inbox / name)
    for number in (2, 9):
        _kill_server(up, number)
    until(lambda: not list(inbox.glob("event-*")), "an empty inbox", 1200)
    assert not list((inbox / "refused").iterdir())
    assert {path.name for path in (inbox / "done").iterdir()} == set(SIZES)


def test_each_is_one_commit_and_one_file_of_dvc(up: Up) -> None:
    said = git(up.workspace.root, "log", "--format=%s").splitlines()
    times = Counter(line.split()[2].rstrip(":") for line in said if line.startswith("Ingest event"))
    assert {name: times[name] for name in SIZES} == dict.fromkeys(SIZES, 1)
    assert set(tracked_events(up.workspace)) == set(SIZES)


def test_the_last_retraining_has_seen_them_all(up: Up) -> None:
    until(lambda: seen_events(up.workspace) == tracked_events(up.workspace), "all are seen", 900)
    until(up.idle, "no run is at work, or left of what was killed", 600)
    assert set(versions(up.workspace)[0].events) == set(SIZES)


def test_few_retrainings_did_for_all(up: Up) -> None:
    assert len(up.runs("retrain")) <= len(SIZES) / 3
    assert len(versions(up.workspace)) <= 4


def _kill_server(up: Up, number: int) -> None:
    """Kill Prefect's server while the next is taken in, once so many were."""
    done = up.workspace.inbox / "done"
    until(lambda: len(list(done.iterdir())) >= number, f"{number} are done", 900)
    until(lambda: _ingests(up), "another one is taken in")
    for process in marked(up.workspace, SERVER):
        process.kill()
    until(up.site.answers, "the server is back")


def _ingests(up: Up) -> bool:
    return any(row["state_type"] == "RUNNING" for row in up.runs("ingest"))
