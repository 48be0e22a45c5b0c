"""Statistics of one patch: the only thing that validation ever sees of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sarflood.raster.patch import UNKNOWN, WET


def patch_statistics(
    image: NDArray[np.float32], mask: NDArray[np.uint8] | None, bands: tuple[str, ...]
) -> dict[str, float]:
    """Describe one patch.

    Args:
        image: (C, H, W) float32; NaN is no data.
        mask: (H, W) uint8, 0 dry, 1 wet, 255 unknown; None where unlabelled.
        bands: The C band names.

    Returns:
        `valid_share` (pixels with data in all bands), `wet_share` (of the labelled pixels; NaN
        where there are none), and for each band `<band>_min`, `_p02`, `_mean`, `_p98`, `_max`,
        `_std`, `_constant_share` (of the valid pixels, those that hold the commonest value),
        `_wet_mean` and `_dry_mean` (NaN where there is no such pixel), in the image's own units.
    """
    valid = np.logical_and.reduce(np.isfinite(image), axis=0)
    labelled = valid & (mask != UNKNOWN) if mask is not None else np.zeros_like(valid)
    wet = labelled & (mask == WET) if mask is not None else labelled
    dry = labelled & ~wet
    known = int(labelled.sum())
    row = {
        "valid_share": float(valid.mean()),
        "wet_share": float(wet.sum() / known) if known else float("nan"),
    }
    for band, values in zip(bands, image, strict=True):
        row |= {f"{band}_{name}": value for name, value in _band(values, valid, wet, dry).items()}
    return row


def _band(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    wet: NDArray[np.bool_],
    dry: NDArray[np.bool_],
) -> dict[str, float]:
    inside = values[valid].astype(np.float64)
    if not inside.size:
        names = ("min", "p02", "mean", "p98", "max", "std", "constant_share")
        return dict.fromkeys((*names, "wet_mean", "dry_mean"), float("nan"))
    inside.sort()
    runs = np.diff(np.flatnonzero(np.diff(inside, prepend=np.nan, append=np.nan) != 0))
    rank = inside.size - 1
    return {
        "min": float(inside[0]),
        "p02": float(inside[round(0.02 * rank)]),
        "mean": float(inside.mean()),
        "p98": float(inside[round(0.98 * rank)]),
        "max": float(inside[-1]),
        "std": float(inside.std()),
        "constant_share": float(runs.max() / inside.size),
        "wet_mean": float(values[wet].mean(dtype=np.float64)) if wet.any() else float("nan"),
        "dry_mean": float(values[dry].mean(dtype=np.float64)) if dry.any() else float("nan"),
    }
