"""Masks that come as polygons, burned onto a scene's grid."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio.features import rasterize
from rasterio.io import DatasetReader
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from sarflood.raster.patch import DRY, WET
from sarflood.sources.reader import BadSourceError

SUFFIXES = (".geojson", ".gpkg")
_MAX_BYTES = 512 * 2**20
_MAX_POLYGONS = 500_000
_DRIVERS = {".geojson": "GeoJSON", ".gpkg": "GPKG"}
_MAGIC = {".geojson": b"{", ".gpkg": b"SQLite format 3\x00"}


@dataclass(frozen=True)
class Outlines:
    """Wet areas as polygons in the coordinates of a scene.

    Attributes:
        tree: Of the polygons.
    """

    tree: shapely.STRtree

    def burn(self, scene: DatasetReader, window: Window) -> NDArray[np.uint8]:
        """Return (H, W) uint8 of a window: 1 where a pixel's centre lies in a polygon, else 0."""
        transform = window_transform(window, scene.transform)
        corners = [
            transform @ corner
            for corner in (
                (0, 0),
                (window.width, 0),
                (window.width, window.height),
                (0, window.height),
            )
        ]
        near = self.tree.geometries[self.tree.query(shapely.Polygon(corners))]
        shape = (int(window.height), int(window.width))
        if not len(near):
            return np.full(shape, DRY, np.uint8)
        mask: NDArray[np.uint8] = rasterize(
            ((outline, WET) for outline in near),
            out_shape=shape,
            fill=DRY,
            transform=transform,
            dtype="uint8",
        )
        return mask


def read_outlines(path: Path, scene: DatasetReader) -> Outlines:
    """Read polygons of a GeoJSON or GeoPackage file in the scene's CRS.

    Raises:
        BadSourceError: It is too large, not what its suffix says, has no or other geometries than
            polygons, names no CRS that leads to the scene's, or none of it lies on the scene.
    """
    if scene.crs is None:
        raise BadSourceError(f"{path}: polygons need a scene with a georeference")
    geometries, crs = _read(path)
    if not geometries.size:
        raise BadSourceError(f"{path}: no polygon; for a dry scene give mask.tif with 0 throughout")
    kinds = set(shapely.get_type_id(geometries).tolist()) - {3, 6}
    if kinds:
        raise BadSourceError(
            f"{path}: geometries of types {sorted(kinds)}; a mask is polygons or multipolygons"
        )
    try:
        transformer = Transformer.from_crs(crs, CRS.from_wkt(scene.crs.to_wkt()), always_xy=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            there = shapely.transform(geometries, transformer.transform, interleaved=False)
    except (ProjError, RuntimeWarning) as error:
        raise BadSourceError(f"{path}: CRS {crs} does not lead to the scene's: {error}") from error
    invalid = ~shapely.is_valid(there)
    there[invalid] = shapely.make_valid(there[invalid])
    bounds = shapely.box(*scene.bounds)
    if not shapely.intersects(there, bounds).any():
        raise BadSourceError(
            f"{path}: no polygon lies on the scene; is its CRS ({crs}) what its numbers are in?"
        )
    return Outlines(shapely.STRtree(there))


def _read(path: Path) -> tuple[NDArray[np.object_], str]:
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FieldError

    suffix = path.suffix.lower()
    if path.stat().st_size > _MAX_BYTES:
        raise BadSourceError(f"{path}: more than {_MAX_BYTES >> 20} MiB of polygons; simplify them")
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start.startswith(_MAGIC[suffix]):
        raise BadSourceError(f"{path}: not {_DRIVERS[suffix]}: begins with {start[:8]!r}")
    try:
        layers = pyogrio.list_layers(path)
        if len(layers) != 1:
            raise BadSourceError(f"{path}: {len(layers)} layers; a mask has one")
        meta, _, geometry, _ = pyogrio.raw.read(path, columns=[], max_features=_MAX_POLYGONS + 1)
        outlines = shapely.from_wkb(geometry)
    except (DataSourceError, DataLayerError, FieldError, shapely.errors.GEOSException) as error:
        raise BadSourceError(f"{path}: cannot be read as {_DRIVERS[suffix]}: {error}") from error
    if len(outlines) > _MAX_POLYGONS:
        raise BadSourceError(f"{path}: more than {_MAX_POLYGONS:,} polygons; merge them")
    if meta["crs"] is None:
        raise BadSourceError(f"{path}: no CRS; write it with one")
    return outlines[~shapely.is_missing(outlines)], meta["crs"]
