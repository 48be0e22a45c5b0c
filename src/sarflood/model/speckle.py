"""Speckle filters on backscatter: Lee, and refined Lee.

Both estimate the true intensity x of a pixel y by the least mean square error from the mean and
the variance around it: x = ȳ + b (y − ȳ) with b = var(x) / var(y) and, for speckle of relative
variance σ² = 1 / looks, var(x) = (var(y) − ȳ² σ²) / (1 + σ²), not below 0 (Lee, Digital image
enhancement and noise filtering by use of local statistics, 1980; Lee and Pottier, Polarimetric
Radar Imaging, 2009, chapter 5). The refined filter takes both from the half of the window that lies
on the pixel's side of the strongest edge (Lee, Refined filtering of image noise using local
statistics, 1981).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

SpeckleFilter = Literal["none", "lee", "refined_lee"]

WINDOW = 7
LOOKS = 4.4  # equivalent number of looks of Sentinel-1 IW GRD in high resolution
_HALF = WINDOW // 2


def despeckle(decibel: Tensor, kind: SpeckleFilter, looks: float = LOOKS) -> Tensor:
    """Filter images in dB, through linear intensity.

    Args:
        decibel: (N, C, H, W) floating point; NaN is no data, neither filtered nor spread.
        kind: Which filter; `none` gives the images as they are.
        looks: Equivalent number of looks.

    Returns:
        (N, C, H, W) float32 in dB, with NaN where there was NaN.
    """
    images = decibel.float()
    if kind == "none":
        return images
    planes = images.flatten(0, 1).unsqueeze(1)  # (N·C, 1, H, W)
    known = torch.isfinite(planes)
    power = torch.where(known, torch.exp(planes * (math.log(10) / 10)), 0.0)
    weight = known.float()
    windows = torch.ones(1, 1, WINDOW, WINDOW) if kind == "lee" else _half_windows()
    mean, variance = _moments(power, weight, windows.to(images.device))
    if kind == "refined_lee":
        side = _side(power, weight)
        mean, variance = mean.gather(1, side), variance.gather(1, side)
    filtered = _estimate(power, mean, variance, 1 / looks)
    result = torch.where(known, 10 * torch.log10(filtered), math.nan)
    return result.view_as(images)


def _moments(power: Tensor, weight: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance in each of (K, 1, h, w) windows, as (N, K, H, W)."""
    margin = windows.shape[-1] // 2
    count = conv2d(weight, windows, padding=margin).clamp(min=1)
    mean = conv2d(power, windows, padding=margin) / count
    square = conv2d(power * power, windows, padding=margin) / count
    return mean, (square - mean * mean).clamp(min=0)


def _estimate(power: Tensor, mean: Tensor, variance: Tensor, speckle: float) -> Tensor:
    signal = ((variance - mean * mean * speckle) / (1 + speckle)).clamp(min=0)
    gain = torch.where(variance > 0, signal / variance.clamp(min=1e-30), 0.0)
    return mean + gain * (power - mean)


def _half_windows() -> Tensor:
    """Return the (8, 1, 7, 7) half windows, each with the middle line, in the order of `_side`.

    Left, right; upper left, lower right; upper, lower; upper right, lower left.
    """
    row, col = torch.meshgrid(*[torch.arange(WINDOW) - _HALF] * 2, indexing="ij")
    halves = [
        col <= 0,
        col >= 0,
        row + col <= 0,
        row + col >= 0,
        row <= 0,
        row >= 0,
        row <= col,
        row >= col,
    ]
    return torch.stack(halves).float().unsqueeze(1)


# Edge masks on the 3×3 means of a pixel's sub-windows, one for each pair of half windows.
_EDGES = torch.tensor(
    [
        [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]],
        [[-1, -1, 0], [-1, 0, 1], [0, 1, 1]],
        [[-1, -1, -1], [0, 0, 0], [1, 1, 1]],
        [[0, -1, -1], [1, 0, -1], [1, 1, 0]],
    ],
    dtype=torch.float32,
)
_SPACING = 2  # pixels between the middles of neighbouring sub-windows of 3×3


def _side(power: Tensor, weight: Tensor) -> Tensor:
    """Return which half window each pixel takes, (N, 1, H, W) from 0 to 7.

    Across the strongest edge, the side whose sub-window mean is nearer to the middle's.
    """
    ones = torch.ones(1, 1, 3, 3, device=power.device)
    total, count = conv2d(power, ones, padding=1), conv2d(weight, ones, padding=1)
    means = total / count.clamp(min=1)
    around = pad(means, [_SPACING] * 4, mode="replicate")
    height, width = power.shape[-2:]
    near = [
        [
            around[..., _SPACING * i : _SPACING * i + height, _SPACING * j : _SPACING * j + width]
            for j in range(3)
        ]
        for i in range(3)
    ]
    grid = torch.cat([near[i][j] for i in range(3) for j in range(3)], dim=1)  # (N, 9, H, W)
    edges = _EDGES.to(power.device).view(4, 9)
    strength = torch.einsum("ek,nkhw->nehw", edges, grid)
    direction = strength.abs().argmax(dim=1, keepdim=True)
    # The two sub-windows that lie across each edge, before and after it.
    before = grid[:, [3, 0, 1, 2]].gather(1, direction)
    after = grid[:, [5, 8, 7, 6]].gather(1, direction)
    second = (after - means).abs() < (before - means).abs()
    return 2 * direction + second.long()
