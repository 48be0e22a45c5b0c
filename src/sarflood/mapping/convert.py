"""Make the engine files of a package: `python -m sarflood.mapping.convert PACKAGE [--exact]`.

With `--exact`, none that rounds. A bundle carries the files, not what makes them.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from sarflood.errors import SarfloodError
from sarflood.files import write_text
from sarflood.mapping.engines import SUMS, is_whole, openvino, sums
from sarflood.mapping.fastest import ENGINE, FLOAT32, INT8, choose
from sarflood.mapping.recorded import RECORDED, read_recorded
from sarflood.model.package import FloodModel, load_model
from sarflood.model.unet import UNet
from sarflood.process import run

CALIBRATION = "calibration.npz"
EXACT = "--exact"
_log = logging.getLogger(__name__)


class _Levels(nn.Module):
    """A network without its padding, which depends on the size of an image."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self._network = network

    def forward(self, images: Tensor) -> Tensor:
        return self._network.levels(images)


def convert(model: FloodModel) -> Any:
    """Return the network in OpenVINO's format, from (N, C, H, W) of any size to logits."""
    channels, side = len(model.manifest.mean), 2 * model.network.step
    with warnings.catch_warnings():
        # OpenVINO converts what PyTorch traces, which PyTorch deprecates. Group normalisation looks
        # at the size of its input, and is traced all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter(
            "ignore", torch.jit._trace.TracerWarning
        )  # public under no other name
        return openvino().convert_model(
            _Levels(model.network),
            example_input=torch.zeros(1, channels, side, side),
            input=[[-1, channels, -1, -1]],
        )


def quantise(converted: Any, model: FloodModel, images: NDArray[np.floating]) -> Any:
    """Return a converted network in 8 bits.

    Args:
        converted: What `convert` gave.
        model: Its model.
        images: (K, C, H, W) in the model's bands and units: their values set the ranges.
    """
    openvino()
    import nncf

    nncf.set_log_level(logging.ERROR)
    inputs = model.normalise(images, model.scaling_of(images)).contiguous().numpy()
    patches = nncf.Dataset(np.split(inputs, len(inputs)))
    return nncf.quantize(converted, patches, subset_size=len(inputs))


def save(converted: Any, path: Path) -> None:
    """Write a converted network for inputs with channels last, as `OpenVino` has them.

    Args:
        converted: The network.
        path: Its `.xml`; the weights and the sums of both lie beside it.
    """
    ov = openvino()
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(converted)
    steps.input().tensor().set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    ov.save_model(steps.build(), path, compress_to_fp16=False)
    write_text(path.with_suffix(SUMS), sums(path))


def load_fastest(package: Path, *, may_round: bool) -> FloodModel:
    """Load a package to map scenes with, on the engine that `choose` takes.

    Its engine files are made beside it, which takes some seconds, unless they are there and whole.
    One without recorded patches is computed by PyTorch.

    Args:
        package: The folder, which is written to.
        may_round: As for `choose`.

    Raises:
        InputError: A file is missing or damaged.
        SarfloodError: As `choose`.
    """
    model = load_model(package)
    if not (package / RECORDED).exists():
        return model
    files = package / ENGINE
    with FileLock(files.with_suffix(".lock")):
        there = (path.with_suffix(".xml") for path in files.glob("*"))
        if not all(map(is_whole, {files / FLOAT32, *there})):
            shutil.rmtree(files, ignore_errors=True)
            # What makes them stays in memory: it does so in another process.
            command = [sys.executable, "-m", __name__, package.name]
            try:
                run(command, package.parent)
            except SarfloodError as error:
                _log.warning("%s: no engine files, PyTorch will do: %s", package, error)
    recorded = read_recorded(package / RECORDED)
    return choose(model, files, recorded, str(package), may_round=may_round).scenes


def main() -> int:
    """Write the engine files, say which engine is the fastest, and keep none that is refused."""
    package, may_round = Path(sys.argv[1]), EXACT not in sys.argv
    model, calibration = load_model(package), package / CALIBRATION
    converted = convert(model)
    with tempfile.TemporaryDirectory(dir=package, prefix=f".{ENGINE}-") as name:
        files = Path(name) / ENGINE
        files.mkdir()
        if may_round and calibration.exists():
            with np.load(calibration, allow_pickle=False) as arrays:
                save(quantise(converted, model, arrays["images"]), files / INT8)
        save(converted, files / FLOAT32)
        recorded = read_recorded(package / RECORDED)
        engine = choose(model, files, recorded, str(package), may_round=may_round).engine
        if not engine.rounded:
            for path in files.glob(f"{Path(INT8).stem}.*"):
                path.unlink()
        files.rename(package / ENGINE)
    chosen = f"{engine.name}: {engine.equal_share:.2%} of the recorded pixels are equal"
    print(*engine.passed_over, chosen, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
