"""The fastest engine for this device that answers the recorded patches as the evaluation did."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sarflood.errors import SarfloodError
from sarflood.mapping.engines import Cuda, OpenVino
from sarflood.mapping.patches import map_patches
from sarflood.mapping.recorded import Likeness, Recorded, check_answers
from sarflood.model.package import FloodModel

ENGINE = "engine"  # the folder of a package with the files that `mapping.convert` makes of it
FLOAT32, INT8 = "float32.xml", "int8.xml"
_log = logging.getLogger(__name__)


class Engine(BaseModel):
    """Which engine computes, as `/model` says it.

    Attributes:
        name: Library and precision.
        rounded: Whether it computes less exactly than the evaluation did.
        equal_share: The share of the recorded pixels that it answers as recorded.
        iou_change: By how much its IoU with the truth is larger than theirs.
        passed_over: Faster ones that are not used, and why.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    rounded: bool
    equal_share: float
    iou_change: float
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Engines:
    """A model on its engine.

    Attributes:
        scenes: For one caller at a time, which gets all cores.
        patches: For so many threads at once as `callers` says, which share the cores.
        callers: How many these are.
        engine: Which engine it is.
    """

    scenes: FloodModel
    patches: FloodModel
    callers: int
    engine: Engine


@dataclass(frozen=True)
class _Candidate:
    """An engine that may do.

    Attributes:
        name: Library and precision.
        make: Makes it for so many callers.
        rounded: Whether it computes less exactly than the evaluation did.
        callers: How many threads may call it at once.
    """

    name: str
    make: Callable[[int], Callable[[Tensor], Tensor] | None]
    rounded: bool = False
    callers: int = 1


def choose(
    model: FloodModel, files: Path, recorded: Recorded, who: str, *, may_round: bool
) -> Engines:
    """Try the engines, fastest first, and take the first that answers as recorded.

    Args:
        model: The model, computed by PyTorch.
        files: The folder with its engine files.
        recorded: What it must answer.
        who: Begins the message.
        may_round: Whether an engine may compute less exactly than the evaluation did.

    Raises:
        SarfloodError: Not even PyTorch in float32 answers as recorded.
    """
    passed_over: list[str] = []
    for candidate in _faster(model, files):
        if candidate.rounded and not may_round:
            continue
        try:
            return _checked(candidate, model, recorded, candidate.name, tuple(passed_over))
        except SarfloodError as error:
            passed_over.append(str(error))
        except (OSError, RuntimeError) as error:  # what the libraries raise
            _log.warning("%s: %s cannot be used: %s", who, candidate.name, error)
            passed_over.append(f"{candidate.name}: cannot be used, see the service's log")
    torch_alone = _Candidate("PyTorch float32", lambda _: None)
    return _checked(torch_alone, model, recorded, who, tuple(passed_over))


def _faster(model: FloodModel, files: Path) -> Iterator[_Candidate]:
    """Give the engines that are faster than PyTorch alone, fastest first."""
    if torch.cuda.is_available():
        for name, rounded in (("bfloat16", True), ("float32", False)):
            on_cuda = partial(_cuda, model, rounded=rounded)
            yield _Candidate(f"PyTorch {name} on CUDA", on_cuda, rounded)
    cores = len(os.sched_getaffinity(0))
    for name, rounded in ((INT8, True), (FLOAT32, False)):
        if (files / name).exists():
            make = partial(OpenVino, files / name, model.network.step)
            yield _Candidate(f"OpenVINO {Path(name).stem}", make, rounded, cores)


def _cuda(model: FloodModel, _: int, *, rounded: bool) -> Cuda:
    return Cuda(model.network, rounded=rounded)


def _checked(
    candidate: _Candidate,
    model: FloodModel,
    recorded: Recorded,
    who: str,
    passed_over: tuple[str, ...],
) -> Engines:
    named = replace(model, engine_name=candidate.name)
    scenes = patches = replace(named, engine=candidate.make(1))
    if candidate.callers > 1:
        patches = replace(named, engine=candidate.make(candidate.callers))
    likes: list[Likeness] = [
        check_answers(map_patches(made, recorded.images), recorded, who, rounded=candidate.rounded)
        for made in (scenes, patches)
    ]
    engine = Engine(
        name=candidate.name,
        rounded=candidate.rounded,
        passed_over=passed_over,
        **asdict(min(likes, key=lambda like: like.equal_share)),
    )
    return Engines(scenes, patches, candidate.callers, engine)
