"""What a network sees of an image: filtered, and brought to one scale. Recorded with the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarflood.errors import InputError
from sarflood.model.speckle import despeckle
from sarflood.params import InputParams
from sarflood.raster.patch import PATCH

_QUANTILES = (0.16, 0.5, 0.84)  # of a normal distribution, the mean and one deviation on each side
_SAMPLED = 200  # images of an event whose quantiles are taken, evenly spaced
_STEP = 8  # every so many rows and columns of them
_LEAST = 1e-3  # a smaller spread counts as this
_CACHED_PIXELS = 1 << 16  # are prepared at a time
BLOCK = PATCH // 2  # edge of the blocks whose statistics are kept
_EXPONENT = np.uint16(0x7C00)  # of float16: all of its bits set are an infinity, or NaN
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Scaling:
    """What becomes 0, and what becomes 1 above it, in the images' units.

    Attributes:
        offset: (N, C, h, w) or (C, 1, 1) float32.
        scale: Likewise.
        down: (H, h) float32, how much each row of the two counts for each row of pixels, or (1, h)
            where it is the same for all; None where they broadcast to the images as they are.
        across: (W, w) float32 or (1, w), as `down` for columns.
    """

    offset: NDArray[np.float32]
    scale: NDArray[np.float32]
    down: NDArray[np.float32] | None = None
    across: NDArray[np.float32] | None = None

    def of(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return offset and scale for rows of pixels, as they broadcast to (N, C, h, W)."""
        offset, scale = torch.from_numpy(self.offset), torch.from_numpy(self.scale)
        if self.down is None or self.across is None:
            return offset, scale
        # Not multiplied by NumPy: the threads of its BLAS spin afterwards, in an engine's way.
        down, across = torch.from_numpy(self.down), torch.from_numpy(self.across).T
        down = down if len(down) == 1 else down[rows]
        return down @ offset @ across, down @ scale @ across


def channels(params: InputParams, bands: tuple[str, ...]) -> tuple[str, ...]:
    """Name the channels that `prepare` makes of these bands."""
    if params.normalisation == "both":
        return (*bands, *(f"{band}_local" for band in bands))
    return bands


def check_input(params: InputParams, bands: tuple[str, ...], units: str) -> None:
    """Refuse settings that events do not fit.

    Raises:
        InputError: Names the setting, and what would fit.
    """
    if units != "db" and params.speckle_filter != "none":
        raise InputError(
            f"input.speckle_filter {params.speckle_filter} needs events in dB; these are in {units}"
        )
    if params.normalisation != "fixed_db":
        return
    missing = {band.removesuffix("_pre") for band in bands} - params.fixed_db.keys()
    if units != "db" or missing:
        raise InputError(
            f"input.normalisation fixed_db needs events in dB (these: {units}) and a range in "
            f"input.fixed_db for each of {', '.join(bands)}; use training"
        )


def fixed_scaling(params: InputParams, bands: tuple[str, ...]) -> tuple[Numbers, Numbers]:
    """Return what maps each band's fixed range in dB to −1 to 1: offsets and scales."""
    ranges = [params.fixed_db[band.removesuffix("_pre")] for band in bands]
    return (
        tuple((low + high) / 2 for low, high in ranges),
        tuple((high - low) / 2 for low, high in ranges),
    )


def event_scaling(images: NDArray[np.floating]) -> Scaling:
    """Return the robust scale of an event: the median, and half of what 68 % of the pixels span.

    Args:
        images: (N, C, H, W), NaN no data; a fixed sample of them is looked at.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, _SAMPLED).astype(np.int64))
    sample = np.stack([images[number][:, ::_STEP, ::_STEP] for number in chosen])
    offset, scale = [], []
    for band in np.moveaxis(sample.astype(np.float32), 1, 0):
        values = band[np.isfinite(band)]
        low, middle, high = np.quantile(values, _QUANTILES) if values.size else (0.0, 0.0, 2.0)
        offset.append(float(middle))
        scale.append(max(float(high - low) / 2, _LEAST))
    return Scaling(*(np.array(item, np.float32).reshape(-1, 1, 1) for item in (offset, scale)))


def block_moments(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sum up each 128×128 block of images, the last ones of a row or column being what is left.

    Args:
        images: (N, C, H, W); what is not finite does not count.

    Returns:
        (3, N, C, rows, columns of blocks): the number of pixels, their sum, and of their squares.
    """
    height, width = images.shape[-2:]
    edges = ((0, 0), (0, 0), (0, -height % BLOCK), (0, -width % BLOCK))
    padded = np.pad(images.astype(np.float32), edges, constant_values=np.nan)
    valid = np.isfinite(padded)
    np.copyto(padded, 0.0, where=~valid)
    shape = (*padded.shape[:2], padded.shape[2] // BLOCK, BLOCK, padded.shape[3] // BLOCK, BLOCK)
    # For 128 pixels these types will do: their values were stored with 11 bits, squares have 22.
    rows = (
        np.add.reduce(layer.reshape(shape), axis=5, dtype=layer.dtype)
        for layer in (valid.view(np.uint8), padded, padded**2)
    )
    return np.stack([row.sum(axis=3, dtype=np.float64) for row in rows])


def local_scaling(
    moments: NDArray[np.float64], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> Scaling:
    """Return mean and standard deviation of the 256×256 pixels around each pixel.

    They are known at the corners of blocks, each from the four blocks around it, and interpolated
    linearly between those; beyond the outermost corners they stay. So a patch has one of each, and
    those of a scene change without a step.

    Args:
        moments: (3, N, C, rows, columns), as `block_moments` gives them of the whole image.
        rows: (h,) the rows of pixels for which it is wanted, in order.
        cols: (w,) the columns, in order.
    """
    missing = [(0, max(2 - length, 0)) for length in moments.shape[-2:]]
    padded = np.pad(moments, [(0, 0)] * 3 + missing)
    corners = padded[..., :-1, :] + padded[..., 1:, :]
    corners = corners[..., :-1] + corners[..., 1:]
    (top, down), (left, across) = (
        _between(pixels, length)
        for pixels, length in zip((rows, cols), corners.shape[-2:], strict=True)
    )
    near = corners[..., top : top + down.shape[1], left : left + across.shape[1]]
    count = np.maximum(near[0], 1e-9)
    mean = near[1] / count
    deviation = np.sqrt(np.maximum(near[2] / count - mean**2, 0.0))
    offset, scale = (layer.astype(np.float32) for layer in (mean, np.maximum(deviation, _LEAST)))
    return Scaling(offset, scale, down, across)


def _between(pixels: NDArray[np.int64], corners: int) -> tuple[int, NDArray[np.float32]]:
    """Return how much each corner of blocks counts for each pixel.

    Returns:
        The first corner that counts, and (pixels, corners from there on) weights; one row of them
        where all pixels are alike.
    """
    if corners == 1:
        return 0, np.ones((1, 1), np.float32)
    place = np.clip((pixels + 0.5) / BLOCK - 1, 0, corners - 1)
    first = int(place[0])
    distance = np.abs(place[:, None] - np.arange(first, int(np.ceil(place[-1])) + 1))
    return first, np.maximum(1 - distance, 0).astype(np.float32)


def prepare(
    images: NDArray[np.floating], params: InputParams, scaling: Scaling | None = None
) -> NDArray[np.floating]:
    """Filter images and bring them to the scale of their event or of each patch, where wanted.

    The scale is that of the image before it is filtered. Training and every use of a model go
    through here, and through `standardise` and `fill` after it. The result is rounded to float16 as
    stored patches are, so that both see the same numbers.

    Args:
        images: (N, C, H, W) in the model's units; NaN is no data.
        params: How.
        scaling: That of the event for `event`, that of the part of a scene for `local` and `both`;
            by default the images are an event, or each is a scene.

    Returns:
        (N, C, H, W), or (N, 2C, H, W) for `both`: first the images as they are, then on the scale
        of their surroundings. The images themselves where nothing is to be done.
    """
    return _prepared(images, params, scaling or _own_scaling(images, params), slice(None))


def network_input(
    images: NDArray[np.floating],
    params: InputParams,
    mean: Tensor,
    std: Tensor,
    scaling: Scaling | None = None,
) -> Tensor:
    """Do as `prepare`, `standardise` and `fill` do in turn, but some rows at a time.

    What they make in between then stays in the processor's caches, which takes a third of the time.

    Args:
        images: As for `prepare`.
        params: Likewise.
        mean: As for `standardise`.
        std: Likewise.
        scaling: As for `prepare`.

    Returns:
        (N, C', H, W) float32, channels last in memory.
    """
    scaling = scaling or _own_scaling(images, params)
    count, _, height, width = images.shape
    inputs = torch.empty((count, mean.shape[1], height, width), memory_format=torch.channels_last)
    step = height  # a filter looks beyond its rows
    if params.speckle_filter == "none":
        step = max(1, _CACHED_PIXELS // max(1, count * width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        prepared = torch.tensor(_prepared(images[:, :, rows], params, scaling, rows))
        inputs[:, :, rows] = fill(standardise(prepared, mean, std))
    return inputs


def _prepared(
    images: NDArray[np.floating], params: InputParams, scaling: Scaling | None, rows: slice
) -> NDArray[np.floating]:
    """Prepare some rows of the images that a scaling is for."""
    if params.speckle_filter == "none" and params.normalisation in ("training", "fixed_db"):
        return images
    result = despeckle(torch.tensor(images), params.speckle_filter)
    if scaling is None:
        return result.half().numpy()
    offset, scale = scaling.of(rows)
    scaled = (result - offset).div_(scale).half()
    if params.normalisation == "both":
        scaled = torch.cat((result.half(), scaled), dim=1)
    return scaled.numpy()


def _own_scaling(images: NDArray[np.floating], params: InputParams) -> Scaling | None:
    """Return the scale that images have by themselves, where they are scaled at all."""
    if params.normalisation == "event":
        return event_scaling(images)
    if params.normalisation in ("local", "both"):
        return local_scaling(block_moments(images), *map(np.arange, images.shape[-2:]))
    return None


def standardise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn what `prepare` gives into the network's input: float32, NaN where there is no data.

    Args:
        images: (N, C, H, W); left as they are.
        mean: (1, C, 1, 1), on the same device: what becomes 0.
        std: As `mean`: what becomes 1 above it.
    """
    return images.to(torch.float32, copy=True).sub_(mean).div_(std)


def fill(inputs: Tensor) -> Tensor:
    """Put 0, the mean, where there is no data, in place; channels last in memory."""
    filled = inputs.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    return filled.contiguous(memory_format=torch.channels_last)


def has_data(images: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Say of each pixel whether all its bands have data: (N, C, H, W) to (N, H, W)."""
    if images.dtype != np.float16:
        known: NDArray[np.bool_] = np.isfinite(images).all(axis=1)
        return known
    # Many times faster than NumPy's half precision: no exponent of ones only.
    bits = images.view(np.uint16) & _EXPONENT
    return np.asarray((bits != _EXPONENT).all(axis=1))
