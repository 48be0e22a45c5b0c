"""Patches read and described by other processes, as Dask's workers do; see also tests/remote."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from sarflood.errors import InputError
from sarflood.ingest.ingest import Ingested, Said, ingest_event
from sarflood.ingest.reading import Workers
from sarflood.params import load_params
from sarflood.sources.simulate import simulate_event
from sarflood.workspace import Workspace

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").validation


def take(root: Path, source: Path, workers: Workers | None = None) -> Ingested:
    root.mkdir()
    return ingest_event(Workspace(root), str(source), "po", Said(), PARAMS, workers=workers)


def stored(root: Path) -> dict[str, bytes]:
    """The event's and the quarantine's files."""
    paths = [path for path in (root / "data").rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes: a good one, one with a row that lacks data, one of other units half-way."""
    folder = tmp_path_factory.mktemp("po")
    for number in range(3):
        simulate_event(folder / f"scene{number}", seed=number, size=768)
    with rasterio.open(folder / "scene1" / "scene.tif", "r+") as scene:
        empty = np.full((2, 256, 768), np.nan, np.float32)
        scene.write(empty, window=Window(0, 256, 768, 256))
    with rasterio.open(folder / "scene2" / "scene.tif", "r+") as scene:
        window = Window(256, 512, 256, 256)
        scene.write(10 ** (scene.read(window=window) / 10), window=window)
    return folder


def test_other_processes_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"max_bad_share": 0.9})
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = ingest_event(Workspace(tmp_path / "here"), str(source), "po", Said(), params)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        there = ingest_event(
            Workspace(tmp_path / "there"),
            str(source),
            "po",
            Said(),
            params,
            workers=Workers(pool, waiting=3),
        )
    assert (here.accepted, here.refused, here.empty) == (15, 1, 3)
    assert (there.accepted, there.refused, there.empty) == (15, 1, 3)
    assert stored(tmp_path / "here") == stored(tmp_path / "there")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_a_source_that_a_worker_does_not_see_is_no_damaged_source(
    source: Path, tmp_path: Path
) -> None:
    source.chmod(0o700)
    fork = multiprocessing.get_context("fork")
    nobody = (65534,)
    with (
        ProcessPoolExecutor(1, mp_context=fork, initializer=os.setuid, initargs=nobody) as pool,
        pytest.raises(InputError, match=r"scene0/\w+\.tif: machine .* cannot read it") as caught,
    ):
        take(tmp_path / "workspace", source, Workers(pool, waiting=3))
    assert "file system that the workers of run.dask share" in str(caught.value)
    assert stored(tmp_path / "workspace") == {}
