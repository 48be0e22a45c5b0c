"""Masks that come as polygons, burned onto a scene's grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.io import DatasetReader
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from sarflood.errors import InputError
from sarflood.raster.patch import DRY, WET
from sarflood.raster.vector import read_polygons
from sarflood.sources.reader import BadSourceError

SUFFIXES = (".geojson", ".gpkg")
_MAX_POLYGONS = 500_000


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
    try:
        there = read_polygons(path, scene.crs.to_wkt(), at_most=_MAX_POLYGONS).geometries
    except InputError as error:
        raise BadSourceError(str(error)) from error
    if not there.size:
        raise BadSourceError(f"{path}: no polygon; for a dry scene give mask.tif with 0 throughout")
    bounds = shapely.box(*scene.bounds)
    if not shapely.intersects(there, bounds).any():
        raise BadSourceError(
            f"{path}: no polygon lies on the scene; is its CRS what its numbers are in?"
        )
    return Outlines(shapely.STRtree(there))
