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

_QUANTILES = (0.16, 0.5, 0.84)  # of a normal distribution, the mean and one deviation on each side
_SAMPLED = 200  # images of an event whose quantiles are taken, evenly spaced
_STEP = 8  # every so many rows and columns of them
_LEAST = 1e-3  # a smaller spread counts as this


@dataclass(frozen=True)
class Scaling:
    """Offset and scale of each band of one event or scene, (C,) each, in the image's units."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]


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


def fixed_scaling(params: InputParams, bands: tuple[str, ...]) -> Scaling:
    """Return what maps each band's fixed range in dB to −1 to 1."""
    ranges = [params.fixed_db[band.removesuffix("_pre")] for band in bands]
    return Scaling(
        offset=tuple((low + high) / 2 for low, high in ranges),
        scale=tuple((high - low) / 2 for low, high in ranges),
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
    return Scaling(tuple(offset), tuple(scale))


def prepare(
    images: NDArray[np.floating], params: InputParams, scaling: Scaling | None = None
) -> NDArray[np.floating]:
    """Filter images and bring them to the scale of their event or of each patch, where wanted.

    Training and every use of a model go through here, and through `normalise` after it. The result
    is rounded to float16 as stored patches are, so that both see the same numbers.

    Args:
        images: (N, C, H, W) in the model's units; NaN is no data.
        params: How.
        scaling: That of the event for `event`; by default the images are an event of their own.

    Returns:
        (N, C, H, W): the images themselves where nothing is to be done.
    """
    if params.speckle_filter == "none" and params.normalisation in ("training", "fixed_db"):
        return images
    result = despeckle(torch.tensor(images), params.speckle_filter)
    if params.normalisation == "event":
        found = scaling or event_scaling(images)
        offset, scale = (torch.tensor(item).view(1, -1, 1, 1) for item in _both(found))
        result = (result - offset) / scale
    elif params.normalisation == "patch":
        result = _each_alone(result)
    return result.half().numpy()


def _both(scaling: Scaling) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return scaling.offset, scaling.scale


def _each_alone(images: Tensor) -> Tensor:
    """Give each band of each patch the mean 0 and the standard deviation 1."""
    mean = images.nanmean(dim=(2, 3), keepdim=True)
    deviation = ((images - mean) ** 2).nanmean(dim=(2, 3), keepdim=True).sqrt()
    return (images - mean) / deviation.clamp(min=_LEAST)
