from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from tiny import UTM, full_disk

from sarflood.errors import SarfloodError
from sarflood.raster.cog import write_cog

CRS_51N = CRS.from_epsg(32651)


def strips(band: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for top in range(0, len(band), 400):
        yield top, band[top : top + 400]


def test_it_is_cloud_optimised_and_keeps_pixels_grid_and_no_data(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).choice([0, 1, 255], (1500, 900)).astype(np.uint8)
    path = tmp_path / "flood.tif"
    write_cog(path, strips(mask), mask.shape, crs=CRS_51N, transform=UTM, description="flood")
    with rasterio.open(path) as cog:
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert cog.compression.name == "deflate"
        assert cog.overviews(1)
        assert (cog.crs, cog.transform, cog.nodata) == (CRS_51N, UTM, 255)
        assert cog.descriptions == ("flood",)
        assert np.array_equal(cog.read(1), mask)
        overview = cog.read(1, out_shape=(750, 450))
    assert set(np.unique(overview)) <= {0, 1, 255}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "flood.tif"
    path.write_bytes(b"the old one")
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1000)).astype(np.uint8)
    with (
        full_disk(),
        pytest.raises(SarfloodError, match=r"flood\.tif: cannot be written .* disk full"),
    ):
        write_cog(path, strips(noise), noise.shape, crs=CRS_51N, transform=UTM, description="flood")
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]
