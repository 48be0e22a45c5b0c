from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_serving_served import SERVING
from tiny import change_recorded, lake_model, network_params, speckle, tiny_model, write_package

from sarflood.errors import SarfloodError
from sarflood.files import write_json
from sarflood.mapping.convert import convert, save
from sarflood.mapping.engines import Cuda, OpenVino, sums
from sarflood.mapping.fastest import Engines, choose
from sarflood.mapping.patches import map_patches
from sarflood.mapping.recorded import check_answers, read_recorded
from sarflood.model.package import FloodModel
from sarflood.model.unet import UNet
from sarflood.process import child_environment, run
from sarflood.serving.served import load_served

EXACT_FILES = {"float32.xml", "float32.bin", "float32.sha256"}


def write_bundle_package(folder: Path, **serving: Any) -> Path:
    write_package(folder, lake_model())
    write_json(folder / "bundle.json", {"version": "v0.1.0", "serving": {**SERVING, **serving}})
    return folder


def make_files(package: Path, *how: str) -> str:
    return run([sys.executable, "-m", "sarflood.mapping.convert", package, *how], package.parent)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with its engine files."""
    package = write_bundle_package(tmp_path_factory.mktemp("made") / "package")
    assert "OpenVINO" in make_files(package)
    return package


@pytest.fixture
def package(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(made, tmp_path / "package"))


def chosen(package: Path, *, may_round: bool = True) -> Engines:
    recorded = read_recorded(package / "recorded.npz")
    return choose(lake_model(), package / "engine", recorded, "v0.1.0", may_round=may_round)


def as_network(model: FloodModel, classes: int = 2, **changes: Any) -> FloodModel:
    """A model with another network."""
    torch.manual_seed(3)
    params = network_params(**changes)
    manifest = model.manifest.model_copy(update={"network": params})
    if classes > 2:
        names = ("other", "water", "forest", "crops")[:classes]
        manifest = manifest.model_copy(update={"classes": names})
    return FloodModel(manifest, UNet(2, params, classes).eval())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"upsampling": "bilinear", "normalisation": "group", "width": 8},
        {"variant": "residual", "flips": 8},
        {"variant": "attention", "flips": 2},
        {"variant": "light"},
        {"skips": False, "depth": 3},
        {"leak": 0.1},
        {"classes": 4},
        {"classes": 3, "variant": "light", "flips": 4},
    ],
    ids=str,
)
def test_openvino_answers_as_pytorch_does(changes: dict[str, Any], tmp_path: Path) -> None:
    model = as_network(tiny_model(), **changes)
    save(convert(model), tmp_path / "float32.xml")
    faster = replace(model, engine=OpenVino(tmp_path / "float32.xml", model.network.step))
    for shape in ((1, 256, 256), (3, 64, 96), (1, 61, 130), (2, 5, 3)):
        images = np.stack([speckle(2, *shape[1:], seed) for seed in range(shape[0])])
        images[0, 0, :2] = np.nan
        expected, answered = (item.probabilities(images) for item in (model, faster))
        np.testing.assert_allclose(answered, expected, atol=2e-4)
        if model.manifest.classes:
            same = model.classes(images) == faster.classes(images)
            assert same.mean() > 0.999


def test_several_callers_get_each_their_own_answer(made: Path) -> None:
    model = lake_model()
    engine = OpenVino(made / "engine" / "float32.xml", model.network.step, callers=2)
    faster = replace(model, engine=engine)
    images = [speckle(2, 96, 128, seed)[None] for seed in range(24)]
    expected = [model.probabilities(image) for image in images]
    with ThreadPoolExecutor(4) as callers:
        for answer, wanted in zip(callers.map(faster.probabilities, images), expected, strict=True):
            np.testing.assert_allclose(answer, wanted, atol=1e-3)  # whose answer it is


def test_the_fastest_engine_that_answers_as_recorded_is_taken(made: Path) -> None:
    recorded = read_recorded(made / "recorded.npz")
    engines = chosen(made)
    assert engines.engine.name == "OpenVINO int8"
    assert engines.engine.rounded
    assert not engines.engine.passed_over
    assert engines.callers == len(os.sched_getaffinity(0))
    for model in (engines.scenes, engines.patches):
        like = check_answers(map_patches(model, recorded.images), recorded, "", rounded=True)
        assert 0.99 <= engines.engine.equal_share <= like.equal_share < 1
    exact = chosen(made, may_round=False).engine
    assert (exact.name, exact.rounded) == ("OpenVINO float32", False)
    assert exact.equal_share >= 0.999


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_weights(path: Path) -> None:
    other = as_network(tiny_model())
    save(convert(other), path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def unreadable(path: Path) -> None:
    """What OpenVINO says of it is no text."""
    path.write_bytes(path.read_bytes().replace(b'type="MaxPool"', b'type="\xb2axPool"'))


def flip(path: Path) -> None:
    """A weight hardly changes."""
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


def nonsense(path: Path) -> None:
    """It is as it was written, but not what OpenVINO can read."""
    path.write_bytes(b"<net>")
    path.with_suffix(".sha256").write_text(sums(path))


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("int8.xml", shorten, "its files are damaged"),
        ("int8.xml", empty, "its files are damaged"),
        ("int8.xml", unreadable, "its files are damaged"),
        ("int8.bin", shorten, "its files are damaged"),
        ("int8.bin", empty, "its files are damaged"),
        ("int8.bin", flip, "its files are damaged"),
        ("int8.sha256", flip, "its files are damaged"),
        ("int8.bin", Path.unlink, "its files are damaged"),
        ("int8.sha256", Path.unlink, "its files are damaged"),
        ("int8.xml", nonsense, "cannot be used"),
        ("int8.xml", other_weights, "of the pixels are not as recorded"),
    ],
)
def test_a_spoiled_engine_is_passed_over_and_that_is_said(
    package: Path, name: str, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(package / "engine" / name)
    engine = load_served(package).engines.engine
    assert engine.name == "OpenVINO float32"
    (said,) = engine.passed_over
    assert said.startswith("OpenVINO int8: ")
    assert reason in said
    assert str(package) not in said


def test_pytorch_is_what_is_left(package: Path) -> None:
    for path in (package / "engine").glob("*.bin"):
        shorten(path)
    engines = load_served(package).engines
    assert engines.engine.name == "PyTorch float32"
    assert (engines.engine.equal_share, engines.callers) == (1.0, 1)
    assert len(engines.engine.passed_over) == 2
    assert engines.scenes.engine is None


def test_an_engine_that_changes_the_iou_is_passed_over(package: Path) -> None:
    """As many pixels may differ that the IoU suffers: where few are wet."""
    recorded = read_recorded(package / "recorded.npz")
    dry = np.zeros_like(recorded.masks)
    dry[:, :8, :8] = 1
    answers = dry.copy()
    answers[:, :8, 8:16] = 1
    few_wet = replace(recorded, masks=dry, truth=dry)
    with pytest.raises(SarfloodError, match=r"the IoU changes by -0\.5000 \(at most 0\.005\)"):
        check_answers(answers, few_wet, "int8", rounded=True)
    assert check_answers(answers, few_wet, "float32").equal_share == pytest.approx(1 - 64 / 65536)


def test_files_of_an_engine_that_rounds_too_much_are_not_kept(package: Path) -> None:
    recorded = read_recorded(package / "recorded.npz")
    # Known is the truth where 8 bits answer otherwise, alone.
    same = map_patches(chosen(package).patches, recorded.images) == recorded.masks
    unknown = np.where(same, np.uint8(255), recorded.truth)
    change_recorded(package / "recorded.npz", truth=unknown)
    shutil.rmtree(package / "engine")
    said = make_files(package)
    assert "OpenVINO int8: the IoU changes by -" in said
    assert said.endswith("OpenVINO float32: 100.00% of the recorded pixels are equal")
    assert {path.name for path in (package / "engine").iterdir()} == EXACT_FILES


def test_eight_bits_are_not_tried_where_nothing_may_round(tmp_path: Path) -> None:
    package = write_bundle_package(tmp_path / "package", engine="float32")
    assert make_files(package, "--exact").endswith(
        "OpenVINO float32: 100.00% of the recorded pixels are equal"
    )
    assert {path.name for path in (package / "engine").iterdir()} == EXACT_FILES


def test_openvino_reports_to_nobody(made: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "sys.addaudithook(lambda event, _: event.startswith('socket.') and print(event))\n"
        "from sarflood.mapping.engines import OpenVino, openvino\n"
        "openvino()\n"
        "import nncf\n"
        "OpenVino(pathlib.Path(sys.argv[1]), 4)\n"
        "print(sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, made / "engine" / "float32.xml"],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "None\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("rounded", [True, False])
def test_cuda_answers_as_the_cpu_does(rounded: bool) -> None:
    model = tiny_model()
    faster = replace(model, engine=Cuda(model.network, rounded=rounded))
    for height, width in ((256, 256), (61, 130)):
        images = speckle(2, height, width)[None]
        masks = [item.masks(item.probabilities(images)) for item in (model, faster)]
        assert (masks[0] == masks[1]).mean() > (0.99 if rounded else 0.999)
