"""The bands of a scene's files, in the order and the units of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.coords import disjoint_bounds
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from sarflood.errors import InputError, TooLargeError
from sarflood.model.package import ModelManifest
from sarflood.raster.areas import pixel_size_m
from sarflood.raster.decibel import to_db, without_fill
from sarflood.raster.grid import Grid, grid_difference, to_lon_lat
from sarflood.raster.names import bands_by_name
from sarflood.raster.safe import MAX_MEGAPIXELS, open_raster, read_bands
from sarflood.raster.units import ScaleUnits, tell_units

_SPOKEN = {
    "db": "backscatter in dB",
    "linear": "linear backscatter",
    "uint8": "8-bit grey levels (uint8)",
}
_LARGEST_BLOCK_BYTES = 1 << 29
_PIXEL_M = (0.1, 10_000.0)  # a side, in metres
_PLACES = 33  # a side, of a grid that is tried


# The bands of one date: a GeoTIFF with all of them, or one for each polarisation by its name.
Files = Path | Mapping[str, Path]
_POLARISATIONS = ("vv", "vh")
# What a file of a scene may be: all bands of a date, or one of them.
ROLES = ("scene", "scene_vv", "scene_vh", "pre", "pre_vv", "pre_vh")


def of_date(files: Mapping[str, Path], date: str) -> Files | None:
    """Return the files of a date; None where there are none.

    Args:
        files: By what they are: a date, or a date and a polarisation, such as `pre_vh`.
        date: `scene` or `pre`.

    Raises:
        InputError: The date is there in both forms.
    """
    apart = {name: files[f"{date}_{name}"] for name in _POLARISATIONS if f"{date}_{name}" in files}
    if date in files and apart:
        both = files[date], *apart.values()
        raise InputError(f"{', '.join(map(str, both))}: the same date twice; keep one form of it")
    return files.get(date) or apart or None


@dataclass(frozen=True)
class _Source:
    """One open file, which of its bands are wanted, and where they stand in the model's order."""

    path: Path
    dataset: DatasetReader
    indexes: list[int]
    positions: list[int]
    units: ScaleUnits

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read (C, h, w) in dB or as uint8 values."""
        image = read_bands(self.dataset, window, self.indexes)
        return to_db(image) if self.units == "linear" else image


@dataclass(frozen=True)
class SceneBands:
    """An open scene that reads as its model needs it.

    Attributes:
        height: Rows.
        width: Columns.
    """

    height: int
    width: int
    _sources: tuple[_Source, ...]
    _filled: tuple[list[int], ...]  # positions of the bands of a date that were in dB already

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read a window as (C, h, w) float32 in the model's bands and units; NaN is no data."""
        bands = sum(len(source.indexes) for source in self._sources)
        image = np.empty((bands, window.height, window.width), np.float32)
        for source in self._sources:
            image[source.positions] = source.read(window)
        for positions in self._filled:
            image[positions] = without_fill(image[positions])
        return image


def scene_grid(
    manifest: ModelManifest,
    scene: Files,
    pre: Files | None,
    *,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Grid:
    """Return the grid that `open_scene` reads a scene on; only a header is read."""
    path = next(iter(_of_scene(manifest, scene, pre)))
    with open_raster(path, max_megapixels=max_megapixels) as dataset:
        return Grid.of(dataset)


@contextmanager
def open_scene(
    manifest: ModelManifest,
    scene: Files,
    pre: Files | None,
    *,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Iterator[SceneBands]:
    """Open a scene, and the scene before the event if the model compares the two.

    Bands are found by their descriptions (VV, VH, VV_PRE, VH_PRE); a file without such
    descriptions must have exactly the needed bands, in the model's order. Files by polarisation
    that the model does not use are not looked at.

    Raises:
        TooLargeError: The header of a file promises too many pixels, or blocks that are too large.
        InputError: Bands, units, grid or georeference do not fit the model; says what came and
            what is needed.
    """
    before = [band for band in manifest.bands if band.endswith("_pre")]
    now = [band for band in manifest.bands if band not in before]
    if pre is not None and not before:
        raise InputError(
            f"{_first(pre)}: the model uses no scene from before the event, only "
            f"{_listed(manifest.bands)}"
        )
    wanted = _of_scene(manifest, scene, pre)
    if pre is not None:
        of_pre = _wanted(pre, before)
        same = {path.resolve() for path in wanted} & {path.resolve() for path in of_pre}
        if same:
            raise InputError(
                f"{same.pop()}: the scene itself; give the one from before the event as `pre`"
            )
        wanted |= of_pre
    with ExitStack() as stack:
        sources: list[_Source] = []
        for path, bands in wanted.items():
            dataset = stack.enter_context(open_raster(path, max_megapixels=max_megapixels))
            _check_blocks(path, dataset)
            is_pre = pre is not None and path in of_pre
            indexes = _find_bands(path, dataset, bands, is_pre=is_pre)
            positions = [manifest.bands.index(band) for band in bands]
            units = _fitting_units(path, dataset, indexes, manifest.units)
            sources.append(_Source(path, dataset, indexes, positions, units))
        first = sources[0]
        dates = [[manifest.bands.index(band) for band in date] for date in (now, before)]
        _check_georeference(first)
        sources[1:] = [_aligned(first, other, stack) for other in sources[1:]]
        yield SceneBands(
            first.dataset.height,
            first.dataset.width,
            tuple(sources),
            tuple(_in_db(sources, positions) for positions in dates if _in_db(sources, positions)),
        )


def _in_db(sources: list[_Source], date: list[int]) -> list[int]:
    """Return which of a date's bands, by position, a file has in dB."""
    in_db = {place for source in sources if source.units == "db" for place in source.positions}
    return [place for place in date if place in in_db]


def _first(files: Files) -> Path:
    return files if isinstance(files, Path) else next(iter(files.values()))


def _of_scene(manifest: ModelManifest, scene: Files, pre: Files | None) -> dict[Path, list[str]]:
    """Return which bands each file of the scene has to give; `pre` gives those of before."""
    bands = [band for band in manifest.bands if pre is None or not band.endswith("_pre")]
    return _wanted(scene, bands)


def _wanted(files: Files, bands: list[str]) -> dict[Path, list[str]]:
    """Return which of a date's bands each of its files has to give."""
    if isinstance(files, Path):
        return {files: bands}
    wanted: dict[Path, list[str]] = {}
    for band in bands:
        path = files.get(band.removesuffix("_pre"))
        if path is None:
            raise InputError(
                f"{_first(files)}: no file for the band {band}; the model needs {_listed(bands)}"
            )
        wanted.setdefault(path, []).append(band)
    return wanted


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
        raise TooLargeError(
            f"{path}: blocks of {rows}×{cols} pixels take {size / 2**20:.0f} MB each; write it "
            "tiled (`rio convert --co TILED=YES`)"
        )


def _check_georeference(first: _Source) -> None:
    if first.dataset.crs is None or first.dataset.transform.is_identity:
        remedy = (
            "it has ground control points only; geocode it first (terrain correction)"
            if first.dataset.gcps[0]
            else "name its grid with `rio edit-info --crs EPSG:… --transform …`"
        )
        raise InputError(f"{first.path}: no georeference; {remedy}")
    _check_on_earth(first)
    _check_pixels(first)


def _aligned(first: _Source, other: _Source, stack: ExitStack) -> _Source:
    """Return a source that is read on the grid of the first: warped on the fly if it has another.

    Bilinear between its pixels, in its own units.

    Raises:
        InputError: It has no georeference, or shows another place.
    """
    what = grid_difference(first.dataset, other.dataset)
    if not what:
        return other
    _check_georeference(other)
    target = {
        "crs": first.dataset.crs,
        "transform": first.dataset.transform,
        "width": first.dataset.width,
        "height": first.dataset.height,
    }
    try:
        bounds = transform_bounds(other.dataset.crs, first.dataset.crs, *other.dataset.bounds)
        meet = not disjoint_bounds(first.dataset.bounds, bounds)
        nodata = other.dataset.nodata
        # Grey levels have no value left for what lies beyond the file: an alpha band says it.
        hidden = any(MaskFlags.alpha in flags for flags in other.dataset.mask_flag_enums)
        grey = other.units == "uint8" and nodata is None and not hidden
        warped = WarpedVRT(
            other.dataset,
            nodata=np.nan if nodata is None and other.units != "uint8" else nodata,
            add_alpha=grey,
            resampling=Resampling.bilinear,
            **target,
        )
    except (RasterioError, ValueError) as error:
        raise InputError(
            f"{other.path}: not on the grid of {first.path} ({what}), and cannot be warped there: "
            f"{error}"
        ) from error
    if not meet:
        raise InputError(
            f"{other.path}: shows another place than {first.path}: {tuple(bounds)} against "
            f"{tuple(first.dataset.bounds)} in {first.dataset.crs}"
        )
    return replace(other, dataset=stack.enter_context(warped))


def _check_on_earth(source: _Source) -> None:
    """Refuse a grid that has places without longitude and latitude, for they have no area either.

    A projection may fail within a scene though not at its corners, so places all over are tried.
    """
    dataset = source.dataset
    cols, rows = np.meshgrid(
        np.linspace(0, dataset.width, _PLACES), np.linspace(0, dataset.height, _PLACES)
    )
    try:
        lon, lat = map(
            np.asarray, to_lon_lat(dataset.crs).transform(*(dataset.transform @ (cols, rows)))
        )
        on_earth = bool((np.abs(lon) <= 360).all() and (np.abs(lat) <= 90).all())
    except ProjError:
        on_earth = False
    if not on_earth or dataset.transform.is_degenerate:
        raise InputError(
            f"{source.path}: its grid ({dataset.crs}, upper left {dataset.transform.c:.6g}, "
            f"{dataset.transform.f:.6g}) does not lie on the Earth; name the right one with "
            "`rio edit-info --crs EPSG:… --transform …`"
        )


def _check_pixels(source: _Source) -> None:
    """Refuse a grid whose pixels are so small or large that later sums with it fail."""
    dataset = source.dataset
    grid = Grid.of(dataset)
    width, height = pixel_size_m(grid)
    smallest, largest = _PIXEL_M
    if not all(smallest <= size <= largest for size in (width, height)):
        raise InputError(
            f"{source.path}: its pixels are {width:.3g} m wide and {height:.3g} m high, which no "
            f"radar image has (allowed: {smallest:g} to {largest:g}); name its true grid with "
            "`rio edit-info --crs EPSG:… --transform …`"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
