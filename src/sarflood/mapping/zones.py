"""Zones, such as municipalities, and how much of each is flooded."""

from __future__ import annotations

import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize

from sarflood.errors import InputError
from sarflood.mapping.scene import SceneMap
from sarflood.raster.areas import PixelAreas, to_equal_area
from sarflood.raster.grid import Grid
from sarflood.raster.patch import UNKNOWN, WET
from sarflood.raster.vector import SUFFIXES, PolygonFile, polygons_of, read_polygons
from sarflood.sources.archive import unpack

_MAX_ZONES = 20_000
_LONGEST_NAME = 120
_EDGE_PIXELS = 100


@dataclass(frozen=True)
class Zones:
    """Zones in the coordinates of a scene.

    Attributes:
        names: N of them, each once.
        outlines: (N,) polygons and multipolygons.
    """

    names: tuple[str, ...]
    outlines: NDArray[np.object_]


@dataclass
class ZoneFigures:
    """What a map says of a zone.

    Attributes:
        name: Of the zone.
        outline: In the coordinates of the scene.
        area_km2: Of the zone, on the ellipsoid.
        valid_km2: Of its pixels with data.
        flooded_km2: Of its wet pixels.
    """

    name: str
    outline: shapely.Geometry
    area_km2: float
    valid_km2: float = 0.0
    flooded_km2: float = 0.0

    @property
    def valid_share(self) -> float:
        """Share of the zone that the scene has data on."""
        return min(1.0, self.valid_km2 / self.area_km2) if self.area_km2 else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        return {
            "name": self.name,
            "area_km2": round(self.area_km2, 6),
            "flooded_km2": round(self.flooded_km2, 6),
            "valid_share": round(self.valid_share, 6),
        }


def read_zones(path: Path, field: str | None, crs: CRS, near: Grid | None = None) -> Zones:
    """Read zones from a GeoPackage, GeoJSON or Shapefile, which may be zipped.

    Args:
        path: The file.
        field: The text field with their names; by default the first one. Zones without a name are
            numbered; names that stand twice get a number, too.
        crs: Of the scene.
        near: The scene, where it is known: what is far from it is left out of a zone.

    Raises:
        InputError: As `read_polygons`; or no text field has that name.
    """
    if path.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory(prefix="sarflood-zones-") as folder:
            if not path.is_file():
                raise InputError(f"{path}: cannot be read: no such file")
            there = unpack(path, Path(folder) / "zones")
            found = [item for item in there.rglob("*") if item.suffix.lower() in SUFFIXES]
            if len(found) != 1:
                raise InputError(f"{path}: holds {len(found)} files with polygons; needs one")
            return _read(path, found[0], field, crs, near)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: zones are a GeoPackage (.gpkg), GeoJSON, or a Shapefile (.shp, or all of it "
            "in a .zip)"
        )
    return _read(path, path, field, crs, near)


def _read(said: Path, path: Path, field: str | None, crs: CRS, near: Grid | None) -> Zones:
    found = read_polygons(path, crs.to_wkt(), at_most=_MAX_ZONES, near=near)
    if not len(found.geometries):
        raise InputError(f"{said}: no polygon")
    return Zones(_names(said, found, field), found.geometries)


def _names(path: Path, found: PolygonFile, field: str | None) -> tuple[str, ...]:
    if field and field not in found.fields:
        known = ", ".join(found.fields) or "none"
        raise InputError(f"{path}: no text field {field!r}; there are: {known}")
    column = found.fields[field] if field else next(iter(found.fields.values()), None)
    names: dict[str, None] = {}
    for number in range(len(found.geometries)):
        said = "" if column is None else _clean(column[number])
        name = said or f"zone {number + 1}"
        copies = 1
        while name in names:
            copies += 1
            name = f"{said} ({copies})"
        names[name] = None
    return tuple(names)


def _clean(name: str | None) -> str:
    """Return a name in one line of reasonable length."""
    shown = (" " if unicodedata.category(sign)[0] == "C" else sign for sign in name or "")
    return " ".join("".join(shown).split())[:_LONGEST_NAME]


def figures_of(zones: Zones, result: SceneMap) -> list[ZoneFigures]:
    """Measure the zones that a map touches, strip by strip; zones may overlap.

    A pixel is in a zone if its middle is.
    """
    grid = result.grid
    a, b, c, d, e, f = tuple(~grid.transform)[:6]
    pixels = shapely.transform(
        zones.outlines, lambda x, y: (a * x + b * y + c, d * x + e * y + f), interleaved=False
    )
    touched = np.flatnonzero(shapely.intersects(pixels, shapely.box(0, 0, grid.width, grid.height)))
    pixels = pixels[touched]
    found = [
        ZoneFigures(zones.names[index], zones.outlines[index], km2)
        for index, km2 in zip(touched, _km2(pixels, grid), strict=True)
    ]
    areas, bounds = PixelAreas.of(grid), shapely.bounds(pixels)
    for top, mask in result.mask.strips():
        bottom = top + len(mask)
        for figures, outline, (left, above, right, below) in zip(
            found, pixels, bounds, strict=True
        ):
            if below <= top or above >= bottom:
                continue
            cols = slice(max(0, int(left)), min(grid.width, int(np.ceil(right))))
            rows = slice(max(top, int(above)), min(bottom, int(np.ceil(below))))
            if cols.start >= cols.stop or rows.start >= rows.stop:
                continue
            inside = _inside(outline, rows, cols)
            part = mask[rows.start - top : rows.stop - top, cols]
            figures.valid_km2 += areas.sum(inside & (part != UNKNOWN), rows.start, cols.start)
            figures.flooded_km2 += areas.sum(inside & (part == WET), rows.start, cols.start)
    return found


def _inside(outline: shapely.Geometry, rows: slice, cols: slice) -> NDArray[np.bool_]:
    """Return (h, w): whether a pixel's middle lies inside an outline in pixels."""
    # Of a large zone only what is near is burned; GDAL fills rings by scan lines, valid or not.
    near = polygons_of(
        shapely.clip_by_rect(outline, cols.start - 1, rows.start - 1, cols.stop + 1, rows.stop + 1)
    )
    shape = (rows.stop - rows.start, cols.stop - cols.start)
    if near.is_empty:
        return np.zeros(shape, np.bool_)
    grid = Affine.translation(cols.start, rows.start)
    burned: NDArray[np.uint8] = rasterize([near], shape, transform=grid, dtype="uint8")
    return burned.view(np.bool_)


def _km2(pixels: NDArray[np.object_], grid: Grid) -> list[float]:
    """Return the areas on the ellipsoid of outlines in pixels."""
    # What is straight on the grid is not on the cylinder: an edge of 100 km lies 200 m off.
    corners = shapely.segmentize(pixels, _EDGE_PIXELS)
    for move in (grid.lon_lat, to_equal_area(grid).transform):
        corners = shapely.transform(corners, move, interleaved=False)
    areas: list[float] = (shapely.area(corners) / 1e6).tolist()
    return areas
