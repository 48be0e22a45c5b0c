"""The losses against PyTorch's cross entropy alone, MONAI and plain compositions.

Forward and backward on a batch of 8 images of 256×256 with two classes, a tenth of the pixels wet
and a strip unknown. PyTorch's cross entropy and MONAI get two logits a pixel; ours, and the plain
compositions, the one that two come down to. All are timed in turns, with the allocator set as
training sets it; a figure is the median.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from monai.losses.dice import DiceCELoss
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from bench.claims import Claim, parser, report
from sarflood.model.allocator import keep_large_buffers
from sarflood.model.losses import build_loss
from sarflood.params import LossName, LossParams

SHAPE = (8, 256, 256)
MAX_COMBINED, MAX_BOUNDARY = 1.5, 2.0
CROSS_ENTROPY, COMBINED = "PyTorch cross entropy alone", "cross_entropy + dice"
BOUNDARY = "cross_entropy + dice + boundary"
Step = Callable[[], Tensor]


def main() -> int:
    """Time all in turns, and report."""
    command = parser(__doc__ or "")
    command.add_argument("--turns", type=int, default=40)
    command.add_argument("--device", default="cpu", help="such as cuda")
    options = command.parse_args()
    keep_large_buffers()
    steps = _steps(torch.device(options.device))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.turns + 3):
        for name, step in steps.items():
            taken = _time(step, options.device)
            if turn >= 3:
                seconds[name].append(taken)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    base = medians[CROSS_ENTROPY]
    table = Table("loss", "ms", "of cross entropy alone", title="forward and backward")
    for name, taken in medians.items():
        table.add_row(name, f"{taken * 1e3:.2f}", f"{taken / base:.2f}")
    Console().print(table)
    how = f"median of {options.turns} turns on {options.device}, against PyTorch's alone"
    return report(
        [
            Claim(f"{COMBINED}: time", medians[COMBINED] / base, MAX_COMBINED, how),
            Claim(f"{BOUNDARY}: time", medians[BOUNDARY] / base, MAX_BOUNDARY, how),
        ],
        options.json,
    )


def _time(step: Step, device: str) -> float:
    start = time.perf_counter()
    step().backward()  # type: ignore[no-untyped-call]
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _steps(device: torch.device) -> dict[str, Step]:
    random = torch.Generator().manual_seed(0)
    two = torch.randn((SHAPE[0], 2, *SHAPE[1:]), generator=random).to(device)
    one = (two[:, 1] - two[:, 0]).contiguous()
    target = (torch.rand(SHAPE, generator=random) < 0.1).to(torch.uint8)
    target[:, :8] = 255
    distance = torch.randint(-60, 60, (SHAPE[0], 1, *SHAPE[1:]), generator=random, dtype=torch.int8)
    target, distance = target.to(device), distance.to(device)
    index = target.long()
    labelled = (target != 255)[:, None]
    dry_where_unknown = torch.where(labelled, target[:, None], 0)
    whole, half = (item.requires_grad_() for item in (two, one))

    def monai() -> Tensor:
        half_masked = torch.where(labelled, whole, 0.0)
        loss: Tensor = DiceCELoss(softmax=True, to_onehot_y=True)(half_masked, dry_where_unknown)
        return loss

    steps: dict[str, Step] = {
        CROSS_ENTROPY: lambda: functional.cross_entropy(whole, index, ignore_index=255),
        "plain cross entropy + dice": partial(_plain, half, target),
        "MONAI DiceCE": monai,
    }
    for names in (
        ("cross_entropy",),
        ("weighted_cross_entropy",),
        ("dice",),
        ("tversky",),
        ("boundary",),
        ("cross_entropy", "dice"),
        ("cross_entropy", "dice", "boundary"),
        ("focal",),
        ("lovasz",),
    ):
        steps[" + ".join(names)] = partial(_loss(*names), half, target, distance)
    return steps


def _plain(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy and Dice as one writes them down."""
    valid = (target != 255).float()
    wet = (target == 1).float()
    probability = torch.sigmoid(logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, wet, reduction="none")
    hits = (probability * wet * valid).sum()
    dice = 1 - (2 * hits + 1) / ((probability * valid).sum() + wet.sum() + 1)
    return (entropy * valid).sum() / valid.sum() + dice


def _loss(*names: LossName) -> Callable[..., Tensor]:
    params = LossParams(
        terms=dict.fromkeys(names, (1.0, 1.0)),
        reduction="batch",
        class_weights=(1.0, 4.0),
        focal_gamma=2.0,
        tversky_alpha=0.3,
        tversky_beta=0.7,
        focal_tversky_gamma=1.33,
    )
    return build_loss(params, counts=(9, 1))


if __name__ == "__main__":
    sys.exit(main())
