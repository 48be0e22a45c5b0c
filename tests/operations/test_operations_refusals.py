"""What the guide says that a refusal says: provoked, and held against the page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import rasterio
from operate_page import quotes, says

from sarflood.dvc_remote import push
from sarflood.errors import DataRefusedError, InputError, NetworkError, SarfloodError
from sarflood.files import write_json
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.params import load_params
from sarflood.process import dvc
from sarflood.promotion.promote import check_history
from sarflood.serving.rollout import wait_until_served
from sarflood.serving.server import free_port
from sarflood.setup import make_workspace
from sarflood.sources.simulate import simulate_event
from sarflood.stages.split import split
from sarflood.stages.train import train
from sarflood.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "floods")


def take_in(workspace: Workspace, seed: int, *, spoiled: bool = False) -> None:
    """Ingest four simulated patches as the event `po`."""
    source = workspace.root.with_name(f"po-{seed}")
    simulate_event(source, seed=seed, size=512)
    if spoiled:
        with rasterio.open(source / "scene.tif", "r+") as scene:
            scene.write(0 * scene.read() - 12)
    ingest_event(workspace, str(source), "po", Said(), load_params(workspace.params).validation)


def test_an_event_is_refused_and_its_page_is_where_the_reason_says(workspace: Workspace) -> None:
    with pytest.raises(DataRefusedError) as refusal:
        take_in(workspace, 1, spoiled=True)
    said = str(refusal.value).splitlines()[0]
    assert says(said, "event … was refused: … see data/quarantine/…/index.html")
    assert (workspace.root / said.rpartition("see ")[2]).is_file()
    assert refusal.value.exit_code == 3


def test_an_id_that_is_taken(workspace: Workspace) -> None:
    take_in(workspace, 1)
    with pytest.raises(InputError) as refusal:
        take_in(workspace, 2)
    assert says(str(refusal.value), "this id already names an event of other content")


def test_events_too_small_to_be_split(workspace: Workspace) -> None:
    take_in(workspace, 1)
    split(workspace)
    with pytest.raises(InputError) as refusal:
        train(workspace)
    assert says(str(refusal.value), "no validation patches: the events are too small to be split")


def test_code_that_is_not_committed(workspace: Workspace) -> None:
    (workspace.root / "flows" / "retrain.py").write_text("# mine\n", "utf-8")
    with pytest.raises(InputError) as refusal:
        check_history(workspace)
    assert says(str(refusal.value), "not committed: …; a version holds the code that made it")


def test_a_service_that_goes_on_with_the_old_version(workspace: Workspace) -> None:
    why = {"version": "v0.2.0", "why": "not ready within 120 s", "at": 2**40}
    state = {"pid": os.getpid(), "port": 3000, "version": "v0.1.0", "refused": why}
    write_json(workspace.cache / "serve-3000.json", state)
    with pytest.raises(SarfloodError) as refusal:
        wait_until_served(workspace, "v0.2.0")
    assert says(str(refusal.value), "port … goes on with …, not …: …")


def test_a_remote_whose_disk_is_away(workspace: Workspace) -> None:
    Path(f"{workspace.root}-remote").rename(workspace.root.with_name("unmounted"))
    with pytest.raises(NetworkError) as refusal:
        push(workspace.root)
    assert says(str(refusal.value), "the DVC remote … is not there; mount its disk")
    assert refusal.value.exit_code == 5


def test_a_remote_that_does_not_answer(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    dvc(workspace.root, "remote", "modify", "--local", "storage", "url", "s3://floods/models")
    take_in(workspace, 1)
    dvc(workspace.root, "add", "--quiet", "data/events/po")
    with pytest.raises(NetworkError) as refusal:
        push(workspace.root, "data/events/po.dvc")
    assert says(str(refusal.value), "the DVC remote … does not answer")
    assert refusal.value.exit_code == 5


def test_each_refusal_of_the_page_is_provoked_here_or_by_the_guide() -> None:
    guide = Path(__file__).with_name("test_operations_guide.py")
    tried = "".join(file.read_text("utf-8") for file in (Path(__file__), guide))
    assert [quote for quote in quotes() if f'"{quote}")' not in tried] == []
