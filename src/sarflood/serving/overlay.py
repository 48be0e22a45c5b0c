"""All that comes of one mapping in one form: figures, files, and pictures to lay on a web map."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

from sarflood.errors import InputError
from sarflood.mapping.look import WATER, stretched
from sarflood.mapping.outputs import (
    write_mask,
    write_polygons,
    write_probability,
)
from sarflood.mapping.scene import SceneMap
from sarflood.raster.grid import to_lon_lat
from sarflood.raster.patch import UNKNOWN

LONGEST = 2048  # pixels of a picture's longer side
# Speckle hardly compresses; the quickest level takes a sixth of the time of the usual one.
_QUICK = 1
_FINER = 4  # at most so many pixels of a picture for one of the scene
_RADIUS_M = 6_378_137.0  # of the sphere of Web Mercator (EPSG:3857)
_NORTHMOST = 85.05  # degrees; web maps end there
_ALONG_AN_EDGE = 33  # points of each edge of the scene that are projected


def write_form(
    result: SceneMap, summary: Mapping[str, Any], path: Path, *, max_polygons: int
) -> str:
    """Write a multipart form of all that comes of a map; return its content type.

    Its fields are `summary` and `overlay` (JSON), and the files `flood.tif`, `probability.tif`,
    `flood.geojson`, `radar.png` and `flood.png`. Both pictures are in Web Mercator, at most 2048
    pixels long, transparent where there are no data or no water; `overlay` has their `bounds`:
    west, south, east, north in degrees, where east may be beyond 180.

    Args:
        result: The map.
        summary: Its figures, `polygons` among them.
        path: Where to; files beside it are made on the way.
        max_polygons: Where there are more, `flood.geojson` is left out.

    Raises:
        InputError: The scene lies beyond 85.05 degrees of latitude, where web maps end.
        SarfloodError: A file cannot be written.
    """
    frame = _frame(result)
    mask, probability, outlines = (
        path.with_name(name) for name in ("flood.tif", "probability.tif", "flood.geojson")
    )
    write_mask(result, mask)
    write_probability(result, probability)
    files = [(mask, "image/tiff"), (probability, "image/tiff")]
    if summary["polygons"] <= max_polygons:
        write_polygons(result, outlines)
        files.append((outlines, "application/geo+json"))
    for picture, draw in (("radar.png", _radar), ("flood.png", _flood)):
        drawn = path.with_name(picture)
        draw(result, frame, mask).save(drawn, "PNG", compress_level=_QUICK)
        files.append((drawn, "image/png"))
    boundary = secrets.token_hex(16)
    with path.open("wb") as form:
        for name, content in (
            ("summary", summary),
            ("overlay", {"bounds": frame.bounds}),
        ):
            form.write(_head(boundary, name, "application/json"))
            form.write(json.dumps(content, allow_nan=False).encode())
        for file, kind in files:
            form.write(_head(boundary, f'{file.name}"; filename="{file.name}', kind))
            with file.open("rb") as part:
                shutil.copyfileobj(part, form)
        form.write(f"\r\n--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}"


def _head(boundary: str, name: str, kind: str) -> bytes:
    """Return what stands before a part (RFC 7578)."""
    return (
        f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    ).encode()


@dataclass(frozen=True)
class _Frame:
    """The grid of the pictures.

    Attributes:
        bounds: West, south, east, north in degrees; east may be beyond 180.
        crs: Web Mercator, but with the scene in its middle, so that no scene is cut at 180 degrees.
        transform: Pixel (column, row) to CRS coordinates.
        shape: Rows and columns.
        source: Pixel (column, row) of the scene to coordinates of its CRS; where those are degrees
            beyond 180, which GDAL does not take, the scene is turned with `crs` to longitude 0.
    """

    bounds: tuple[float, float, float, float]
    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    source: Affine


def _frame(result: SceneMap) -> _Frame:
    """Lay the grid around a scene."""
    lon, lat = _outline(result)
    west, east = float(lon.min()), float(lon.max())
    south, north = (
        float(edge) for edge in np.clip((lat.min(), lat.max()), -_NORTHMOST, _NORTHMOST)
    )
    if south >= north:
        raise InputError(
            f"the scene: lies beyond {_NORTHMOST} degrees of latitude, where web maps end; ask for "
            "image/tiff or application/geo+json"
        )
    right = _RADIUS_M * np.radians(east - west) / 2
    bottom, top = _RADIUS_M * np.log(np.tan(np.pi / 4 + np.radians((south, north)) / 2))
    longest = min(LONGEST, _FINER * max(result.mask.shape))
    step = max(2 * right, top - bottom) / longest
    height, width = (max(1, round(size / step)) for size in (top - bottom, 2 * right))
    middle, source = (west + east) / 2, result.transform
    raw_west, raw_east = source.c, source.c + source.a * result.mask.shape[1]
    if result.crs.is_geographic and not -180 <= raw_west <= raw_east <= 180:
        middle = 0.0
        source = Affine.translation(-(raw_west + raw_east) / 2, 0) @ source
    return _Frame(
        bounds=(west, south, east, north),
        crs=CRS.from_string(f"+proj=merc +a={_RADIUS_M} +b={_RADIUS_M} +lon_0={middle} +units=m"),
        source=source,
        transform=Affine(2 * right / width, 0, -right, 0, (bottom - top) / height, top),
        shape=(height, width),
    )


def _outline(result: SceneMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitudes, which run on beyond 180 degrees, and latitudes of a scene's edges."""
    height, width = result.mask.shape
    along = np.linspace(0.0, 1.0, _ALONG_AN_EDGE)
    start, end = np.zeros_like(along), np.ones_like(along)
    cols = np.concatenate((along, end, along[::-1], start)) * width
    rows = np.concatenate((start, along, end, along[::-1])) * height
    grid: Any = result.transform  # its types know single points alone
    lon, lat = to_lon_lat(result.crs).transform(*(grid @ (cols, rows)))
    lon = np.unwrap(lon, period=360)
    return lon - 360 * np.floor((lon.min() + 180) / 360), np.asarray(lat)


def _radar(result: SceneMap, frame: _Frame, _: Path) -> Image.Image:
    """Draw the first band: grey and alpha."""
    values = np.full(frame.shape, np.nan, np.float32)
    reproject(
        result.backscatter,
        values,
        src_transform=frame.source @ Affine.scale(result.backscatter_step),
        src_crs=result.crs,
        src_nodata=np.nan,
        dst_transform=frame.transform,
        dst_crs=frame.crs,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
    )
    return _picture(np.rint(stretched(values) * 255), np.isfinite(values) * 255)


def _flood(result: SceneMap, frame: _Frame, mask: Path) -> Image.Image:
    """Draw the water: its colour, and as alpha how much of each pixel is wet."""
    height, width = frame.shape
    with (
        rasterio.open(mask, driver="GTiff") as dataset,  # which is read by parts
        WarpedVRT(
            dataset,
            src_transform=frame.source,
            src_crs=result.crs,
            src_nodata=UNKNOWN,
            transform=frame.transform,
            crs=frame.crs,
            height=height,
            width=width,
            nodata=np.nan,
            dtype="float32",
            resampling=Resampling.average,  # so that the smallest water is not lost
        ) as warped,
    ):
        wet = np.rint(np.nan_to_num(warped.read(1)) * 255)
    colour = [int(WATER[place : place + 2], 16) for place in (1, 3, 5)]
    return _picture(*(np.full_like(wet, level) for level in colour), wet)


def _picture(*planes: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))
