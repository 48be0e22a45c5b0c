"""Statistics of one patch: the only thing that validation ever sees of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sarflood.patches.blocks import block_means
from sarflood.patches.labels import label_statistics
from sarflood.raster.patch import UNKNOWN, WET

BAND_STATISTICS = (
    "min",
    "p02",
    "mean",
    "p98",
    "max",
    "std",
    "constant_share",
    "saturated_share",
    "levels",
    "stripes",
    "enl",
)
CLASS_MEANS = ("wet_mean", "dry_mean")
_ENL_BLOCK = 8  # pixels a side: small enough to be of one kind of ground
_ENL_QUANTILE = 0.75  # of the blocks: those of mixed ground look like fewer looks than there are

_TELLING_PIXELS = 256  # fewer say nothing of a distribution
_PIXEL_STEP = 4  # every so many pixels along a line tell how much single ones differ

Values = NDArray[np.float32]
Flags = NDArray[np.bool_]


def patch_statistics(
    image: Values,
    stored: NDArray[np.float16],
    mask: NDArray[np.uint8] | None,
    bands: tuple[str, ...],
    units: str,
    pixels: int,
) -> dict[str, float]:
    """Describe one patch.

    Args:
        image: (C, H, W) float32; NaN is no data. H and W are multiples of 8.
        stored: The same as float16: 16 bits are sorted in a fifth of the time.
        mask: (H, W) uint8, 1 wet, 255 unknown, all other codes dry; None where unlabelled.
        bands: The C band names.
        units: `db` or `uint8`.
        pixels: How many there are without the padding.

    Returns:
        `valid_share` (of the pixels without padding, those with data in all bands), `wet_share` (of
        the labelled pixels; NaN where there are none), those of `label_statistics`, and for each
        band, in the image's own units and NaN where there is no such pixel: `<band>_min`, `_p02`,
        `_mean`, `_p98`, `_max`, `_std`, `_constant_share` (of the valid pixels, those that hold the
        commonest value), `_saturated_share` (those at the ends of the scale), `_levels` (number of
        different values), `_stripes` (see `stripes`), `_enl` (see `equivalent_looks`; NaN for
        `uint8`), `_wet_mean` and `_dry_mean`. Fewer than 256 valid pixels, a sliver at the border
        of a scene, do not tell `_std`, `_constant_share`, `_saturated_share`, `_levels`, `_stripes`
        and `_enl`.
    """
    valid = np.logical_and.reduce(np.isfinite(image), axis=0)
    labelled = valid & (mask != UNKNOWN) if mask is not None else np.zeros_like(valid)
    wet = labelled & (mask == WET) if mask is not None else labelled
    dry = labelled & ~wet
    known = int(labelled.sum())
    row = {
        "valid_share": float(np.count_nonzero(valid) / pixels),
        "wet_share": float(wet.sum() / known) if known else float("nan"),
        **label_statistics(image[bands.index("vv") if "vv" in bands else 0], wet, dry),
    }
    for band, values, short in zip(bands, image, stored, strict=True):
        found = _band(values, short, valid, units) | _class_means(values, wet, dry)
        row |= {f"{band}_{name}": value for name, value in found.items()}
    return row


def _band(
    values: Values, stored: NDArray[np.float16], valid: Flags, units: str
) -> dict[str, float]:
    inside = values[valid]
    if not inside.size:
        return dict.fromkeys(BAND_STATISTICS, float("nan"))
    mean = float(inside.mean())
    ranked = _flipped(stored.view(np.int16)[valid])
    ranked.sort(kind="stable")  # by radix
    ranks = np.rint(np.array([0.0, 0.02, 0.98, 1.0]) * (ranked.size - 1)).astype(np.intp)
    low, p02, p98, high = map(float, _flipped(ranked[ranks]).view(np.float16))
    level = {"min": low, "p02": p02, "mean": mean, "p98": p98, "max": high}
    if ranked.size < _TELLING_PIXELS:
        return dict.fromkeys(BAND_STATISTICS, float("nan")) | level
    edges = np.flatnonzero(ranked[1:] != ranked[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=ranked.size)
    # On a scale without known ends, saturated values pile up at the patch's own extremes.
    at_ends = (runs[0] if units == "db" or low == 0 else 0) + (
        runs[-1] if units == "db" or high == 255 else 0
    )
    deviation = inside - np.float32(mean)
    return level | {
        "std": float(np.sqrt(deviation @ deviation / deviation.size)),
        "constant_share": float(runs.max() / ranked.size),
        "saturated_share": min(float(at_ends / ranked.size), 1.0),
        "levels": float(runs.size),
        "stripes": stripes(values, valid, mean),
        "enl": equivalent_looks(values) if units == "db" else float("nan"),
    }


def _flipped(bits: NDArray[np.int16]) -> NDArray[np.int16]:
    """Turn the bits of float16 into integers of the same order, or back."""
    return bits ^ ((bits >> 15) & np.int16(0x7FFF))


def _class_means(values: Values, wet: Flags, dry: Flags) -> dict[str, float]:
    pairs = zip(CLASS_MEANS, (wet, dry), strict=True)
    return {
        name: float(values[kind].mean()) if kind.any() else float("nan") for name, kind in pairs
    }


def stripes(values: Values, valid: Flags, mean: float) -> float:
    """Say how much whole rows or columns stand out from their neighbours.

    The second difference across the lines, averaged along each line, against what it would be were
    pixels independent: about 1 to 3 for radar, and up to the root of the line's length for banding.

    Args:
        values: (H, W).
        valid: (H, W); the others are taken as the mean.
        mean: Of the valid values.

    Returns:
        The larger of both directions; NaN where all pixels are one value.
    """
    filled = values if valid.all() else np.where(valid, values, np.float32(mean))
    strongest = float("nan")
    for lines in (filled, filled.T):
        profile = lines.mean(axis=1)
        line = float(np.abs(_bend(profile)).mean()) * np.sqrt(lines.shape[1])
        pixel = float(np.abs(_bend(lines[:, ::_PIXEL_STEP])).mean())
        if pixel > 0:
            strongest = float(np.nanmax([strongest, line / pixel]))
    return strongest


def _bend(lines: Values) -> Values:
    bend: Values = lines[1:-1] - (lines[:-2] + lines[2:]) * np.float32(0.5)
    return bend


def equivalent_looks(decibel: Values) -> float:
    """Estimate the equivalent number of looks, mean² / variance of intensity on even ground.

    Oliver and Quegan, Understanding Synthetic Aperture Radar Images (2004), equation 4.17, on
    blocks of 8×8 pixels, of which the 75 % quantile is taken.

    Args:
        decibel: (H, W) in dB; blocks with no data do not count.

    Returns:
        The estimate; NaN where no block has data throughout.
    """
    power = np.exp(decibel * np.float32(np.log(10) / 10))
    mean, square = (block_means(item, _ENL_BLOCK).ravel() for item in (power, power * power))
    known = np.isfinite(mean)
    if not known.any():
        return float("nan")
    mean, square = mean[known], square[known]
    looks = mean**2 / np.maximum(square - mean**2, 1e-6 * mean**2)
    return float(np.quantile(looks, _ENL_QUANTILE))
