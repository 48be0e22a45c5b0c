from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from tiny import full_disk

from sarflood.errors import DataRefusedError, InputError, SarfloodError
from sarflood.ingest.ingest import Ingested, Said, ingest_event
from sarflood.ingest.track import track_event
from sarflood.params import load_params
from sarflood.patches.split import split_events
from sarflood.patches.store import open_event
from sarflood.process import dvc, git
from sarflood.sources.simulate import simulate_event
from sarflood.workspace import Workspace

SETTINGS = load_params(Path(__file__).parents[2] / "params.yaml")
PARAMS = SETTINGS.validation


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


def test_a_bad_patch_of_a_scene_goes_to_quarantine_alone(
    workspace: Workspace, tmp_path: Path
) -> None:
    """A scene has gigabytes; the patch is a scene of its own, to be mended and taken in again."""
    scene = tmp_path / "scene"
    simulate_event(scene, seed=0, size=700)
    with rasterio.open(scene / "scene.tif", "r+") as file:
        values = file.read()
        clean = values[:, 256:512, 512:].copy()
        values[:, 256:512, 512:] = -12.5
        file.write(values)
        transform = file.transform
    done = take(workspace, scene, "typhoon")
    assert (done.accepted, done.refused) == (8, 1)
    (note,) = notes(workspace, "typhoon")
    assert note["files"] == [f"files/scene-1-2/{name}.tif" for name in ("scene", "pre", "mask")]
    alone = workspace.quarantine / "typhoon" / "files" / "scene-1-2"
    with rasterio.open(alone / "scene.tif") as file:
        assert file.transform == transform @ Affine.translation(512, 256)
        np.testing.assert_array_equal(file.read(), values[:, 256:512, 512:])
    with rasterio.open(alone / "mask.tif") as file, rasterio.open(scene / "mask.tif") as whole:
        np.testing.assert_array_equal(file.read(), whole.read()[:, 256:512, 512:])
    with pytest.raises(DataRefusedError, match="one and the same VV value"):
        take(workspace, alone, "again")
    with rasterio.open(alone / "scene.tif", "r+") as file:
        file.write(clean)
    assert take(workspace, alone, "again").accepted == 1


def test_a_patch_in_quarantine_is_not_overwritten_by_another_of_its_name(
    workspace: Workspace, tmp_path: Path
) -> None:
    kept = workspace.quarantine / "typhoon" / "files" / "scene-1-2"
    for level in (-12.5, -10.5):
        scene = tmp_path / str(level) / "scene"
        scene.parent.mkdir()
        simulate_event(scene, seed=0, size=700)
        with rasterio.open(scene / "scene.tif", "r+") as file:
            values = file.read()
            values[:, 256:512, 512:] = level
            file.write(values)
        take(workspace, scene, "typhoon")
    levels = []
    for path in sorted(kept.glob("scene*.tif")):
        with rasterio.open(path) as file:
            levels.append(float(file.read().mean()))
    assert sorted(levels) == [-12.5, -10.5]


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
        "def progress(done, total, patches):\n"
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
    (tmp_path / "remote").mkdir()
    take(workspace, source)
    assert track_event(workspace, "alabama", "Ingest event alabama")
    assert not track_event(workspace, "alabama", "Ingest event alabama")
    assert git(root, "log", "--format=%s").splitlines() == ["Ingest event alabama"]
    assert "data/events/alabama.dvc" in git(root, "ls-files", "data").split()
    assert any((tmp_path / "remote").rglob("*"))


def test_the_same_source_again_is_not_read_again(workspace: Workspace, source: Path) -> None:
    tile(source / "tiles", 3, constant=True)
    first = take(workspace, source)
    seen: list[int] = []
    again = ingest_event(
        workspace, str(source), "alabama", Said(), PARAMS, lambda done, *_: seen.append(done)
    )
    assert seen == []
    assert again.verdict is None
    assert (again.accepted, again.refused) == (first.accepted, first.refused) == (9, 1)
    (workspace.cache / "ingest" / "alabama.json").write_text("{")
    assert take(workspace, source).verdict is not None, "a spoiled note is no harm"


def test_a_changed_byte_is_seen_though_size_and_time_stay(
    workspace: Workspace, source: Path
) -> None:
    take(workspace, source)
    path = source / "tiles" / "vv" / "s_20190302t234651_x-1_y-4_vv.png"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match="choose another --event id"):
        take(workspace, source)


def test_events_are_numbered_as_they_are_accepted(workspace: Workspace, source: Path) -> None:
    take(workspace, source, "zulu")
    for number in range(10):
        tile(source / "tiles", number + 100)
    for path in source.rglob("*_y-?[._]*"):
        path.unlink()
    take(workspace, source, "alpha")
    numbers = {name: open_event(workspace.events / name).event.number for name in ("zulu", "alpha")}
    assert numbers == {"zulu": 1, "alpha": 2}


def test_an_unlabelled_source_is_kept_without_masks(workspace: Workspace, source: Path) -> None:
    for folder in ("flood_label", "water_body_label"):
        for path in (source / "tiles" / folder).iterdir():
            path.unlink()
    done = take(workspace, source)
    assert done.accepted == 10
    opened = open_event(workspace.events / "alabama")
    assert (opened.masks, opened.event.label) == (None, None)
    assert opened.permanent_water is None


def test_an_event_that_is_held_out_says_so_and_is_none_to_train_on(
    workspace: Workspace, source: Path
) -> None:
    ingest_event(workspace, str(source), "alabama", Said(hold_out=True), PARAMS)
    opened = open_event(workspace.events / "alabama")
    assert opened.event.hold_out
    parts = split_events([opened], SETTINGS.split)["split"]
    assert set(parts) == {"held_out"}


def test_permanent_water_is_kept_and_its_correction_is_another_event(
    workspace: Workspace, source: Path
) -> None:
    take(workspace, source)
    opened = open_event(workspace.events / "alabama")
    assert opened.permanent_water is not None
    np.testing.assert_array_equal(opened.permanent_water, opened.masks)
    _png(next((source / "tiles" / "water_body_label").iterdir()), np.zeros((256, 256)))
    with pytest.raises(InputError, match="already names an event of other content"):
        take(workspace, source)


def test_what_the_source_says_of_itself_is_kept_and_the_user_has_the_last_word(
    workspace: Workspace, source: Path
) -> None:
    (source / "event.yaml").write_text(
        "name: Tennessee River\nregion: Alabama\nacquired: 2019-03-02\nunits: uint8\n"
    )
    ingest_event(workspace, str(source), "alabama", Said(region="USA"), PARAMS)
    event = open_event(workspace.events / "alabama").event
    assert (event.name, event.region, str(event.acquired)) == (
        "Tennessee River",
        "USA",
        "2019-03-02",
    )


def test_copies_and_drift_against_accepted_events_are_said(
    workspace: Workspace, source: Path
) -> None:
    take(workspace, source)
    brighter = source.with_name("b")
    for path in sorted(source.rglob("*.png")):
        target = brighter / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            grey = np.asarray(picture)
        stretched = grey if "label" in str(path) else np.clip(grey // 2 + 120, 0, 254)
        Image.fromarray(stretched.astype(np.uint8)).save(target)
    done = take(workspace, brighter, "copy")
    assert done.accepted == 10
    assert any("10 pairs show the same pixels as event alabama" in line for line in done.warnings)
    assert any("VV differs from the accepted events" in line for line in done.warnings)


def test_a_page_shows_what_was_refused(workspace: Workspace, source: Path) -> None:
    tile(source / "tiles", 3, constant=True)
    take(workspace, source)
    html = (workspace.quarantine / "alabama" / "index.html").read_text("utf-8")
    assert "alabama/s_20190302t234651_x-1_y-3" in html
    assert "hold one and the same VV value" in html
    assert html.count("<figcaption>") == 3


@pytest.mark.parametrize("moment", ["read", "judge", "warn", "publish", "published"])
def test_killed_at_any_moment_there_is_the_whole_event_or_none(
    moment: str, workspace: Workspace, source: Path
) -> None:
    """SIGKILL right before a step, and right after the event was renamed."""
    code = (
        "import os, sys\n"
        "from sarflood.ingest import ingest\n"
        "from sarflood.params import load_params\n"
        "from sarflood.workspace import Workspace\n"
        "from pathlib import Path\n"
        "moment, root, source, params = sys.argv[1:]\n"
        "steps = {'read': 'PatchWriter', 'judge': 'validate_table', 'warn': 'likeness_warnings',\n"
        "         'publish': '_publish', 'published': '_publish'}\n"
        "step = getattr(ingest, steps[moment])\n"
        "def killed(*args, **kwargs):\n"
        "    if moment == 'published': step(*args, **kwargs)\n"
        "    os.kill(os.getpid(), 9)\n"
        "setattr(ingest, steps[moment], killed)\n"
        "ingest.ingest_event(Workspace(Path(root)), source, 'alabama', ingest.Said(),\n"
        "                    load_params(Path(params)).validation)\n"
    )
    tile(source / "tiles", 3, constant=True)
    params = Path(__file__).parents[2] / "params.yaml"
    command = [sys.executable, "-c", code, moment, str(workspace.root), str(source), str(params)]
    assert subprocess.run(command, check=False, env=os.environ).returncode == -signal.SIGKILL
    assert (workspace.events / "alabama").exists() == (moment == "published")
    done = take(workspace, source)
    assert (done.accepted, done.refused) == (9, 1)
    assert len(open_event(workspace.events / "alabama").index) == 9
    assert len(notes(workspace)) == 1
    assert not list(workspace.cache.rglob("*.npy"))


def test_an_interrupted_ingest_cleans_up(workspace: Workspace, source: Path) -> None:
    def interrupt(done: int, total: int, patches: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_event(workspace, str(source), "alabama", Said(), PARAMS, interrupt)
    assert not workspace.events.exists()
    assert not list(workspace.cache.rglob("*.npy"))


def test_an_event_that_no_model_could_train_on_with_the_others_is_refused_at_once(
    workspace: Workspace, source: Path, tmp_path: Path
) -> None:
    take(workspace, source)
    simulate_event(tmp_path / "scene", seed=0, size=2 * 256)
    with pytest.raises(InputError, match=r"typhoon: vv, vh, vv_pre, vh_pre in db, label flood"):
        take(workspace, tmp_path / "scene", "typhoon")
    assert not (workspace.events / "typhoon").exists()
    (tmp_path / "scene" / "mask.tif").unlink()
    assert take(workspace, tmp_path / "scene", "typhoon").accepted == 4, "it trains nothing"


def test_progress_counts_the_patches_of_a_single_scene(
    workspace: Workspace, tmp_path: Path
) -> None:
    simulate_event(tmp_path / "scene", seed=0, size=3 * 256)
    told: list[tuple[int, int, int]] = []
    ingest_event(
        workspace,
        str(tmp_path / "scene"),
        "typhoon",
        Said(),
        PARAMS,
        lambda *progress: told.append(progress),
    )
    assert told == [(0, 1, patch) for patch in range(1, 10)] + [(1, 1, 9)]


def test_a_full_disk_leaves_nothing_half(workspace: Workspace, source: Path) -> None:
    with full_disk(), pytest.raises(SarfloodError, match="disk"):
        take(workspace, source)
    assert not workspace.events.exists()
    assert take(workspace, source).accepted == 10


def test_values_of_two_kinds_never_mix(
    workspace: Workspace, tmp_path: Path, write_raster: Callable[..., Path]
) -> None:
    folder = tmp_path / "chips"
    for number in range(6):
        rng = np.random.default_rng(number)
        level = -10.0 if number else 0.0
        for band in ("vv", "vh"):
            values = rng.normal(level, 2.0, (256, 256)).astype(np.float32)
            power = np.float32(10) ** (values / 10 - 1)
            write_raster(folder / f"c{number}_{band}.tif", values if number else power)
    done = take(workspace, folder, "mixed")
    assert (done.accepted, done.refused) == (5, 1)
    assert "c0 is in linear (median" in str(notes(workspace, "mixed"))
