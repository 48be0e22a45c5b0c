"""Areas on the WGS 84 ellipsoid, of pixels in any coordinate reference system."""

from __future__ import annotations

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from rasterio.crs import CRS

ELLIPSOID = Geod(ellps="WGS84")
_BLOCK = 64  # pixels; the size of a pixel on the ellipsoid is taken as constant within a block


def to_lon_lat(crs: CRS) -> Transformer:
    """Return the transformation from `crs` to longitude and latitude in degrees (EPSG:4326)."""
    return Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)


def area_km2(selected: NDArray[np.bool_], crs: CRS, transform: Affine) -> float:
    """Return the area of the selected pixels on the ellipsoid.

    The geodesic area of each block of 64×64 pixels (Karney 2013, https://doi.org/10.1007/s00190-012-0578-z)
    is shared out among its pixels, so that neither the scale of a projection nor the shrinking of
    degrees towards the poles counts as area.

    Args:
        selected: (H, W) bool.
        crs: The coordinate reference system.
        transform: Pixel (column, row) to CRS coordinates.
    """
    height, width = selected.shape
    rows = np.append(np.arange(0, height, _BLOCK), height)
    cols = np.append(np.arange(0, width, _BLOCK), width)
    down = np.add.reduceat(selected, rows[:-1], axis=0, dtype=np.int64)
    counts = np.add.reduceat(down, cols[:-1], axis=1)
    grid_x, grid_y = transform @ tuple(np.meshgrid(cols, rows))
    lon, lat = to_lon_lat(crs).transform(grid_x, grid_y)
    total_m2 = 0.0
    for row, col in np.argwhere(counts):
        corners = ([row, row, row + 1, row + 1], [col, col + 1, col + 1, col])
        block_m2, _ = ELLIPSOID.polygon_area_perimeter(lon[corners], lat[corners])
        pixels = (rows[row + 1] - rows[row]) * (cols[col + 1] - cols[col])
        total_m2 += abs(block_m2) * counts[row, col] / pixels
    return float(total_m2 / 1e6)
