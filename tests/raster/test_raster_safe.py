"""Headers from outside, refused before a pixel is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from sarflood.errors import InputError
from sarflood.raster.safe import open_raster

WriteRaster = Callable[..., Path]


@pytest.mark.parametrize("where", ["descriptions", "units"])
def test_words_that_are_not_utf8_are_refused(
    tmp_path: Path, write_raster: WriteRaster, where: str
) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((4, 4), np.uint8))
    with rasterio.open(path, "r+") as file:
        setattr(file, where, ("NAMED",))
    content = path.read_bytes()
    assert content.count(b"NAMED") == 1
    path.write_bytes(content.replace(b"NAMED", b"N\xc4MED"))
    with pytest.raises(InputError, match=r"a\.tif: .* not UTF-8"), open_raster(path):
        pass


def test_a_raster_with_an_endless_side_is_refused(
    tmp_path: Path, write_raster: WriteRaster
) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((1, 200_001), np.uint8))
    with pytest.raises(InputError, match="200001×1 pixels; at most 200,000 a side"):
        open_raster(path).__enter__()
