"""Other rasters read on the grid of a scene, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from sarflood.errors import InputError
from sarflood.raster.grid import Grid
from sarflood.raster.safe import open_raster

Rows = Callable[[int, int], NDArray[np.float32]]


def check_placed(path: Path) -> None:
    """Refuse a file that is no raster, or has no place on the Earth.

    Raises:
        InputError: Says why.
    """
    with open_raster(path) as dataset:
        _check_placed(path, dataset)


@contextmanager
def aligned(path: Path, grid: Grid, resampling: Resampling) -> Iterator[Rows]:
    """Open the first band of a raster on any grid.

    Gives a function of the first row and the one after the last, which returns (h, W) float32 with
    NaN where the raster has no data or does not reach.

    Raises:
        InputError: It is no raster, has no georeference, is damaged, or lies elsewhere.
    """
    with open_raster(path) as dataset:
        _check_placed(path, dataset)
        _check_overlap(path, dataset, grid)
        with WarpedVRT(
            dataset,
            crs=grid.crs,
            transform=grid.transform,
            height=grid.height,
            width=grid.width,
            resampling=resampling,
            dtype="float32",
            nodata=np.nan,
        ) as warped:

            def rows(top: int, bottom: int) -> NDArray[np.float32]:
                try:
                    window = Window(0, top, grid.width, bottom - top)
                    values: NDArray[np.float32] = warped.read(1, window=window)
                except RasterioError as error:
                    raise InputError(f"{path}: damaged or truncated: {error}") from error
                return values

            yield rows


def _check_placed(path: Path, dataset: DatasetReader) -> None:
    if dataset.crs is None or dataset.transform.is_identity:
        raise InputError(
            f"{path}: no georeference; name its grid with `rio edit-info --crs EPSG:… "
            "--transform …`"
        )


def _check_overlap(path: Path, dataset: DatasetReader, grid: Grid) -> None:
    cols, rows = np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * [[grid.width], [grid.height]]
    x, y = grid.crs_coordinates(cols.astype(float), rows.astype(float))
    try:
        left, bottom, right, top = transform_bounds(dataset.crs, grid.crs, *dataset.bounds)
    except RasterioError as error:
        raise InputError(f"{path}: CRS {dataset.crs} does not lead to the scene's") from error
    if right <= x.min() or left >= x.max() or top <= y.min() or bottom >= y.max():
        raise InputError(f"{path}: lies beside the scene; is its CRS ({dataset.crs}) right?")
