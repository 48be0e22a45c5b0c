"""Cloud-optimised GeoTIFFs: tiled, with overviews, readable by ranges."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from sarflood.files import replacing
from sarflood.raster.patch import UNKNOWN
from sarflood.raster.safe import writing_raster

_TILES = {"tiled": True, "blockxsize": 512, "blockysize": 512}  # as the COG driver's


def write_cog(
    path: Path,
    strips: Iterable[tuple[int, NDArray[np.uint8]]],
    shape: tuple[int, int],
    *,
    crs: CRS,
    transform: Affine,
    description: str,
) -> None:
    """Write one band as a cloud-optimised GeoTIFF, whole or not at all.

    Args:
        path: Where to; an existing file is replaced.
        strips: The band uint8, part by part: number of the first row, and (h, W); 255 is no data.
        shape: Rows and columns of all of it.
        crs: The coordinate reference system.
        transform: Pixel (column, row) to CRS coordinates.
        description: What the band shows, as other programs list it.

    Raises:
        SarfloodError: It cannot be written, such as on a full disk.
    """
    profile = {"height": shape[0], "width": shape[1], "count": 1, "dtype": "uint8"}
    place = {"crs": crs, "transform": transform, "nodata": UNKNOWN}
    with (
        tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder,
        replacing(path) as temporary,
        writing_raster(path),
    ):
        plain = Path(folder) / "plain.tif"
        # Overviews need all of the band: GDAL makes a cloud-optimised file of another one, and
        # sooner where that has tiles. Overviews of its own would be quicker still, but GDAL
        # crashes when the disk is full while it writes them.
        with rasterio.open(
            plain, "w", driver="GTiff", bigtiff="if_safer", **_TILES, **profile, **place
        ) as band:
            for top, rows in strips:
                band.write(rows, 1, window=Window(0, top, rows.shape[1], rows.shape[0]))
            band.set_band_description(1, description)
        rasterio.shutil.copy(
            plain,
            temporary,
            driver="COG",
            compress="deflate",
            level=1,  # more takes three times as long on a mask, for a sixth of its bytes
            overview_resampling="nearest",  # classes have no average
            bigtiff="if_safer",
            num_threads="all_cpus",
        )
