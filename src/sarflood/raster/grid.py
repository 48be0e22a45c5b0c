"""Whether two rasters lie on one grid."""

from __future__ import annotations

from pathlib import Path

from rasterio.io import DatasetReader

from sarflood.errors import InputError

_TOLERANCE_PIXELS = 0.01


def check_same_grid(first: Path, one: DatasetReader, second: Path, other: DatasetReader) -> None:
    """Refuse two rasters whose pixels do not lie on each other, to a hundredth of a pixel.

    Raises:
        InputError: Names both files and the difference.
    """
    if one.shape != other.shape:
        what = f"{other.height}×{other.width} against {one.height}×{one.width} pixels"
    elif one.crs != other.crs:
        what = f"CRS {other.crs} against {one.crs}"
    elif not _same_corners(one, other):
        what = f"transform {tuple(other.transform)[:6]} against {tuple(one.transform)[:6]}"
    else:
        return
    raise InputError(
        f"{second}: not on the grid of {first}: {what}; warp one onto the other with "
        "`rio warp --like`"
    )


def _same_corners(one: DatasetReader, other: DatasetReader) -> bool:
    if one.transform.is_degenerate:
        return bool(one.transform == other.transform)
    to_pixels = ~one.transform @ other.transform
    for corner in ((0, 0), (one.width, 0), (0, one.height)):
        col, row = to_pixels @ corner
        if max(abs(col - corner[0]), abs(row - corner[1])) > _TOLERANCE_PIXELS:
            return False
    return True
