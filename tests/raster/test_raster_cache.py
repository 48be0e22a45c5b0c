from __future__ import annotations

import rasterio
from rasterio.env import get_gdal_config

from sarflood.raster.cache import block_cache


def test_the_cache_has_its_old_size_afterwards() -> None:
    with rasterio.Env():
        before = get_gdal_config("GDAL_CACHEMAX")
        with block_cache(64 * 2**20):
            assert get_gdal_config("GDAL_CACHEMAX") == 64 * 2**20
        assert get_gdal_config("GDAL_CACHEMAX") == before
