"""Copies of what the service maps go to another version, whose answers are compared."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from tiny import LIMITS, by_torch, mapped, speckle, tiny_model, write_scene

from sarflood.files import write_json
from sarflood.mapping.patches import map_patches
from sarflood.model.package import FloodModel
from sarflood.monitoring.journal import read_lines
from sarflood.serving.app import create_api
from sarflood.serving.compared import LIVE, Compared
from sarflood.serving.served import BundleInfo, Served
from sarflood.serving.server import bind, free_port
from sarflood.serving.shadow import Shadow


def served(model: FloodModel, version: str) -> Served:
    return Served(by_torch(model), BundleInfo(version=version, serving=LIMITS))


def strict() -> FloodModel:
    """The tiny model, which calls less wet."""
    model = tiny_model()
    return replace(model, manifest=model.manifest.model_copy(update={"threshold": 0.8}))


@contextmanager
def candidate(folder: Path, name: str, model: FloodModel, may: threading.Event) -> Iterator[None]:
    """Another version that listens, and answers once it may."""

    def give() -> Served:
        assert may.wait(60)
        return served(model, name)

    config = uvicorn.Config(create_api(give), log_level="warning")
    server = uvicorn.Server(config)
    with bind() as socket:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        until(lambda: server.started)
        write_json(folder / LIVE, {"port": socket.getsockname()[1], "version": name})
        yield
        server.should_exit = True
        thread.join()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def counted(name: str, outcome: str) -> float:
    labels = {"candidate": name, "outcome": outcome}
    return REGISTRY.get_sample_value("sarflood_shadow_total", labels) or 0.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shadow").mkdir()
    return tmp_path / "shadow"


@pytest.fixture
def champion(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of the version that serves; sees that no temporary file is left behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    shadow = Shadow(folder, "")
    with TestClient(create_api(lambda: served(tiny_model(), "v0.1.0"), None, shadow)) as client:
        yield client
    until(lambda: not list(temporary.iterdir()))


@pytest.fixture
def may() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def patches(many: int = 1) -> np.ndarray:
    images = np.stack([speckle(2, 256, 256, seed) for seed in range(many)])
    images[0, :, :50] = np.nan
    return images


def ask(client: TestClient, images: np.ndarray) -> np.ndarray:
    body = io.BytesIO()
    np.save(body, images)
    answer = client.post("/predict/patches", content=body.getvalue())
    assert answer.status_code == 200
    masks: np.ndarray = np.load(io.BytesIO(answer.content))
    return masks


def test_patches_are_compared_and_the_champion_answers(
    champion: TestClient, folder: Path, may: threading.Event
) -> None:
    images = patches(2)
    with candidate(folder, "v0.2.0", strict(), may):
        masks = ask(champion, images)
        until(lambda: counted("v0.2.0", "compared") == 1)
    assert np.array_equal(masks, map_patches(tiny_model(), images))
    (line,) = read_lines(folder, Compared)
    assert (line.champion, line.candidate, line.status) == ("v0.1.0", "v0.2.0", 200)
    other, known = map_patches(strict(), images), masks != 255
    assert line.pixels == known.sum() < masks.size
    assert line.equal == (masks == other)[known].mean()
    assert line.wet == (masks == 1).sum() / known.sum() > line.candidate_wet
    both, either = (masks & other) == 1, (masks == 1) | (other == 1)
    assert line.iou == both.sum() / either.sum()


def test_scenes_are_compared_whatever_the_client_wants(
    champion: TestClient, folder: Path, may: threading.Event, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", speckle(2, 1100, 300))
    with candidate(folder, "v0.3.0", strict(), may), scene.open("rb") as file:
        answer = champion.post("/predict", files={"scene": file})
        until(lambda: counted("v0.3.0", "compared") == 1)
    ours, theirs = mapped(tiny_model(), scene).mask, mapped(strict(), scene).mask
    assert answer.json()["flooded_share"] == pytest.approx((ours == 1).mean(), abs=1e-6)
    (line,) = read_lines(folder, Compared)
    assert line.equal == (ours == theirs).mean() < 1


def test_nobody_waits_for_a_slow_one_and_what_it_misses_is_counted(
    champion: TestClient, folder: Path, may: threading.Event
) -> None:
    may.clear()
    with candidate(folder, "v0.4.0", strict(), may):
        for _ in range(5):
            ask(champion, patches())
        assert counted("v0.4.0", "dropped") >= 3
        may.set()
        until(lambda: counted("v0.4.0", "compared") + counted("v0.4.0", "dropped") == 5)


def test_one_that_is_gone_harms_nobody_and_leaves_no_line(
    champion: TestClient, folder: Path
) -> None:
    write_json(folder / LIVE, {"port": free_port(), "version": "v0.5.0"})
    ask(champion, patches())
    until(lambda: counted("v0.5.0", "unanswered") == 1)
    assert read_lines(folder, Compared) == []


def test_one_that_refuses_what_the_champion_answers_has_no_pixel_equal(
    champion: TestClient, folder: Path, may: threading.Event
) -> None:
    with candidate(folder, "v0.6.0", tiny_model(("vv",)), may):
        ask(champion, patches())
        until(lambda: counted("v0.6.0", "failed") == 1)
    (line,) = read_lines(folder, Compared)
    assert (line.status, line.equal, line.candidate_wet) == (422, 0.0, 0.0)
