"""GeoPackages, written layer by layer and part by part."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError, FeatureError, GeometryError
from rasterio.crs import CRS

from sarflood.errors import SarfloodError

# What QGIS looks for in a GeoPackage: the style marked as default is a layer's when it is opened.
_STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT, f_table_schema TEXT,
    f_table_name TEXT, f_geometry_column TEXT, styleName TEXT, styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT, ui TEXT, update_time DATETIME
)
"""
_LISTED = (
    "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
    "VALUES ('layer_styles', 'attributes', 'layer_styles')"
)
# The same map has the same bytes, whenever it is written.
_UNDATED = "UPDATE gpkg_contents SET last_change = '1970-01-01T00:00:00.000Z'"
_ADDED = (
    "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, "
    "styleName, styleQML, styleSLD, useAsDefault, description) "
    "VALUES ('', '', ?, 'geom', ?, ?, '', 1, '')"
)


class GeoPackage:
    """A GeoPackage that is being written."""

    def __init__(self, path: Path, crs: CRS) -> None:
        self._path, self._crs = path, crs
        self._layers: set[str] = set()

    def add(
        self, layer: str, kind: str, geometries: NDArray[np.object_], fields: Mapping[str, Any]
    ) -> None:
        """Add features to a layer, which is made if need be.

        Args:
            layer: Its name.
            kind: `Polygon` or `MultiPolygon`.
            geometries: (N,) in the GeoPackage's CRS.
            fields: An array (N,) for each field.

        Raises:
            SarfloodError: It cannot be written, such as on a full disk.
        """
        try:
            pyogrio.raw.write(
                self._path,
                geometry=shapely.to_wkb(geometries),
                field_data=[np.asarray(values) for values in fields.values()],
                fields=list(fields),
                layer=layer,
                driver="GPKG",
                geometry_type=kind,
                crs=self._crs.to_wkt(),
                append=layer in self._layers,
            )
        except (DataSourceError, FeatureError, GeometryError) as error:
            raise self._failed(error) from error
        self._layers.add(layer)

    def close(self, styles: Mapping[str, str]) -> None:
        """Add QGIS's styles (QML) of layers, and what else comes last."""
        try:
            with closing(sqlite3.connect(self._path)) as database, database:
                database.execute(_STYLES)
                database.execute(_LISTED)
                database.executemany(_ADDED, [(name, name, qml) for name, qml in styles.items()])
                database.execute(_UNDATED)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> SarfloodError:
        return SarfloodError(f"{self._path}: cannot be written ({error}); is the disk full?")
