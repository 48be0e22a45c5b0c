"""GDAL's cache of pixels, which otherwise takes a share of the machine's memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.env import get_gdal_config, set_gdal_config


@contextmanager
def block_cache(size_bytes: int) -> Iterator[None]:
    """Let GDAL cache so much within the `with` block; `rasterio.Env` alone does not undo it."""
    before = get_gdal_config("GDAL_CACHEMAX")
    set_gdal_config("GDAL_CACHEMAX", size_bytes)
    try:
        yield
    finally:
        set_gdal_config("GDAL_CACHEMAX", before)
