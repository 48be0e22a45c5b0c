"""Pixels of source files: opened safely, checked, and cut into patches."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from sarflood.errors import InputError
from sarflood.raster.grid import check_same_grid, to_lon_lat
from sarflood.raster.names import bands_by_name
from sarflood.raster.patch import PATCH, UNKNOWN
from sarflood.raster.safe import open_raster, read_bands
from sarflood.sources.reader import BadSourceError, Item, RawPatch

# PNGs never have a georeference. Set once: `catch_warnings` is not for threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_MAX_LON, _MAX_LAT = 360.0, 90.0  # degrees; a scene in EPSG:4326 may run on beyond 180
MAX_CHIP_MEGAPIXELS = 16  # chips are read whole, scenes by windows
FLOATS = ("float32", "float64")
_UNKNOWN_OF = {"uint8": 255, "int8": -1, "int16": -1}  # what a mask of a type has as no data


@contextmanager
def open_source(path: Path, *, chip: bool = True) -> Iterator[DatasetReader]:
    """Open a file of a source for reading.

    Args:
        path: A GeoTIFF or PNG.
        chip: Whether it will be read whole, and must be small enough for that.

    Raises:
        BadSourceError: It cannot be opened safely, or what is done with it raises `InputError`,
            such as for damaged pixels.
    """
    limit = {"max_megapixels": MAX_CHIP_MEGAPIXELS} if chip else {}
    try:
        with open_raster(path, **limit) as dataset:
            yield dataset
    except BadSourceError:
        raise
    except InputError as error:
        raise BadSourceError(str(error)) from error


def on_grid(
    stack: ExitStack,
    item: Item,
    like: tuple[Path, DatasetReader],
    other: tuple[Path, DatasetReader],
    *,
    mask: bool = False,
) -> DatasetReader:
    """Return a raster on the grid of another: itself, or warped where the item allows it.

    Images are warped bilinearly, masks to the nearest pixel; what the file does not cover is no
    data.

    Args:
        stack: Closes the warped raster.
        item: Says whether warping is wanted.
        like: The path and the raster whose grid is meant.
        other: The path and the raster to be read.
        mask: Whether `other` is a mask.

    Raises:
        BadSourceError: The grids differ, and the item is not to be warped or cannot be.
    """
    try:
        check_same_grid(*like, *other)
    except InputError as error:
        dataset = other[1]
        if not item.reproject:
            raise BadSourceError(f"{error}, or ingest with --reproject") from error
        if None in (like[1].crs, dataset.crs):
            raise BadSourceError(f"{error}; without a CRS it cannot be warped") from error
        options = {"resampling": Resampling.bilinear, "dtype": "float32", "nodata": np.nan}
        if mask:
            unknown = np.nan if dataset.dtypes[0] in FLOATS else _UNKNOWN_OF[dataset.dtypes[0]]
            options = {"resampling": Resampling.nearest, "nodata": unknown}
        grid = like[1]
        warped: DatasetReader = stack.enter_context(
            WarpedVRT(
                dataset,
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
                **options,
            )
        )
        return warped
    return other[1]


def check_pixels(
    path: Path, dataset: DatasetReader, *, bands: int, dtypes: tuple[str, ...]
) -> None:
    """Refuse a file with another number of bands or another type of pixels than its layout has."""
    if dataset.count != bands:
        raise BadSourceError(f"{path}: {dataset.count} band(s) where {bands} belong(s)")
    if dataset.dtypes[0] not in dtypes:
        raise BadSourceError(
            f"{path}: pixels of type {dataset.dtypes[0]}; this layout has {' or '.join(dtypes)}"
        )


def polarisations(path: Path, dataset: DatasetReader) -> list[int]:
    """Return the numbers of the VV and the VH band, by description, or 1 and 2 where none says.

    Raises:
        InputError: The descriptions do not tell, or there are not two bands.
    """
    bands = bands_by_name(path, dataset, one_date=True)
    if {"vv", "vh"} <= bands.keys():
        return [bands["vv"], bands["vh"]]
    if not bands and dataset.count == 2:
        return [1, 2]
    raise BadSourceError(
        f"{path}: {dataset.count} band(s) described as {dataset.descriptions}; need one VV and "
        "one VH band by description, or two without, VV first"
    )


def georeference(dataset: DatasetReader) -> tuple[str | None, Affine | None]:
    """Return the CRS and the transform of a raster, None each where it has no georeference.

    Raises:
        BadSourceError: The CRS does not lead to longitude and latitude, or the corners do not lie
            on the globe.
    """
    if dataset.crs is None or dataset.transform.is_identity:
        return None, None
    crs = dataset.crs.to_string()
    (left, top), (right, bottom) = (
        dataset.transform @ place for place in ((0, 0), (dataset.width, dataset.height))
    )
    try:
        to_globe = _to_globe(crs, threading.get_ident())
        lon, lat = to_globe.transform((left, right), (top, bottom), errcheck=True)
    except ProjError as error:
        raise BadSourceError(
            f"{dataset.name}: its CRS ({crs[:60]}) and transform lead to no place on the globe: "
            f"{error}; write the right ones"
        ) from error
    if max(map(abs, lon)) > _MAX_LON or max(map(abs, lat)) > _MAX_LAT:
        raise BadSourceError(
            f"{dataset.name}: a corner lies at longitude {lon[0]:g}, latitude {lat[0]:g}: CRS "
            f"({crs[:60]}) and transform do not belong together"
        )
    return crs, dataset.transform


@lru_cache(maxsize=64)
def _to_globe(crs: str, thread: int) -> Transformer:  # noqa: ARG001
    """Return the transformation to longitude and latitude: one a thread, for it is not shared."""
    return to_lon_lat(CRS.from_string(crs))


def read_mask(
    path: Path, dataset: DatasetReader, meaning: Mapping[int, int], window: Window | None = None
) -> NDArray[np.uint8]:
    """Read a one-band mask as (H, W) uint8: 0 dry, 1 wet or another class, 255 unknown.

    Args:
        path: The file, for messages.
        dataset: The mask, opened.
        meaning: The values that the layout has, and what each becomes. No data becomes unknown.
        window: What to read; by default all.

    Raises:
        BadSourceError: Another value stands in the mask, or its nodata tag hides a class.
    """
    refuse_hidden(path, dataset, meaning)
    return as_mask(path, read_bands(dataset, window, [1])[0], meaning)


def refuse_hidden(path: Path, dataset: DatasetReader, meaning: Mapping[int, int]) -> None:
    """Refuse a mask whose nodata tag hides a class; see `read_mask`."""
    if any(value == dataset.nodata for value, code in meaning.items() if code != UNKNOWN):
        raise BadSourceError(
            f"{path}: nodata tag {dataset.nodata:g} hides a class of the mask; remove the tag"
        )


def as_mask(
    path: Path, values: NDArray[np.float32], meaning: Mapping[int, int]
) -> NDArray[np.uint8]:
    """Turn the values of a mask into classes; see `read_mask`.

    Args:
        path: The file, for messages.
        values: (H, W) as the file has them; NaN is no data.
        meaning: The values that the layout has, and what each becomes.
    """
    mask = np.full(values.shape, UNKNOWN, np.uint8)
    known = np.isnan(values)
    for value, code in meaning.items():
        here = values == value
        mask[here] = code
        known |= here
    if not known.all():
        odd = ", ".join(f"{value:g}" for value in np.unique(values[~known])[:5])
        allowed = ", ".join(map(str, meaning))
        raise BadSourceError(f"{path}: mask values {odd}; allowed are {allowed}")
    return mask


@dataclass(frozen=True)
class PatchGrid:
    """The patches of 256×256 that cover an image; the last ones are padded, none is dropped.

    Attributes:
        name: Of the image.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        crs: The image's CRS.
        transform: Pixel (column, row) of the image to CRS coordinates.
        dtype: Of the pixels in the file.
    """

    name: str
    height: int
    width: int
    crs: str | None = None
    transform: Affine | None = None
    dtype: str = "float32"

    @property
    def rows(self) -> range:
        """The rows of patches."""
        return range(_count(self.height))

    def windows(self, cols: int, only: int | None = None) -> Iterator[tuple[int, int, Window]]:
        """Give pieces of one row and at most `cols` columns of patches, row by row.

        Args:
            cols: Of a piece.
            only: The one row that is wanted; by default all.

        Yields:
            The row and the first column of a piece, and its pixels.
        """
        for row in self.rows if only is None else (only,):
            for col in range(0, _count(self.width), cols):
                top, left = row * PATCH, col * PATCH
                height = min(PATCH, self.height - top)
                yield row, col, Window(left, top, min(cols * PATCH, self.width - left), height)

    def cut(
        self, image: NDArray[np.float32], mask: NDArray[np.uint8] | None, row: int, col: int
    ) -> Iterator[RawPatch]:
        """Cut a piece of one row of patches; see `windows`.

        Args:
            image: (C, h, w) float32, h at most 256.
            mask: (h, w) uint8, or None.
            row: Of the piece.
            col: The piece's first column.

        Yields:
            Patches whose padding is NaN in the image and 255 in the mask; those that need none
            share the piece's memory.
        """
        digits = len(str(max(_count(self.height), _count(self.width)) - 1))  # sort as the grid does
        for number in range(_count(image.shape[2])):
            across = slice(number * PATCH, (number + 1) * PATCH)
            place = Affine.translation((col + number) * PATCH, row * PATCH)
            yield RawPatch(
                name=f"{self.name}-{row:0{digits}d}-{col + number:0{digits}d}",
                image=_padded(image[:, :, across], np.nan),
                mask=_padded_mask(None if mask is None else mask[:, across]),
                grid=self.name,
                row=row,
                col=col + number,
                crs=self.crs,
                transform=self.transform and self.transform @ place,
                height=image.shape[1],
                width=image[0, 0, across].size,
                dtype=self.dtype,
            )


def cut_patches(
    name: str,
    image: NDArray[np.float32],
    mask: NDArray[np.uint8] | None,
    crs: str | None = None,
    transform: Affine | None = None,
    dtype: str = "float32",
) -> Iterator[RawPatch]:
    """Cut a chip into patches, row by row; one that is no larger than a patch has no grid.

    Args:
        name: The chip's name: of the patch itself, or of the grid where there are several.
        image: (C, H, W) float32.
        mask: (H, W) uint8, or None.
        crs: The chip's CRS.
        transform: Pixel (column, row) of the chip to CRS coordinates.
        dtype: Of the pixels in the file.
    """
    height, width = image.shape[1:]
    if max(height, width) <= PATCH:
        yield RawPatch(
            name=name,
            image=_padded(image, np.nan),
            mask=_padded_mask(mask),
            crs=crs,
            transform=transform,
            height=height,
            width=width,
            dtype=dtype,
        )
        return
    grid = PatchGrid(name, height, width, crs, transform, dtype)
    for row, col, window in grid.windows(_count(width)):
        rows = slice(window.row_off, window.row_off + window.height)
        yield from grid.cut(image[:, rows], None if mask is None else mask[rows], row, col)


def _count(pixels: int) -> int:
    """Return how many patches cover `pixels` pixels."""
    return -(-pixels // PATCH)


def _padded(image: NDArray[np.float32], fill: float) -> NDArray[np.float32]:
    if image.shape[1:] == (PATCH, PATCH):
        return image
    padded = np.full((image.shape[0], PATCH, PATCH), fill, np.float32)
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded


def _padded_mask(mask: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    if mask is None:
        return None
    if mask.shape == (PATCH, PATCH):
        return mask
    padded = np.full((PATCH, PATCH), UNKNOWN, np.uint8)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded
