"""Cloud-optimised GeoTIFFs: tiled, with overviews, readable by ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what a failed write raises as, and public nowhere
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from sarflood.errors import SarfloodError
from sarflood.files import replacing
from sarflood.raster.patch import UNKNOWN


def write_cog(
    path: Path, band: NDArray[np.uint8], *, crs: CRS, transform: Affine, description: str
) -> None:
    """Write one band as a cloud-optimised GeoTIFF, whole or not at all.

    Args:
        path: Where to; an existing file is replaced.
        band: (H, W) uint8; 255 is no data.
        crs: The coordinate reference system.
        transform: Pixel (column, row) to CRS coordinates.
        description: What the band shows, as other programs list it.

    Raises:
        SarfloodError: It cannot be written, such as on a full disk.
    """
    height, width = band.shape
    with replacing(path) as temporary:
        try:
            with rasterio.open(
                temporary,
                "w",
                driver="COG",
                height=height,
                width=width,
                count=1,
                dtype="uint8",
                crs=crs,
                transform=transform,
                nodata=UNKNOWN,
                compress="deflate",
                overview_resampling="nearest",  # classes have no average
                bigtiff="if_safer",
            ) as cog:
                cog.write(band, 1)
                cog.set_band_description(1, description)
        except (RasterioError, CPLE_BaseError) as error:
            raise SarfloodError(
                f"{path}: cannot be written ({error}); is the disk full?"
            ) from error
