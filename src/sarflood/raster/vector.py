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
_BESIDE = 1  # degrees from a raster, within which a polygon is near
_REACH = 60  # degrees of longitude; beyond, UTM and its like fold over
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
        near: Parts of polygons on other degrees of longitude and latitude than this raster's are
            left out, and polygons without others are empty: its CRS may lead anywhere from there.

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
            geometries = _parts_near(path, geometries, found_crs, near)
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


def _parts_near(
    path: Path, geometries: NDArray[np.object_], crs: str, grid: Grid
) -> NDArray[np.object_]:
    """Keep the parts of polygons that share degrees of longitude and latitude with a raster.

    Raises:
        InputError: A part lies nowhere on the Earth; or it is near, and reaches so far that the
            raster's CRS may lead anywhere.
    """
    edge = np.linspace(0.0, 1.0, _ALONG_AN_EDGE)
    cols, rows = (values.ravel() for values in np.meshgrid(edge * grid.width, edge * grid.height))
    lon, lat = grid.lon_lat(cols, rows)
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # on beyond 180 degrees, not torn apart there
    low, high = lon.min() - _BESIDE, lon.max() + _BESIDE
    to_lon_lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    parts, owners = shapely.get_parts(geometries, return_index=True)
    near = np.zeros(len(parts), np.bool_)
    for number, bounds in enumerate(shapely.bounds(parts)):
        west, south, east, north = to_lon_lat.transform_bounds(*bounds)
        if not (max(abs(west), abs(east)) <= 360 and max(abs(south), abs(north)) <= 90):
            raise InputError(
                f"{path}: polygon {owners[number] + 1} does not lie on the Earth by {crs}; name "
                "the CRS that its numbers are of"
            )
        if west > east:
            east += 360
        turns = [turn for turn in (-360, 0, 360) if west + turn <= high and east + turn >= low]
        if not turns or south > lat.max() + _BESIDE or north < lat.min() - _BESIDE:
            continue
        near[number] = True
        if west + turns[0] < low - _REACH or east + turns[0] > high + _REACH:
            raise InputError(
                f"{path}: polygon {owners[number] + 1} reaches more than {_REACH}° of longitude "
                "from the scene; cut it to the country"
            )
    kept = np.full(len(geometries), shapely.MultiPolygon(), dtype=object)
    shapely.multipolygons(parts[near], indices=owners[near], out=kept)
    return kept


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
