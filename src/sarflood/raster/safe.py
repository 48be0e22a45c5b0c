"""Opening rasters that come from outside, checked before a pixel is read; writing one's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # some of GDAL's errors come as this, public nowhere
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from sarflood.errors import InputError, SarfloodError, TooLargeError

# The first bytes of the only formats that are opened, and the one GDAL driver each is opened with.
_MAGIC = {
    b"II*\x00": "GTiff",
    b"MM\x00*": "GTiff",
    b"II+\x00": "GTiff",  # BigTIFF
    b"MM\x00+": "GTiff",
    b"\x89PNG": "PNG",
}
_PNG_END = b"IEND\xaeB`\x82"
_GDAL = {
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no side-car files: the file speaks for itself
    "GDAL_PAM_ENABLED": "NO",
}
# What leads from WKT to files: parameters of PROJ in an extension, and grids of shifts.
_CRS_FILES = re.compile(r"(EXTENSION|PARAMETERFILE)\[")
_DTYPES = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"}
MAX_MEGAPIXELS = 4_000
MAX_BANDS = 16
MAX_SIDE = 200_000  # pixels


@contextmanager
def open_raster(path: Path, *, max_megapixels: int = MAX_MEGAPIXELS) -> Iterator[DatasetReader]:
    """Open a GeoTIFF or PNG for reading, with the one driver that its first bytes call for.

    Raises:
        TooLargeError: A header that promises more than `max_megapixels`, or 200,000 pixels a side.
        InputError: No such file, another format, more than 16 bands, pixels that are no real
            numbers, descriptions or units that are not UTF-8, or a CRS that names files.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(-min(len(_PNG_END), path.stat().st_size), os.SEEK_END)
            end = file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    driver = _MAGIC.get(magic)
    if driver is None:
        raise InputError(f"{path}: neither GeoTIFF nor PNG (first bytes {magic!r})")
    # GDAL fills what a truncated PNG lacks without a word.
    if driver == "PNG" and end != _PNG_END:
        raise InputError(f"{path}: truncated: a PNG ends with an IEND chunk; get it again")
    with rasterio.Env(**_GDAL):
        try:
            dataset = rasterio.open(path.resolve(), driver=driver)
        except RasterioError as error:
            raise InputError(f"{path}: not a readable {driver}: {error}") from error
        with dataset:
            _check_header(path, dataset, max_megapixels)
            yield dataset


@contextmanager
def writing_raster(path: Path) -> Iterator[None]:
    """Say of `path` what GDAL raises while it is written.

    Raises:
        SarfloodError: It cannot be written, such as on a full disk.
    """
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise SarfloodError(f"{path}: cannot be written ({error}); is the disk full?") from error


def _check_header(path: Path, dataset: DatasetReader, max_megapixels: int) -> None:
    if max(dataset.shape) > MAX_SIDE:
        raise TooLargeError(
            f"{path}: {dataset.width}×{dataset.height} pixels; at most {MAX_SIDE:,} a side"
        )
    megapixels = dataset.width * dataset.height / 1e6
    if megapixels > max_megapixels:
        raise TooLargeError(
            f"{path}: {dataset.width}×{dataset.height} pixels; at most {max_megapixels} megapixels"
        )
    if dataset.count > MAX_BANDS:
        raise InputError(f"{path}: {dataset.count} bands; at most {MAX_BANDS}")
    _check_crs(path, dataset)
    odd = set(dataset.dtypes) - _DTYPES
    if odd:
        raise InputError(f"{path}: pixels of type {', '.join(sorted(odd))}; need real numbers")
    try:
        _ = dataset.descriptions, dataset.units
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: a band's description or unit is not UTF-8 ({error}); write it anew"
        ) from error


def _check_crs(path: Path, dataset: DatasetReader) -> None:
    """Refuse a CRS that names files: PROJ would open them when it is used, wherever they lie."""
    try:
        wkt = dataset.crs.to_wkt() if dataset.crs else ""
    except (CRSError, CPLE_BaseError) as error:
        raise InputError(
            f"{path}: its CRS cannot be read ({error}); name the right one with "
            "`rio edit-info --crs EPSG:…`"
        ) from error
    if _CRS_FILES.search(wkt.replace(_web_mercator(), "")):
        raise InputError(
            f"{path}: its CRS names a file; give it one by number, with "
            "`rio edit-info --crs EPSG:…`"
        )


@lru_cache(maxsize=1)
def _web_mercator() -> str:
    """Return how WKT extends the one CRS of wide use that it does so for; it names no file."""
    found = re.search(r'EXTENSION\["PROJ4","[^"]*"\]', CRS.from_epsg(3857).to_wkt())
    return found[0] if found else "none"


def read_bands(
    dataset: DatasetReader, window: Window | None = None, bands: list[int] | None = None
) -> NDArray[np.float32]:
    """Read a window as (C, H, W) float32, with NaN where a band has no data.

    No data is what is not finite, what the file's nodata tag says, and what its mask band hides.

    Raises:
        InputError: The pixels cannot be decoded (a truncated or damaged file).
    """
    indexes = bands or list(dataset.indexes)
    # A mask band is read apart, at twice the cost: only where the file has one.
    flags = {flag for band in dataset.mask_flag_enums for flag in band}
    hidden = bool(flags & {MaskFlags.per_dataset, MaskFlags.alpha})
    try:
        values = dataset.read(indexes, window=window, masked=hidden)
    except RasterioError as error:
        raise InputError(f"{dataset.name}: damaged or truncated: {error}") from error
    image: NDArray[np.float32] = np.ma.getdata(values).astype(np.float32, copy=False)
    if hidden:
        image[np.ma.getmaskarray(values)] = np.nan
    for plane, index in zip(image, indexes, strict=True):
        nodata = dataset.nodatavals[index - 1]
        if nodata is not None and not np.isnan(nodata):
            plane[plane == np.float32(nodata)] = np.nan
    if values.dtype.kind == "f":
        image[np.isinf(image)] = np.nan
    return image
