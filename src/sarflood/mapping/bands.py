"""The bands of a scene's files, in the order and the units of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.windows import Window

from sarflood.errors import InputError
from sarflood.model.package import ModelManifest
from sarflood.raster.areas import to_lon_lat
from sarflood.raster.decibel import to_db, without_fill
from sarflood.raster.grid import check_same_grid
from sarflood.raster.names import bands_by_name
from sarflood.raster.safe import open_raster, read_bands
from sarflood.raster.units import ScaleUnits, tell_units

_SPOKEN = {
    "db": "backscatter in dB",
    "linear": "linear backscatter",
    "uint8": "8-bit grey levels (uint8)",
}
_LARGEST_BLOCK_BYTES = 1 << 29


@dataclass(frozen=True)
class _Source:
    """One open file, which of its bands are wanted, and where they stand in the model's order."""

    path: Path
    dataset: DatasetReader
    indexes: list[int]
    positions: list[int]
    units: ScaleUnits

    def read(self, window: Window | None = None) -> NDArray[np.float32]:
        """Read (C, h, w) in dB or as uint8 values."""
        image = read_bands(self.dataset, window, self.indexes)
        if self.units == "linear":
            return to_db(image)
        return without_fill(image) if self.units == "db" else image


@dataclass(frozen=True)
class SceneBands:
    """An open scene that reads as its model needs it.

    Attributes:
        height: Rows.
        width: Columns.
        crs: The coordinate reference system.
        transform: Pixel (column, row) to CRS coordinates.
    """

    height: int
    width: int
    crs: CRS
    transform: Affine
    _sources: tuple[_Source, ...]

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read a window as (C, h, w) float32 in the model's bands and units; NaN is no data."""
        bands = sum(len(source.indexes) for source in self._sources)
        image = np.empty((bands, window.height, window.width), np.float32)
        for source in self._sources:
            image[source.positions] = source.read(window)
        return image


@contextmanager
def open_scene(
    manifest: ModelManifest, scene: Path, pre: Path | None, *, max_megapixels: int
) -> Iterator[SceneBands]:
    """Open a scene, and the scene before the event if the model compares the two.

    Bands are found by their descriptions (VV, VH, VV_PRE, VH_PRE); a file without such
    descriptions must have exactly the needed bands, in the model's order.

    Raises:
        InputError: Bands, units, grid or georeference do not fit the model; says what came and
            what is needed.
    """
    later = [band for band in manifest.bands if band.endswith("_pre")]
    if pre is not None and not later:
        raise InputError(
            f"{pre}: the model uses no scene from before the event, only {_listed(manifest.bands)}"
        )
    if pre is not None and pre.resolve() == scene.resolve():
        raise InputError(f"{pre}: the scene itself; give the one from before the event as `pre`")
    wanted = {scene: list(manifest.bands)}
    if pre is not None:
        wanted = {scene: [band for band in manifest.bands if band not in later], pre: later}
    with ExitStack() as stack:
        sources: list[_Source] = []
        for path, bands in wanted.items():
            dataset = stack.enter_context(open_raster(path, max_megapixels=max_megapixels))
            _check_blocks(path, dataset)
            indexes = _find_bands(path, dataset, bands, is_pre=path == pre)
            positions = [manifest.bands.index(band) for band in bands]
            units = _fitting_units(path, dataset, indexes, manifest.units)
            sources.append(_Source(path, dataset, indexes, positions, units))
        first = sources[0]
        _check_grid(first, sources)
        yield SceneBands(
            first.dataset.height,
            first.dataset.width,
            first.dataset.crs,
            first.dataset.transform,
            tuple(sources),
        )


def _find_bands(
    path: Path, dataset: DatasetReader, wanted: list[str], *, is_pre: bool
) -> list[int]:
    """Return the 1-based indexes of the wanted bands."""
    # A band of the scene from before the event may be `VV` as well as `VV_PRE`.
    there = bands_by_name(path, dataset, one_date=is_pre)
    if not there:
        if dataset.count != len(wanted):
            raise InputError(
                f"{path}: {dataset.count} band(s) without a description; the model needs exactly "
                f"{_listed(wanted)}, in this order or described as such"
            )
        return list(dataset.indexes)
    if is_pre:
        there = {f"{name}_pre": index for name, index in there.items()}
    missing = [band for band in wanted if band not in there]
    if missing:
        remedy = (
            "; give the scene from before the event as `pre`"
            if all(band.endswith("_pre") for band in missing) and not is_pre
            else ""
        )
        raise InputError(
            f"{path}: no band {_listed(missing)}; it has {_listed(list(there))}, the model needs "
            f"{_listed(wanted)}{remedy}"
        )
    return [there[band] for band in wanted]


def _fitting_units(
    path: Path, dataset: DatasetReader, indexes: list[int], needed: str
) -> ScaleUnits:
    """Tell the units of a file's bands, which must be, or become by a logarithm, those needed."""
    units = tell_units(path, dataset, indexes)
    if (units == "uint8") != (needed == "uint8"):
        raise InputError(
            f"{path}: pixels are {_SPOKEN[units]}; the model needs {_SPOKEN[needed]}, and one "
            "cannot be turned into the other"
        )
    return units


def _check_blocks(path: Path, dataset: DatasetReader) -> None:
    """Refuse a file of which one compressed block alone would fill the memory."""
    itemsize = max(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    rows, cols = map(max, zip(*dataset.block_shapes, strict=True))
    size = rows * cols * itemsize * dataset.count
    if size > _LARGEST_BLOCK_BYTES:
        raise InputError(
            f"{path}: blocks of {rows}×{cols} pixels take {size / 2**20:.0f} MB each; write it "
            "tiled (`rio convert --co TILED=YES`)"
        )


def _check_grid(first: _Source, sources: list[_Source]) -> None:
    if first.dataset.crs is None or first.dataset.transform.is_identity:
        remedy = (
            "it has ground control points only; geocode it first (terrain correction)"
            if first.dataset.gcps[0]
            else "name its grid with `rio edit-info --crs EPSG:… --transform …`"
        )
        raise InputError(f"{first.path}: no georeference; {remedy}")
    _check_on_earth(first)
    for other in sources[1:]:
        check_same_grid(first.path, first.dataset, other.path, other.dataset)


def _check_on_earth(source: _Source) -> None:
    """Refuse a grid whose corners have no longitude and latitude, for it has no area either."""
    dataset = source.dataset
    corners = [
        dataset.transform @ (col, row) for col in (0, dataset.width) for row in (0, dataset.height)
    ]
    try:
        lon, lat = np.array([to_lon_lat(dataset.crs).transform(x, y) for x, y in corners]).T
        on_earth = bool((np.abs(lon) <= 360).all() and (np.abs(lat) <= 90).all())
    except ProjError:
        on_earth = False
    if not on_earth or dataset.transform.is_degenerate:
        raise InputError(
            f"{source.path}: its grid ({dataset.crs}, upper left {dataset.transform.c:.6g}, "
            f"{dataset.transform.f:.6g}) does not lie on the Earth; name the right one with "
            "`rio edit-info --crs EPSG:… --transform …`"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
