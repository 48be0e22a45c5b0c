"""Two processes that share a batch have its loss, and in the mean of both its gradient."""

from __future__ import annotations

import multiprocessing
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from sarflood.model.losses import build_loss
from sarflood.params import LossName, LossParams, Reduction

TERMS: tuple[LossName, ...] = get_args(LossName)
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
# Of a batch it sorts the pixels, which each process does with its own.
CASES = [
    (name, reduction, classes)
    for name in TERMS
    for reduction in REDUCTIONS
    for classes in (2, 4)
    if (name, reduction) != ("lovasz", "batch")
]


def batch(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and distances of four images: two lack a class, one of them all labels."""
    random = torch.Generator().manual_seed(classes)
    shape = (4, 12, 16) if classes == 2 else (4, classes, 12, 16)
    logits = torch.randn(shape, generator=random, dtype=torch.float64)
    target = torch.randint(0, classes, (4, 12, 16), generator=random).to(torch.uint8)
    target[2:][target[2:] == classes - 1] = 0
    target[3] = 255
    channels = 1 if classes == 2 else classes
    distance = torch.randint(-9, 9, (4, channels, 12, 16), generator=random).to(torch.int8)
    return logits, target, distance


def losses(images: slice) -> list[tuple[Tensor, Tensor]]:
    """Each loss of a part of the batch, and its gradient."""
    found = []
    for name, reduction, classes in CASES:
        params = LossParams.model_validate(
            {
                "terms": {name: 1.0},
                "reduction": reduction,
                "class_weights": [1.0, 4.0, 2.0, 3.0][:classes],
                "focal_gamma": 2.0,
                "tversky_alpha": 0.3,
                "tversky_beta": 0.7,
                "focal_tversky_gamma": 1.33,
            }
        )
        logits, target, distance = (layer[images] for layer in batch(classes))
        logits.requires_grad_()
        loss = build_loss(params, [1] * classes)(logits, target, distance)
        (slope,) = torch.autograd.grad(loss, logits)
        found.append((loss.detach(), slope))
    return found


def share(rank: int, folder: str) -> None:
    """Be one of two processes, with two of the images."""
    rendezvous = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    found = dict(enumerate(losses(slice(2 * rank, 2 * rank + 2))))
    named = {f"loss-{number}": loss for number, (loss, _) in found.items()}
    named |= {f"slope-{number}": slope for number, (_, slope) in found.items()}
    save_file(named, f"{folder}/{rank}.safetensors")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("shares")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(share, [(rank, str(folder)) for rank in range(2)], chunksize=1)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


@pytest.mark.parametrize("number", range(len(CASES)), ids=["-".join(map(str, c)) for c in CASES])
def test_the_loss_is_that_of_all_of_the_batch(number: int, shares: list[dict[str, Tensor]]) -> None:
    expected, slope = losses(slice(None))[number]
    for found in shares:
        torch.testing.assert_close(found[f"loss-{number}"], expected)
    mean = torch.cat([found[f"slope-{number}"] for found in shares]) / 2
    torch.testing.assert_close(mean, slope)
