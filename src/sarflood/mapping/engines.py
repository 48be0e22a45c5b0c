"""Engines that compute a network faster than PyTorch as it is: OpenVINO, and bf16 on CUDA."""

from __future__ import annotations

import copy
import os
import queue
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sarflood.errors import SarfloodError
from sarflood.files import sha256
from sarflood.model.unet import UNet, channels_last, padded

SUMS = ".sha256"  # beside an engine's `.xml` and `.bin`; `sha256sum --check` reads it


def openvino() -> ModuleType:
    """Import OpenVINO, without the package by which it reports its use to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as imported

    module: ModuleType = imported
    return module


def sums(path: Path) -> str:
    """Return the SHA-256 of an engine's two files, named by its `.xml`, as `sha256sum` does."""
    files = (path, path.with_suffix(".bin"))
    return "".join(f"{sha256(file)}  {file.name}\n" for file in files)


def is_whole(path: Path) -> bool:
    """Say whether an engine's two files are there, and as they were written."""
    try:
        return path.with_suffix(SUMS).read_bytes() == sums(path).encode()
    except OSError:
        return False


def _threads() -> int:
    """Return on how many cores an engine computes: those that there are, or OMP_NUM_THREADS."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else len(os.sched_getaffinity(0))


class OpenVino:
    """A network that OpenVINO compiles for this CPU.

    Args:
        path: The `.xml` that `mapping.convert` made of the network's levels.
        step: `UNet.step`.
        callers: How many threads may call it at once; they share the cores, or as many as
            OMP_NUM_THREADS says.

    Raises:
        SarfloodError: A file is missing, or not as it was written.
        RuntimeError: OpenVINO cannot compile them.
    """

    def __init__(self, path: Path, step: int, callers: int = 1) -> None:
        # OpenVINO sees no change of a weight, and may not even put its complaint into words.
        if not is_whole(path):
            raise SarfloodError(f"OpenVINO {path.stem}: its files are damaged")
        settings = {
            "INFERENCE_NUM_THREADS": _threads(),
            "NUM_STREAMS": callers,
            "ENABLE_CPU_PINNING": False,  # other work shares the cores
            "INFERENCE_PRECISION_HINT": "f32",  # of what is not in 8 bits, whatever the CPU could
        }
        compiled = openvino().Core().compile_model(path, "CPU", settings)
        self._step = step
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(callers):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map (N, C, H, W) float32 to (N, H, W) or (N, K, H, W) logits, any H and W."""
        height, width = inputs.shape[-2:]
        pixels_first = padded(inputs, self._step).permute(0, 2, 3, 1).contiguous()
        request = self._requests.get()
        try:
            (found,) = request.infer([pixels_first.numpy()], share_inputs=True).values()
        finally:
            self._requests.put(request)
        return torch.from_numpy(found)[..., :height, :width]


class Cuda:
    """A network on a CUDA device, compiled, in bfloat16 where float32 is not asked for.

    Written without such a device at hand: neither tried nor measured.
    """

    def __init__(self, network: UNet, *, rounded: bool) -> None:
        self._network = channels_last(copy.deepcopy(network).to("cuda"))
        self._levels = torch.compile(self._network.levels, dynamic=True)
        self._rounded = rounded

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map (N, C, H, W) float32 to (N, H, W) or (N, K, H, W) logits, any H and W."""
        height, width = inputs.shape[-2:]
        with torch.autocast("cuda", torch.bfloat16, enabled=self._rounded):
            logits: Tensor = self._levels(padded(inputs.to("cuda"), self._network.step))
        return logits[..., :height, :width].float().cpu()
