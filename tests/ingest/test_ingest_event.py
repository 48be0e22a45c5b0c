from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sarflood.errors import DataRefusedError, InputError
from sarflood.ingest.ingest import Ingested, Said, ingest_event
from sarflood.ingest.track import track_event
from sarflood.params import load_params
from sarflood.patches.store import open_event
from sarflood.process import dvc, git
from sarflood.workspace import Workspace

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").validation


def tile(folder: Path, number: int, *, constant: bool = False, empty: bool = False) -> None:
    """Write one tile of an ETCI 2021 scene: VV and VH brightness with a dark lake, and its mask."""
    random = np.random.default_rng(number)
    mask = np.zeros((256, 256), np.uint8)
    mask[50 : 100 + number, 60:160] = 1
    for band, level in (("vv", 140), ("vh", 180)):
        grey = random.normal(level, 20, (256, 256)) - 80 * mask
        if constant:
            grey[:] = 77
        if empty:
            grey[:] = 255
        _png(folder / band / f"s_20190302t234651_x-1_y-{number}_{band}.png", grey)
    for label in ("flood_label", "water_body_label"):
        _png(folder / label / f"s_20190302t234651_x-1_y-{number}.png", 255 * mask)


def _png(path: Path, grey: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    eight = np.clip(grey, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([eight] * 3, axis=-1)).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "s_20190302t234651" / "tiles"
    for number in range(10):
        tile(folder, number)
    return folder.parent


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    root.mkdir()
    return Workspace(root)


def take(workspace: Workspace, source: Path, event: str = "alabama") -> Ingested:
    return ingest_event(workspace, str(source), event, Said(), PARAMS)


def notes(workspace: Workspace, event: str = "alabama") -> list[dict[str, object]]:
    text = (workspace.quarantine / event / "reasons.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_clean_source_becomes_an_event(workspace: Workspace, source: Path) -> None:
    done = take(workspace, source)
    assert (done.accepted, done.refused, done.empty) == (10, 0, 0)
    opened = open_event(workspace.events / "alabama")
    assert opened.event.bands == ("vv", "vh")
    assert opened.event.units == "uint8"
    assert opened.images.shape == (10, 2, 256, 256)
    assert not workspace.quarantine.exists()
    left = {path.name for path in workspace.cache.rglob("*") if path.is_file()}
    assert left <= {"alabama.lock", "alabama.json", "workspace.lock"}


def test_bad_patches_go_to_quarantine_with_their_files(workspace: Workspace, source: Path) -> None:
    tile(source / "tiles", 3, constant=True)
    damaged = source / "tiles" / "vh" / "s_20190302t234651_x-1_y-5_vh.png"
    damaged.write_bytes(damaged.read_bytes()[:500])
    done = take(workspace, source)
    assert (done.accepted, done.refused) == (8, 2)
    opened = open_event(workspace.events / "alabama")
    assert not opened.index["id"].str.contains("y-3|y-5").any()
    reasons = notes(workspace)
    assert any("y-3" in str(note["patch"]) and "same" in str(note["reasons"]) for note in reasons)
    assert any("y-5" in str(note["item"]) for note in reasons)
    for note in reasons:
        files = note["files"]
        assert isinstance(files, list)
        assert len(files) >= 3
        for name in files:
            assert (workspace.quarantine / "alabama" / name).is_file()
    kept = next((workspace.quarantine / "alabama").rglob(damaged.name))
    assert kept.read_bytes() == damaged.read_bytes()


def test_empty_tiles_are_noted_but_are_no_fault(workspace: Workspace, source: Path) -> None:
    for number in range(4):
        tile(source / "tiles", number, empty=True)
    done = take(workspace, source)
    assert (done.accepted, done.refused, done.empty) == (6, 0, 4)
    assert {str(note["reasons"]) for note in notes(workspace)} == {
        "['too few pixels have data in all bands']"
    }


def test_an_event_with_too_many_bad_patches_is_refused_whole(
    workspace: Workspace, source: Path
) -> None:
    for number in range(3):
        tile(source / "tiles", number, constant=True)
    with pytest.raises(DataRefusedError, match=r"30% of the patches are bad.*index\.html"):
        take(workspace, source)
    assert not workspace.events.exists()
    kept = [p.name for p in (workspace.quarantine / "alabama" / "files").rglob("*_vv.png")]
    assert len(kept) == 10, "nothing that came in is lost"


def test_the_same_source_again_changes_nothing(workspace: Workspace, source: Path) -> None:
    take(workspace, source)
    folder = workspace.events / "alabama"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    take(workspace, source)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_an_id_is_not_taken_twice(workspace: Workspace, source: Path) -> None:
    take(workspace, source)
    tile(source / "tiles", 20)
    tile(source / "tiles", 21, constant=True)
    with pytest.raises(InputError, match="choose another --event id"):
        take(workspace, source)
    assert not workspace.quarantine.exists(), "the event that has the id is left alone"


def test_a_patch_that_another_event_holds_is_refused(workspace: Workspace, source: Path) -> None:
    take(workspace, source)
    for number in range(5):
        for path in source.rglob(f"*_y-{number}[._]*"):
            path.unlink()
    for number in range(20, 40):
        tile(source / "tiles", number)
    done = take(workspace, source, "again")
    assert (done.accepted, done.refused) == (20, 5)
    assert "are in event alabama already" in str(notes(workspace, "again")[0]["reasons"])


@pytest.mark.parametrize("event", ["", "Has Capitals", "../up", "a/b", "-x", "a" * 64])
def test_a_bad_id_is_refused(workspace: Workspace, source: Path, event: str) -> None:
    with pytest.raises(InputError, match="event id"):
        take(workspace, source, event)


def test_a_source_that_is_not_there_is_said(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        take(workspace, tmp_path / "nowhere")


def test_a_killed_ingest_leaves_no_event_and_can_be_run_again(
    workspace: Workspace, source: Path
) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from sarflood.ingest import ingest\n"
        "from sarflood.params import load_params\n"
        "from sarflood.workspace import Workspace\n"
        "def progress(done, total):\n"
        "    if done == 5: os.kill(os.getpid(), 9)\n"
        "root, source, params = map(Path, sys.argv[1:])\n"
        "ingest.ingest_event(Workspace(root), str(source), 'alabama', ingest.Said(),\n"
        "                    load_params(params).validation, progress)\n"
    )
    params = Path(__file__).parents[2] / "params.yaml"
    command = [sys.executable, "-c", code, str(workspace.root), str(source), str(params)]
    assert subprocess.run(command, check=False, env=os.environ).returncode == -signal.SIGKILL
    assert not workspace.events.exists()
    assert list(workspace.cache.rglob("images.npy")), "the half-read event"
    assert take(workspace, source).accepted == 10
    assert not list(workspace.cache.rglob("images.npy"))


def test_an_accepted_event_is_tracked_pushed_and_committed_once(
    workspace: Workspace, source: Path, tmp_path: Path
) -> None:
    root = workspace.root
    git(root, "init", "--quiet")
    git(root, "config", "user.name", "test")
    git(root, "config", "user.email", "test@localhost")
    dvc(root, "init", "--quiet")
    dvc(root, "remote", "add", "--quiet", "--default", "storage", str(tmp_path / "remote"))
    take(workspace, source)
    assert track_event(workspace, "alabama", "Ingest event alabama")
    assert not track_event(workspace, "alabama", "Ingest event alabama")
    assert git(root, "log", "--format=%s").splitlines() == ["Ingest event alabama"]
    assert "data/events/alabama.dvc" in git(root, "ls-files", "data").split()
    assert any((tmp_path / "remote").rglob("*"))
