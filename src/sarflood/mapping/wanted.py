"""What the files of a map are to hold beside the flood itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from rasterio.crs import CRS

from sarflood.errors import InputError
from sarflood.files import sha256
from sarflood.mapping.aligned import check_placed
from sarflood.mapping.zones import read_zones
from sarflood.raster.grid import Grid
from sarflood.raster.terrain import Orbit

Metres = Annotated[float, Field(ge=0.0, le=100_000.0)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Terrain(_Closed):
    """What radar shadow follows from.

    Attributes:
        dem: Raster of heights in metres, on any grid.
        orbit: Which way the satellite flew; None where each scene says that itself.
        incidence: In degrees, in the middle of the scene.
    """

    dem: Path
    orbit: Orbit | None = None
    incidence: Annotated[float, Field(ge=15.0, le=60.0)] = 39.0


class Wanted(_Closed):
    """What is asked of a map's files.

    Attributes:
        min_area_m2: Wet areas below that get no polygon.
        simplify_m: How far outlines may be simplified.
        zones: Polygons that the flooded area is told of, too.
        zone_field: The field with their names.
        permanent_water: Raster of what is no flood: 1 where there is always water.
        terrain: For radar shadow.
    """

    min_area_m2: Annotated[float, Field(ge=0.0, le=1e9)] = 500.0
    simplify_m: Metres = 0.0
    zones: Path | None = None
    zone_field: str | None = None
    permanent_water: Path | None = None
    terrain: Terrain | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are read for it."""
        dem = self.terrain.dem if self.terrain else None
        return tuple(path for path in (self.zones, self.permanent_water, dem) if path)

    def said(self) -> dict[str, Any]:
        """Return it as plain JSON, with names and hashes of the files: equal where maps would be.

        Raises:
            InputError: A file cannot be read.
        """
        try:
            hashes = {str(path): f"{path.name} sha256:{sha256(path)}" for path in self.paths}
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error

        def named(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: named(item) for key, item in value.items()}
            return hashes[str(value)] if isinstance(value, Path) else value

        found: dict[str, Any] = named(self.model_dump(exclude_none=True))
        return found


def check_zones(wanted: Wanted, grid: Grid) -> None:
    """Refuse zones that could not be moved onto a scene's grid in the end.

    Raises:
        InputError: As `read_zones`.
    """
    if wanted.zones:
        read_zones(wanted.zones, wanted.zone_field, grid.crs, grid)


def check_wanted(wanted: Wanted) -> None:
    """Refuse early what could not be read in the end.

    Raises:
        InputError: Names the file.
    """
    if wanted.zones:
        read_zones(wanted.zones, wanted.zone_field, CRS.from_epsg(4326))
    for raster in (wanted.permanent_water, wanted.terrain.dem if wanted.terrain else None):
        if raster:
            check_placed(raster)
