"""A package gets engine files beside it when it first maps a scene."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny import lake_model, speckle, write_package

from sarflood.mapping.convert import load_fastest
from sarflood.mapping.engines import OpenVino

ENGINES = ("int8", "float32")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package", lake_model())


def files(package: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (package / "engine").iterdir()}


def test_engine_files_are_made_once(package: Path) -> None:
    with ThreadPoolExecutor(2) as scenes:
        first, second = scenes.map(lambda _: load_fastest(package, may_round=True), range(2))
    made = files(package)
    assert set(made) == {f"{name}.{end}" for name in ENGINES for end in ("xml", "bin", "sha256")}
    exact = load_fastest(package, may_round=False)
    assert files(package) == made
    assert isinstance(first.engine, OpenVino)
    assert isinstance(second.engine, OpenVino)
    image = speckle(2, 128, 128)[None]
    expected = lake_model().probabilities(image)
    rounded, unrounded = (np.abs(model.probabilities(image) - expected) for model in (first, exact))
    assert unrounded.max() < 2e-4 < rounded.max()
    assert rounded.mean() < 0.02


def test_files_that_were_made_where_nothing_may_round_do_where_it_may(package: Path) -> None:
    load_fastest(package, may_round=False)
    made = files(package)
    image = speckle(2, 128, 128)[None]
    rounded = load_fastest(package, may_round=True).probabilities(image)
    assert files(package) == made
    assert np.abs(rounded - lake_model().probabilities(image)).max() > 2e-4


@pytest.mark.parametrize("name", ["float32.bin", "int8.bin", "int8.xml", "int8.sha256"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_damaged_engine_files_are_made_anew(
    package: Path, name: str, damage: Callable[[Path], object]
) -> None:
    load_fastest(package, may_round=True)
    before = files(package)
    damage(package / "engine" / name)
    assert isinstance(load_fastest(package, may_round=True).engine, OpenVino)
    assert set(files(package)) == set(before)
    assert (package / "engine" / name).stat().st_size


def test_pytorch_computes_where_no_engine_can_be_checked(package: Path) -> None:
    (package / "recorded.npz").unlink()
    assert load_fastest(package, may_round=True).engine is None
