"""Sentinel-1 GRD products in their SAFE folders: calibrated to sigma nought, and geocoded.

The format is that of the Sentinel-1 Product Specification (S1-RS-MDA-52-7441). With DN a pixel,
A its calibration constant and η the thermal noise, both bilinear between the entries of the
product's tables, sigma nought is (DN² − η) / A² (Radiometric calibration of Level-1 products,
ESA-EOPG-CSCOP-TN-0002; Thermal denoising of products, MPC-0392). Pixels are placed by the product's
geolocation grid, a thin plate spline through its points, which have the height of the terrain on
average alone: there is no terrain correction, so that slopes lie off by up to their height.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, parse
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import calculate_default_transform, reproject
from rasterio.windows import Window

from sarflood.errors import InputError
from sarflood.files import replacing
from sarflood.raster.safe import MAX_MEGAPIXELS, open_raster, writing_raster
from sarflood.raster.terrain import Orbit, orbit_of

_MEASUREMENT = re.compile(r"s1[abcd]-(iw|ew|s[1-6])-grd-(vv|vh|hh|hv)-.*\.tiff?", re.IGNORECASE)
_LARGEST_XML_BYTES = 64 * 2**20
_ROWS = 512  # are calibrated at a time
_BELOW_NOISE = 1e-5  # of sigma nought, where the noise is more than the signal: -50 dB
PIXEL_M = 10.0
_WARP_MEGABYTES = 128
_ENDS = (("first", 0), ("last", 1))


@dataclass(frozen=True)
class Table:
    """Values along some lines of an image, linear in between, and in blocks a factor along lines.

    Attributes:
        lines: (n,) in order.
        vectors: Of each line its pixels and their values.
        blocks: Rows, columns, lines, and their factors.
    """

    lines: NDArray[np.float64]
    vectors: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
    blocks: tuple[tuple[slice, slice, NDArray[np.float64], NDArray[np.float64]], ...] = ()

    def values(self, top: int, height: int, width: int) -> NDArray[np.float32]:
        """Return (height, width) values of the rows from `top` on."""
        rows, cols = np.arange(top, top + height), np.arange(width)
        place = np.interp(rows, self.lines, np.arange(len(self.lines)))
        first, last = int(place[0]), int(np.ceil(place[-1]))
        across = np.stack([np.interp(cols, *self.vectors[n]) for n in range(first, last + 1)])
        low = np.minimum(place.astype(np.int64), max(last - 1, first))
        weight = (place - low)[:, None]
        high = np.minimum(low + 1, last)
        found = across[low - first] * (1 - weight) + across[high - first] * weight
        for down, along, lines, factors in self.blocks:
            inside = (rows >= down.start) & (rows < down.stop)
            found[inside, along] *= np.interp(rows[inside], lines, factors)[:, None]
        result: NDArray[np.float32] = found.astype(np.float32)
        return result


@dataclass(frozen=True)
class GrdImage:
    """One polarisation of a product: its pixels, and the tables that belong to it."""

    pixels: Path
    annotation: Path
    calibration: Path
    noise: Path


def is_safe(path: Path) -> bool:
    """Say whether a path is a SAFE folder of Sentinel-1."""
    return path.is_dir() and (path / "manifest.safe").is_file()


def grd_images(safe: Path) -> dict[str, GrdImage]:
    """Return the images of a GRD product by their polarisation, such as `vv`.

    Raises:
        InputError: It is another kind of product, or a file is missing.
    """
    found: dict[str, GrdImage] = {}
    for pixels in sorted((safe / "measurement").glob("*")):
        match = _MEASUREMENT.fullmatch(pixels.name)
        if not match:
            raise InputError(f"{pixels}: not an image of a GRD product; SLC and OCN are not mapped")
        name = f"{pixels.stem}.xml"
        folder = safe / "annotation"
        image = GrdImage(
            pixels,
            folder / name,
            folder / "calibration" / f"calibration-{name}",
            folder / "calibration" / f"noise-{name}",
        )
        for path in (image.annotation, image.calibration, image.noise):
            if not path.is_file():
                raise InputError(f"{path}: missing; the product is not whole, get it again")
        found[match[2].lower()] = image
    if not found:
        raise InputError(f"{safe}: no image in {safe / 'measurement'}; get the product again")
    return found


def flown(safe: Path) -> Orbit | None:
    """Return which way the satellite flew, as a product's annotation says; None where it does not.

    Raises:
        InputError: As `grd_images`, or the annotation is damaged.
    """
    annotation = next(iter(grd_images(safe).values())).annotation
    return orbit_of(_root(annotation).findtext(".//productInformation/pass") or "")


def geocode(image: GrdImage, path: Path) -> None:
    """Write one polarisation as a GeoTIFF of sigma nought, linear, on a UTM grid of 10 m.

    Args:
        image: Of the product.
        path: Where to; whole or not at all. NaN is no data.

    Raises:
        InputError: A file is damaged, or does not fit the others.
        SarfloodError: The image cannot be written, such as on a full disk.
    """
    points = _geolocation(image.annotation)
    calibration = _vectors(image.calibration, "calibrationVector", "sigmaNought")
    noise = _noise(image.noise)
    middle = points[len(points) // 2]
    zone = int((middle.x + 180) // 6) % 60 + 1
    crs = CRS.from_epsg((32600 if middle.y >= 0 else 32700) + zone)
    # Longitudes are told from the meridian in the middle, so that none lies beyond 180 degrees.
    meridian = round(middle.x)
    for point in points:
        point.x = (point.x - meridian + 180) % 360 - 180
    lon_lat = CRS.from_proj4(f"+proj=longlat +datum=WGS84 +pm={meridian} +no_defs")
    with (
        open_raster(image.pixels) as raw,
        replacing(path.with_suffix(".radar.tif")) as radar,
        writing_raster(path),
    ):
        _calibrate(raw, radar, calibration, noise, points, lon_lat)
        _warp(radar, path, crs)


def _calibrate(
    raw: DatasetReader,
    path: Path,
    calibration: Table,
    noise: Table,
    points: list[GroundControlPoint],
    lon_lat: CRS,
) -> None:
    """Write sigma nought on the grid of the radar, its points in the CRS `lon_lat`."""
    profile = {"count": 1, "dtype": "float32", "nodata": np.nan, "bigtiff": "if_safer"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=raw.height,
        width=raw.width,
        gcps=points,
        crs=lon_lat,
        tiled=True,
        **profile,
    ) as out:
        for top in range(0, raw.height, _ROWS):
            window = Window(0, top, raw.width, min(_ROWS, raw.height - top))
            try:
                counts = raw.read(1, window=window).astype(np.float32)
            except RasterioError as error:
                raise InputError(f"{raw.name}: damaged or truncated: {error}") from error
            power = counts**2
            power -= noise.values(top, *counts.shape)
            power /= calibration.values(top, *counts.shape) ** 2
            np.maximum(power, _BELOW_NOISE, out=power)
            power[counts == 0] = np.nan
            out.write(power, 1, window=window)


def _warp(radar: Path, path: Path, crs: CRS) -> None:
    """Write an image on the grid of the radar on a map's grid."""
    with rasterio.open(radar) as source:
        points, lon_lat = source.gcps
        transform, width, height = calculate_default_transform(
            lon_lat, crs, source.width, source.height, gcps=points, resolution=PIXEL_M
        )
        if width * height > MAX_MEGAPIXELS * 1e6:
            raise InputError(
                f"{path}: geocoded it has {width}×{height} pixels; its geolocation grid is damaged"
            )
        place = {"crs": crs, "transform": transform, "width": width, "height": height}
        profile = {"count": 1, "dtype": "float32", "nodata": np.nan, "bigtiff": "if_safer"}
        blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True}
        with (
            replacing(path) as temporary,
            rasterio.open(temporary, "w", driver="GTiff", **place, **profile, **blocks) as out,
        ):
            reproject(
                rasterio.band(source, 1),
                rasterio.band(out, 1),
                gcps=points,
                src_crs=lon_lat,
                src_nodata=np.nan,
                dst_nodata=np.nan,
                resampling=Resampling.bilinear,
                warp_mem_limit=_WARP_MEGABYTES,
                SRC_METHOD="GCP_TPS",
            )


def _geolocation(path: Path) -> list[GroundControlPoint]:
    """Read the geolocation grid of an annotation."""
    points = [
        GroundControlPoint(
            _number(path, point, "line") + 0.5,  # the middle of the pixel
            _number(path, point, "pixel") + 0.5,
            _number(path, point, "longitude"),
            _number(path, point, "latitude"),
            _number(path, point, "height"),
        )
        for point in _root(path).iter("geolocationGridPoint")
    ]
    if len(points) < 4:
        raise InputError(f"{path}: {len(points)} points of a geolocation grid; get it again")
    return points


def _vectors(path: Path, kind: str, values: str) -> Table:
    """Read a table of vectors."""
    found = sorted(
        (_number(path, item, "line"), _numbers(path, item, "pixel"), _numbers(path, item, values))
        for item in _root(path).iter(kind)
    )
    fits = all(len(pixels) == len(along) > 0 for _, pixels, along in found)
    if not found or not fits or min(min(along) for _, _, along in found) < 0:
        raise InputError(f"{path}: no whole table of {values}; get the product again")
    lines = np.array([line for line, _, _ in found])
    return Table(lines, [(np.array(pixels), np.array(along)) for _, pixels, along in found])


def _noise(path: Path) -> Table:
    """Read the table of thermal noise: along the range, and since 2018 along the azimuth, too."""
    root = _root(path)
    if root.find(".//noiseRangeVector") is None:
        return _vectors(path, "noiseVector", "noiseLut")
    blocks = []
    for item in root.iter("noiseAzimuthVector"):
        lines, factors = (_numbers(path, item, name) for name in ("line", "noiseAzimuthLut"))
        if len(lines) != len(factors):
            raise InputError(f"{path}: no whole table of noiseAzimuthLut; get the product again")
        down, along = (
            slice(
                int(_number(path, item, f"first{name}")),
                int(_number(path, item, f"last{name}")) + 1,
            )
            for name in ("AzimuthLine", "RangeSample")
        )
        blocks.append((down, along, np.array(lines), np.array(factors)))
    table = _vectors(path, "noiseRangeVector", "noiseRangeLut")
    return Table(table.lines, table.vectors, tuple(blocks))


def _root(path: Path) -> Any:
    """Parse an XML file; one that could do harm is refused."""
    if path.stat().st_size > _LARGEST_XML_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes; an annotation has a few megabytes")
    try:
        return parse(path).getroot()
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise InputError(f"{path}: not a readable annotation ({error})") from error


def _number(path: Path, item: Any, name: str) -> float:
    return _numbers(path, item, name)[0]


def _numbers(path: Path, item: Any, name: str) -> list[float]:
    text = item.findtext(name) or ""
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if not values or not np.isfinite(values).all():
        raise InputError(f"{path}: {item.tag} has no number under {name}; get the product again")
    return values
