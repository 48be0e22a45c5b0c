"""Changes of radar images that leave the water where it is, on a whole batch at once.

Turns and flips are made where crops are cut. Here the grey levels change, as between scenes,
sensors and calibrations, and pixels get lost.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from sarflood.params import AugmentParams
from sarflood.raster.patch import UNKNOWN

_LOOKS = 4
_QUANTILES, _REPEATS = 4096, 256  # of the noise that crops take their speckle from
_HOLE = (0.1, 0.5)  # edges of a hole, as shares of the crop's


def augment(
    images: Tensor, masks: Tensor, params: AugmentParams, random: torch.Generator, bands: int
) -> tuple[Tensor, Tensor]:
    """Change a batch at random; each crop in its own way.

    - jitter: an offset of each channel, normally distributed.
    - contrast: a factor e^x of each channel about 0, x normally distributed.
    - speckle: the logarithm of gamma-distributed noise of four looks, with a strength that is drawn
      for each crop from 0 to `speckle`; multiplicative noise is added in dB. All channels of a band
      have the same: it is of the radar's image, and what differs could be averaged out.
    - band_dropout: a band of a crop has no data, in all its channels; never the first.
    - holes: a rectangle has no data in any band, and no label.

    Args:
        images: (N, C, H, W) float32, channels last in memory, scaled so that a channel's standard
            deviation is about 1; NaN no data. Changed in place.
        masks: (N, H, W) uint8. Changed in place.
        params: Standard deviations in units of the images, and shares of the crops.
        random: On the CPU, whatever the images' device: all that is drawn is a few numbers a crop.
        bands: The channels are so many bands, once or more, differently scaled.

    Returns:
        Images and masks.
    """
    count, channels, height, width = images.shape
    copies = channels // bands

    def normal() -> Tensor:
        drawn = torch.randn((count, channels, 1, 1), generator=random)
        return drawn.to(images.device, non_blocking=True)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random)

    if params.contrast or params.jitter:
        factors, offsets = torch.exp(params.contrast * normal()), params.jitter * normal()
        torch.addcmul(offsets, images, factors, out=images)
    if params.speckle:
        noise = _speckle(images.device)
        size = height * width * bands
        most = len(noise) - size
        starts = torch.randint(most + 1, (count,), generator=random).tolist()
        strengths = (params.speckle * uniform(count)).tolist()
        for image, start, strength in zip(images, starts, strengths, strict=True):
            own = noise[start : start + size].view(height, width, bands)
            image.add_(own.repeat(1, 1, copies).permute(2, 0, 1), alpha=strength)
    if params.band_dropout:
        for number, band in (uniform(count, bands) < params.band_dropout).nonzero().tolist():
            if band:
                images[number, band::bands] = torch.nan
    if params.holes:
        chosen = uniform(count) < params.holes
        _pierce(images, masks, chosen.nonzero().flatten().tolist(), uniform(2, count, 2))
    return images, masks


def _pierce(images: Tensor, masks: Tensor, numbers: list[int], drawn: Tensor) -> None:
    """Cut a rectangle out of some crops, in place.

    Args:
        images: (N, C, H, W).
        masks: (N, H, W).
        numbers: Which crops.
        drawn: (2, N, 2) of 0 to 1: the sizes of the rectangles, and where they lie.
    """
    low, high = _HOLE
    edges = low + (high - low) * drawn[0]
    starts = (1 - edges) * drawn[1]
    size = torch.tensor(masks.shape[1:])
    corners = torch.cat([starts * size, (starts + edges) * size], dim=1).long()
    for number in numbers:
        top, left, bottom, right = corners[number].tolist()
        images[number, :, top:bottom, left:right] = torch.nan
        masks[number, top:bottom, left:right] = UNKNOWN


@cache
def _speckle(device: torch.device) -> Tensor:
    """Return the logarithm of gamma noise, with mean 0 and deviation 1, in a random order.

    A crop takes a part of it from a random place on: drawing each pixel anew took 4 % of a step.
    """
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    values = np.tile(stats.loggamma.ppf(at, _LOOKS), _REPEATS)
    shuffled = np.random.default_rng(0).permutation((values - values.mean()) / values.std())
    return torch.from_numpy(shuffled).float().to(device)
