"""Polygons in files that come from outside: checked, and moved onto a raster's CRS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from sarflood.errors import InputError
from sarflood.raster.grid import Grid

_MAX_BYTES = 512 * 2**20
_FORMATS = {  # and how they begin
    ".geojson": ("GeoJSON", b"{"),
    ".json": ("GeoJSON", b"{"),
    ".gpkg": ("GPKG", b"SQLite format 3\x00"),
    ".shp": ("ESRI Shapefile", b"\x00\x00\x27\x0a"),
}
SUFFIXES = tuple(_FORMATS)
_REACH = 60  # degrees
_ALONG_AN_EDGE = 9  # places of a raster that are asked for their longitude and latitude
_POLYGONS = {3, 6}  # GEOS's numbers of polygons and multipolygons


@dataclass(frozen=True)
class PolygonFile:
    """What a file of polygons holds.

    Attributes:
        geometries: (N,) valid polygons and multipolygons in the wanted CRS.
        fields: (N,) text of each text field, None where there is none.
    """

    geometries: NDArray[np.object_]
    fields: dict[str, NDArray[np.object_]]


def read_polygons(path: Path, crs: str, *, at_most: int, near: Grid | None = None) -> PolygonFile:
    """Read polygons of a GeoJSON, GeoPackage or Shapefile with one layer.

    Args:
        path: The file; its suffix says which.
        crs: As WKT; what the polygons are moved to.
        at_most: With more of them the file is refused.
        near: Polygons that lie on other degrees of longitude and latitude than this raster become
            empty: a projection may turn the other side of the Earth into anything.

    Raises:
        InputError: It is too large, not what its suffix says, has no or other geometries than
            polygons, or names no CRS that leads to the wanted one, or one of them reaches to where
            the wanted one does not.
    """
    geometries, found_crs, fields = _read(path, at_most)
    is_there = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    geometries = geometries[is_there]
    kinds = set(shapely.get_type_id(geometries).tolist()) - _POLYGONS
    if kinds:
        raise InputError(
            f"{path}: geometries of types {sorted(kinds)}; polygons or multipolygons are needed"
        )
    try:
        if near:
            geometries[_is_far(path, geometries, found_crs, near)] = shapely.Polygon()
        transformer = Transformer.from_crs(found_crs, CRS.from_wkt(crs), always_xy=True)
        moved = shapely.transform(geometries, transformer.transform, interleaved=False)
    except ProjError as error:
        raise InputError(
            f"{path}: CRS {found_crs} does not lead to the scene's: {error}"
        ) from error
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise InputError(
            f"{path}: CRS {found_crs} does not lead to the scene's from all places of a polygon; "
            "name the CRS that its numbers are of, or cut it off"
        )
    invalid = ~shapely.is_valid(moved)
    moved[invalid] = [polygons_of(item) for item in shapely.make_valid(moved[invalid])]
    return PolygonFile(moved, {name: values[is_there] for name, values in fields.items()})


def _is_far(path: Path, geometries: NDArray[np.object_], crs: str, near: Grid) -> NDArray[np.bool_]:
    """Say which polygons share no degree of longitude and latitude with a raster.

    Raises:
        InputError: One does, and reaches to where a projection of the raster's place may fail.
    """
    edge = np.linspace(0.0, 1.0, _ALONG_AN_EDGE)
    cols, rows = (values.ravel() for values in np.meshgrid(edge * near.width, edge * near.height))
    lon, lat = near.lon_lat(cols, rows)
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # beyond 180 rather than torn apart there
    lead = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    far = np.zeros(len(geometries), np.bool_)
    for number, bounds in enumerate(shapely.bounds(geometries)):
        west, south, east, north = lead.transform_bounds(*bounds)
        east += 360 * (west > east)
        low, high = lon.min() - 1, lon.max() + 1
        meets = [t for t in (-360, 0, 360) if west + t <= high and east + t >= low]
        far[number] = not meets or south > lat.max() + 1 or north < lat.min() - 1
        if not far[number] and (west + meets[0] < low - _REACH or east + meets[0] > high + _REACH):
            raise InputError(
                f"{path}: polygon {number + 1} reaches more than {_REACH}° of longitude from the "
                "scene; cut it to the country"
            )
    return far


def polygons_of(geometry: shapely.Geometry) -> shapely.MultiPolygon:
    """Leave out the lines and points that mending or clipping a polygon may leave."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return shapely.MultiPolygon(parts[shapely.get_type_id(parts) == 3].tolist())


def _read(
    path: Path, at_most: int
) -> tuple[NDArray[np.object_], str, dict[str, NDArray[np.object_]]]:
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FieldError

    driver, magic = _FORMATS[path.suffix.lower()]
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: more than {_MAX_BYTES >> 20} MiB of polygons; simplify them")
        with path.open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n" if driver == "GeoJSON" else b"")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not start.startswith(magic):
        raise InputError(f"{path}: not {driver}: begins with {start[:8]!r}")
    try:
        layers = pyogrio.list_layers(path)
        if len(layers) != 1:
            raise InputError(f"{path}: {len(layers)} layers; polygons are taken from one alone")
        info = pyogrio.read_info(path)
        kinds = zip(info["fields"], info["ogr_types"], strict=True)
        text = [name for name, kind in kinds if kind == "OFTString"]
        meta, _, wkb, columns = pyogrio.raw.read(path, columns=text, max_features=at_most + 1)
        outlines = shapely.from_wkb(wkb)
    except (
        DataSourceError,
        DataLayerError,
        FieldError,
        UnicodeDecodeError,
        shapely.errors.GEOSException,
    ) as error:
        raise InputError(f"{path}: cannot be read as {driver}: {error}") from error
    if len(outlines) > at_most:
        raise InputError(f"{path}: more than {at_most:,} polygons; merge them")
    if meta["crs"] is None:
        raise InputError(f"{path}: no CRS; write it with one")
    return outlines, meta["crs"], dict(zip(meta["fields"].tolist(), columns, strict=True))
