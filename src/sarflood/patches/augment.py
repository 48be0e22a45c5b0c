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
_QUANTILES = 4096
_HOLE = (0.1, 0.5)  # edges of a hole, as shares of the crop's


def augment(
    images: Tensor, masks: Tensor, params: AugmentParams, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Change a batch at random; each crop in its own way.

    - jitter: an offset of each band, normally distributed.
    - contrast: a factor e^x of each band about 0, x normally distributed.
    - speckle: the logarithm of gamma-distributed noise of four looks, with a strength that is drawn
      for each crop from 0 to `speckle`; multiplicative noise is added in dB.
    - band_dropout: a band of a crop has no data; never the first.
    - holes: a rectangle has no data in any band, and no label.

    Args:
        images: (N, C, H, W) float32, scaled so that a band's standard deviation is about 1; NaN no
            data. Changed in place.
        masks: (N, H, W) uint8.
        params: Standard deviations in units of the images, and shares of the crops.
        random: On the images' device.

    Returns:
        Images and masks.
    """
    count, bands, height, width = images.shape
    device = images.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, device=device)

    if params.contrast:
        images.mul_(torch.exp(params.contrast * normal(count, bands, 1, 1)))
    if params.jitter:
        images.add_(params.jitter * normal(count, bands, 1, 1))
    if params.speckle:
        images.addcmul_(_log_gamma(images, random), params.speckle * uniform(count, 1, 1, 1))
    if params.band_dropout and bands > 1:
        dropped = uniform(count, bands, 1, 1) < params.band_dropout
        dropped[:, 0] = False
        images.masked_fill_(dropped, torch.nan)
    if params.holes:
        low, high = _HOLE
        edges = low + (high - low) * uniform(2, count, 1)
        starts = (1 - edges) * uniform(2, count, 1)
        inside = [
            (steps >= start) & (steps < start + edge)
            for start, edge, steps in zip(
                starts, edges, (_steps(height, device), _steps(width, device)), strict=True
            )
        ]
        chosen = (uniform(count, 1) < params.holes) & inside[0]
        hole = chosen[:, :, None] & inside[1][:, None, :]
        images.masked_fill_(hole[:, None], torch.nan)
        masks = masks.masked_fill(hole, UNKNOWN)
    return images, masks


def _steps(length: int, device: torch.device) -> Tensor:
    return torch.arange(length, device=device)[None] / length


def _log_gamma(images: Tensor, random: torch.Generator) -> Tensor:
    """Draw the logarithm of gamma noise, with mean 0 and deviation 1, from its quantiles."""
    drawn = torch.randint(_QUANTILES, images.shape, generator=random, device=images.device)
    return _speckle_quantiles().to(images.device)[drawn]


@cache
def _speckle_quantiles() -> Tensor:
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    values = stats.loggamma.ppf(at, _LOOKS)
    return torch.from_numpy((values - values.mean()) / values.std()).float()
