"""An epoch of training against a bare loop, and against Lightning as people write it.

The bare loop has the same network, loss, optimiser and precision, and batches that were made
before. The plain training reads a GeoTIFF for each crop in a DataLoader with two workers, flips and
turns crops one by one, computes in float32 and leaves the allocator as it is. Epochs of the first
two are timed in turns; figures are medians. All see the two bands alone. `--compile` times the bare
loop with `torch.compile`, too, which takes a C++ compiler on a CPU.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import lightning as L  # noqa: N812
import numpy as np
import rasterio
import torch
from affine import Affine
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.claims import Claim, parser, report
from sarflood.model.allocator import keep_large_buffers
from sarflood.model.inputs import fill, standardise
from sarflood.model.losses import build_loss
from sarflood.model.unet import UNet, channels_last
from sarflood.params import Params, load_params
from sarflood.patches.crops import CropLoader
from sarflood.patches.loader import LabelledPatches
from sarflood.training.fit import GRADIENT_NORM, fit, precision

ROOT = Path(__file__).parents[1]
MAX_OF_BARE, MIN_OF_PLAIN, MIN_INPUT = 1.05, 1.5, 5.0
MEAN, STD = -12.0, 5.0


def main() -> int:
    """Time all and report."""
    command = parser(__doc__ or "")
    command.add_argument("--patches", type=int, default=120)
    command.add_argument("--turns", type=int, default=5)
    command.add_argument("--device", default="cpu", help="such as cuda")
    command.add_argument("--compile", action="store_true", help="time torch.compile, too")
    options = command.parse_args()
    device = torch.device(options.device)
    params = load_params(ROOT / "params.yaml")
    patches = _patches(options.patches)
    with tempfile.TemporaryDirectory() as folder:
        files = _GeoTiffs(Path(folder), patches, params.train.crop)
        plain_loader = DataLoader(
            files, params.train.batch_size, shuffle=True, num_workers=2, persistent_workers=True
        )
        plain = _plain(plain_loader, params, options.turns)
        plain_input = _median(lambda: _exhaust(plain_loader), options.turns)
    keep_large_buffers()
    loader = CropLoader(patches, params.train, device=device)
    batches = list(loader)
    bare = _Bare(batches, params, device)
    loops = [bare, _Bare(batches, params, device, compiled=True)] if options.compile else [bare]
    for loop in loops:
        loop.epoch()
    one = _patches(1)
    ours_all: list[float] = []
    bare_all: list[list[float]] = [[] for _ in loops]
    for _ in range(options.turns):
        short = params.model_copy(
            update={"train": params.train.model_copy(update={"epochs": 2, "min_steps": 1})}
        )
        curve = fit(patches, one, ("vv", "vh"), short, lambda _: None).epochs
        ours_all.append(float(curve["seconds"].diff().iloc[-1]))
        for loop, times in zip(loops, bare_all, strict=True):
            times.append(_timed(loop.epoch))
    ours, fastest = statistics.median(ours_all), statistics.median(bare_all[0])
    input_path = _median(lambda: _exhaust(loader), options.turns)
    table = Table("", "ms an epoch", title=f"{options.patches} patches, {len(loader)} steps")
    for name, taken in (
        ("bare loop", fastest),
        *(("bare loop, compiled", statistics.median(times)) for times in bare_all[1:]),
        ("ours, with validation on one patch", ours),
        ("plain Lightning with a DataLoader", plain),
        ("our input path alone", input_path),
        ("the DataLoader alone", plain_input),
    ):
        table.add_row(name, f"{taken * 1e3:.0f}")
    Console().print(table)
    how = f"median of {options.turns} epochs on {options.device}"
    return report(
        [
            Claim("epoch, of a bare loop", ours / fastest, MAX_OF_BARE, how),
            Claim("speed, of plain Lightning", plain / ours, MIN_OF_PLAIN, how, at_least=True),
            Claim(
                "speed of the input path, of the DataLoader",
                plain_input / input_path,
                MIN_INPUT,
                how,
                at_least=True,
            ),
        ],
        options.json,
    )


def _patches(count: int) -> LabelledPatches:
    random = np.random.default_rng(0)
    masks = np.kron(random.random((count, 16, 16)) < 0.2, np.ones((16, 16))).astype(np.uint8)
    images = random.normal(MEAN - 6 * masks[:, None], STD / 2, (count, 2, 256, 256))
    names = np.array([str(number) for number in range(count)])
    return LabelledPatches(images.astype(np.float16), masks, np.full(count, "event"), names)


class _GeoTiffs(Dataset[tuple[Tensor, Tensor]]):
    """Four random crops of each patch an epoch, each read from its two files."""

    def __init__(self, folder: Path, patches: LabelledPatches, crop: int) -> None:
        self._folder, self._crop = folder, crop
        self._count = len(patches)
        for number in range(self._count):
            self._write(f"{number}.tif", patches.images[number].astype(np.float32))
            self._write(f"{number}_mask.tif", patches.masks[number][None])

    def _write(self, name: str, image: np.ndarray) -> None:
        profile = {"driver": "GTiff", "height": 256, "width": 256, "compress": "deflate"}
        profile["transform"] = Affine(10, 0, 500_000, 0, -10, 1_500_000)
        with rasterio.open(
            self._folder / name, "w", count=len(image), dtype=image.dtype, **profile
        ) as file:
            file.write(image)

    def __len__(self) -> int:
        return self._count * (256 // self._crop) ** 2

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        number = item % self._count
        with rasterio.open(self._folder / f"{number}.tif") as file:
            image = torch.from_numpy(file.read())
        with rasterio.open(self._folder / f"{number}_mask.tif") as file:
            mask = torch.from_numpy(file.read(1))
        top, left = torch.randint(0, 257 - self._crop, (2,)).tolist()
        image = (image[:, top : top + self._crop, left : left + self._crop] - MEAN) / STD
        mask = mask[top : top + self._crop, left : left + self._crop]
        turns = int(torch.randint(4, ()))
        image, mask = torch.rot90(image, turns, (1, 2)), torch.rot90(mask, turns)
        if torch.rand(()) < 0.5:
            image, mask = image.flip(2), mask.flip(1)
        return image, mask


class _Plain(L.LightningModule):
    def __init__(self, params: Params) -> None:
        super().__init__()
        self.network = UNet(2, params.model)
        self.loss = build_loss(params.loss, (9, 1))
        self.params = params.train
        self.ends: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss: Tensor = self.loss(self.network(batch[0]), batch[1])
        return loss

    def on_train_epoch_end(self) -> None:
        _synchronise()
        self.ends.append(time.perf_counter())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.params.learning_rate)


def _plain(loader: DataLoader[tuple[Tensor, Tensor]], params: Params, turns: int) -> float:
    """Return the median seconds of an epoch, the first one not counted."""
    module = _Plain(params)
    L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=turns + 1,
        gradient_clip_val=GRADIENT_NORM,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    ).fit(module, loader)
    return statistics.median(np.diff(module.ends).tolist())


class _Bare:
    """The loop without anything around it, over batches that are inputs already."""

    def __init__(
        self,
        batches: list[tuple[Tensor, ...]],
        params: Params,
        device: torch.device,
        *,
        compiled: bool = False,
    ) -> None:
        mean, std = (torch.full((1, 2, 1, 1), value, device=device) for value in (MEAN, STD))
        self._batches = [(fill(standardise(images, mean, std)), masks) for images, masks in batches]
        self._network = channels_last(UNet(2, params.model)).to(device)
        self._forward = torch.compile(self._network) if compiled else self._network
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision())
        self._autocast = torch.autocast(device.type, half, enabled=half is not None)
        self._loss = build_loss(params.loss, (9, 1))
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=params.train.learning_rate
        )

    def epoch(self) -> None:
        for images, masks in self._batches:
            self._optimizer.zero_grad()
            with self._autocast:
                loss = self._loss(self._forward(images), masks)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), GRADIENT_NORM)
            self._optimizer.step()


def _exhaust(loader: Iterable[object]) -> None:
    for _ in loader:
        pass


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - start


def _median(work: Callable[[], object], turns: int) -> float:
    return statistics.median(_timed(work) for _ in range(turns + 1))


if __name__ == "__main__":
    sys.exit(main())
