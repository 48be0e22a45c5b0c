"""Spoiled sources, each with what must become of it. `python corpus.py` prints them as a table."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from PIL import Image
from sources import (
    CRS,
    PATCHES,
    area,
    chip,
    chips,
    grey,
    place,
    read_tif,
    scene,
    simulated,
    tile_path,
    tiles,
    write_tif,
)

from sarflood.ingest.ingest import Said

PLAIN = Said()
Make = Callable[[Path], Path]
Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
BAD = 3  # the number of the patch that is spoiled, where it is one

OUTCOMES = {
    "patch": "the patch goes to quarantine",
    "item": "the file goes to quarantine",
    "event": "the event is refused, all goes to quarantine",
    "input": "nothing is taken in",
    "warning": "accepted with a warning",
    "handled": "read as it is meant",
}


@dataclass(frozen=True)
class Case:
    """A spoiled source.

    Attributes:
        name: A few words.
        outcome: A key of `OUTCOMES`.
        rule: What must be said of it, as a part of the reason.
        make: Writes it below a folder, and returns the source.
        said: What the user says with it.
        accepted: How many patches are accepted all the same.
    """

    name: str
    outcome: str
    rule: str
    make: Make
    said: Said = PLAIN
    accepted: int | None = None


CASES: list[Case] = []


def case(name: str, outcome: str, rule: str = "", **more: object) -> Callable[[Make], Make]:
    """Add a case whose source the decorated function writes."""

    def add(make: Make) -> Make:
        CASES.append(Case(name, outcome, rule, make, **more))  # type: ignore[arg-type]
        return make

    return add


def one_chip(name: str, rule: str, change: Change, outcome: str = "patch", **profile: Any) -> None:
    """Add a case of chips of which one is changed."""

    def make(folder: Path) -> Path:
        source = chips(folder / "source")
        clean = simulated(BAD)
        chip(source, BAD, *change(clean.after.copy(), clean.mask.copy()), **profile)
        return source

    accepted = PATCHES if outcome in ("handled", "warning") else PATCHES - 1
    CASES.append(Case(name, outcome, rule, make, accepted=accepted))


def all_chips(name: str, rule: str, change: Change, outcome: str = "event") -> None:
    """Add a case of chips that are all changed."""

    def make(folder: Path) -> Path:
        source = chips(folder / "source")
        for number in range(PATCHES):
            clean = simulated(number)
            chip(source, number, *change(clean.after.copy(), clean.mask.copy()))
        return source

    CASES.append(Case(name, outcome, rule, make, accepted=PATCHES))


def spoil_file(name: str, outcome: str, rule: str, spoil: Callable[[Path], object]) -> None:
    """Add a case of chips of which one file, VH of the third, is spoiled."""

    def make(folder: Path) -> Path:
        source = chips(folder / "source")
        spoil(source / f"c{BAD:02d}_vh.tif")
        return source

    CASES.append(Case(name, outcome, rule, make, accepted=PATCHES - 1))


# --- files that are no rasters -------------------------------------------------------------------

spoil_file(
    "truncated TIFF",
    "item",
    "damaged or truncated|not a readable",
    lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
)
spoil_file("empty file", "item", "neither GeoTIFF nor PNG", lambda path: path.write_bytes(b""))
spoil_file(
    "text named .tif", "item", "neither GeoTIFF nor PNG", lambda path: path.write_text("radar")
)
spoil_file(
    "HTML error page named .tif",
    "item",
    "neither GeoTIFF nor PNG",
    lambda path: path.write_text("<!DOCTYPE html><title>404</title>"),
)
spoil_file(
    "VRT that names /etc/passwd",
    "item",
    "neither GeoTIFF nor PNG",
    lambda path: path.write_text(
        '<VRTDataset rasterXSize="256" rasterYSize="256">'
        '<VRTRasterBand dataType="Float32" band="1">'
        "<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    ),
)
spoil_file(
    "damaged TIFF directory",
    "item",
    "not a readable|damaged",
    lambda path: path.write_bytes(path.read_bytes()[:4] + b"\xff\xff\xff\x7f" + b"\0" * 500),
)


def _header_of(side: int, path: Path) -> None:
    """Write a TIFF whose header promises side² pixels and whose file holds none."""
    tags: list[tuple[int, int, int, int]] = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 32),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, side),
        (279, 4, 1, 4),
        (339, 3, 1, 3),
    ]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(b"II*\x00" + struct.pack("<I", 8) + body + struct.pack("<I", 0))


spoil_file(
    "header of 10⁹ pixels", "item", "at most 16 megapixels", lambda path: _header_of(31_623, path)
)
spoil_file(
    "header of a million columns",
    "item",
    "at most 200,000 a side|at most 16 megapixels",
    lambda path: _header_of(1_000_000, path),
)


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


spoil_file(
    "symlink out of the folder", "item", "leaves the source", lambda p: _link(p, "/etc/passwd")
)
spoil_file("symlink to itself", "item", "cannot be read|leaves|loop", lambda p: _link(p, p.name))
spoil_file("dangling symlink", "item", "cannot be read|leaves", lambda p: _link(p, "nowhere.tif"))


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


spoil_file("FIFO named .tif", "item", "not a regular file", lambda p: _replace(p, os.mkfifo))
spoil_file("folder named .tif", "item", "not a regular file", lambda p: _replace(p, Path.mkdir))

# --- files that do not belong together -----------------------------------------------------------


def _rewrite(name: str, **changes: object) -> Callable[[Path], object]:
    def spoil(vh: Path) -> None:
        path = vh.with_name(name.format(f"{BAD:02d}"))
        where = changes.get("where", place(BAD))
        profile = {key: value for key, value in changes.items() if key not in ("where", "cut")}
        values = read_tif(path)[0]
        write_tif(path, values[: changes.get("cut")], where, **profile)  # type: ignore[arg-type]

    return spoil


spoil_file("mask in another CRS", "item", "CRS", _rewrite("c{}.tif", crs="EPSG:32652"))
spoil_file("mask without a CRS", "item", "CRS", _rewrite("c{}.tif", crs=None))
spoil_file(
    "mask half a pixel off",
    "item",
    "not on the grid",
    _rewrite("c{}.tif", where=place(BAD) @ Affine.translation(0.5, 0)),
)
spoil_file("mask with fewer rows", "item", "250×256 against", _rewrite("c{}.tif", cut=250))


def _all_three(**changes: object) -> Callable[[Path], object]:
    """Rewrite VV, VH and the mask of a chip alike."""

    def spoil(vh: Path) -> None:
        for name in ("c{}_vv.tif", "c{}_vh.tif", "c{}.tif"):
            _rewrite(name, **changes)(vh)

    return spoil


spoil_file(
    "metres tagged as degrees", "item", "do not belong together", _all_three(crs="EPSG:4326")
)
spoil_file(
    "a CRS of no place on the globe",
    "item",
    "lead to no place on the globe",
    _all_three(crs='LOCAL_CS["drawing",UNIT["metre",1]]'),
)
spoil_file(
    "VH on a turned grid",
    "item",
    "not on the grid",
    _rewrite("c{}_vh.tif", where=place(BAD) @ Affine.rotation(5)),
)
spoil_file("one polarisation missing", "item", "_vh.tif of it missing", Path.unlink)
spoil_file(
    "mask missing",
    "item",
    "<id>.tif of it missing",
    lambda path: path.with_name(f"c{BAD:02d}.tif").unlink(),
)


@case("stray raster in the folder", "item", "missing", accepted=PATCHES)
def _(folder: Path) -> Path:
    source = chips(folder / "source")
    write_tif(source / "overview.tif", np.zeros((9, 9), np.uint8), place(0))
    return source


@case(
    "the same tile twice under two names of one place",
    "item",
    "stands for the same",
    accepted=PATCHES,
)
def _(folder: Path) -> Path:
    source = tiles(folder / "source")
    path = tile_path(source, "vv", BAD)
    path.with_name(path.name.replace("_y-3", "_y-03")).write_bytes(path.read_bytes())
    return source


@case(
    "mask in another CRS, with --reproject", "handled", said=Said(reproject=True), accepted=PATCHES
)
def _(folder: Path) -> Path:
    import rasterio
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    source = chips(folder / "source")
    path = source / f"c{BAD:02d}.tif"
    with rasterio.open(path) as file:
        where, width, height = calculate_default_transform(
            file.crs, "EPSG:4326", file.width, file.height, *file.bounds
        )
        there = np.full((height, width), 255, np.uint8)
        reproject(
            file.read(1),
            there,
            src_transform=file.transform,
            src_crs=file.crs,
            dst_transform=where,
            dst_crs="EPSG:4326",
            resampling=Resampling.nearest,
            init_dest_nodata=False,
        )
    write_tif(path, there, where, crs="EPSG:4326", nodata=255)
    return source


# --- pixels of another kind ----------------------------------------------------------------------

one_chip(
    "16-bit image", "pixels of type uint16", lambda i, m: ((i + 50).astype(np.uint16), m), "item"
)
one_chip(
    "dB × 100 as int16",
    "pixels of type int16",
    lambda i, m: ((i * 100).astype(np.int16), m),
    "item",
)
one_chip("complex pixels", "need real numbers", lambda i, m: (i.astype(np.complex64), m), "item")
one_chip("float mask with 0.5", "pixels of type", lambda i, m: (i, m * np.float32(0.5)), "item")
one_chip(
    "mask of 0, 1 and 2", "mask values 2", lambda i, m: (i, m + (m == 1).astype(np.uint8)), "item"
)
one_chip("mask of 0 and 254", "mask values 254", lambda i, m: (i, m * np.uint8(254)), "item")
one_chip(
    "linear power passed off as dB",
    "is in linear",
    lambda i, m: (np.float32(10) ** (i / 10), m),
    "item",
)
one_chip(
    "8-bit values in a float file",
    "neither dB",
    lambda i, m: (grey(i).astype(np.float32), m),
    "item",
)
one_chip(
    "values stretched to 0 to 1",
    "neither dB|is in linear",
    lambda i, m: (grey(i) / np.float32(254), m),
    "item",
)
one_chip(
    "digital numbers", "neither dB", lambda i, m: (np.float32(600) * 10 ** (i / 20), m), "item"
)


def _png(path: Path, values: np.ndarray, mode: str | None = None) -> None:
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path)


def one_tile(
    name: str, rule: str, values: Callable[[np.ndarray], np.ndarray], mode: str | None = None
) -> None:
    def make(folder: Path) -> Path:
        source = tiles(folder / "source")
        path = tile_path(source, "vv", BAD)
        _png(path, values(grey(simulated(BAD).after[0])), mode)
        return source

    CASES.append(Case(name, "item", rule, make, accepted=PATCHES - 1))


one_tile("16-bit PNG", "band|uint16", lambda g: g.astype(np.uint16) * 257)
one_tile("palette PNG", "1 band", lambda g: g, "P")
one_tile("PNG with an alpha band", "4 band", lambda g: np.stack([g] * 4, axis=-1))
one_tile("coloured PNG", "coloured", lambda g: np.stack([g, g[::-1], g], axis=-1))
one_tile("one-bit PNG", "1 band", lambda g: g, "1")
one_tile("tile of 200×256", "tiles are 256×256", lambda g: np.stack([g[:200]] * 3, axis=-1))


def one_png(name: str, rule: str, spoil: Callable[[bytes], bytes]) -> None:
    """Add a case of tiles of which one file is damaged."""

    def make(folder: Path) -> Path:
        source = tiles(folder / "source")
        path = tile_path(source, "vh", BAD)
        path.write_bytes(spoil(path.read_bytes()))
        return source

    CASES.append(Case(name, "item", rule, make, accepted=PATCHES - 1))


def _flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(content) // 2] ^= 0xFF
    return bytes(changed)


one_png("truncated PNG", "truncated", lambda content: content[:2000])
one_png("PNG without its last bytes", "truncated", lambda content: content[:-6])
one_png("PNG with a byte changed on the way", "damaged", _flip)

# --- no data, said or not ------------------------------------------------------------------------


def _edge(value: float) -> Change:
    def change(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image[:, :90] = value
        return image, mask

    return change


one_chip("NaN as no data", "", _edge(np.nan), "handled")
one_chip("0 as no data, without a tag", "", _edge(0), "handled")
one_chip("−99 as no data, without a tag", "", _edge(-99), "handled")
one_chip("−9999 as no data, without a tag", "", _edge(-9999), "handled")
one_chip("255 as no data, without a tag", "", _edge(255), "handled")
one_chip("−99 as no data, with its tag", "", _edge(-99), "handled", nodata=-99)
one_chip("infinities as no data", "", _edge(-np.inf), "handled")
one_chip("no data at all", "too few pixels have data", lambda i, m: (i * np.float32(np.nan), m))

# --- what is no radar ----------------------------------------------------------------------------


def _board(shape: tuple[int, ...]) -> np.ndarray:
    board: np.ndarray = np.indices(shape).sum(axis=0) % 2
    return board


def _constant(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image[:] = np.array([-11.0, -18.0], np.float32)[:, None, None]
    return image, mask


def _half_constant(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image[:, :150] = -12.5
    return image, mask


def _stripes(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image[:, ::2] += 5.0
    return image, mask


def _clipped(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.minimum(image, np.quantile(image, 0.3, axis=(1, 2), keepdims=True)), mask


def _noise(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0).normal(-14, 9, image.shape)
    return draw.astype(np.float32), mask


def _blurred(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, (0, 4, 4)), mask


def _checkerboard(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    board = np.where(_board(mask.shape), np.float32(-8), np.float32(-20))
    return np.stack([board, board - 7]), mask


one_chip("constant image", "one and the same VV value", _constant)
one_chip("half of the image constant", "one and the same VV value", _half_constant)
one_chip("checkerboard for an image", "different values|one and the same", _checkerboard)
one_chip("banding", "banding", _stripes)
one_chip("saturated", "ends of the scale|one and the same", _clipped)
one_chip("noise for an image", "single look|noise", _noise)
one_chip("blurred image", "filtered, resampled", _blurred, "warning")
one_chip("far too dark", "neither dB", lambda i, m: (i - np.float32(40), m), "item")
all_chips("bands swapped", "the bands are swapped", lambda i, m: (i[::-1].copy(), m))

# --- masks that are none -------------------------------------------------------------------------


def _other_mask(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image, simulated(BAD + 5).mask[::-1].copy()


def _block(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask[40:90, 20:80] = 1
    return image, mask


one_chip("inverted mask", "inverted or of another patch", lambda i, m: (i, 1 - m))
one_chip("mask shifted by 32 pixels", "is shifted, inverted", lambda i, m: (i, np.roll(m, 32, 1)))
one_chip("mask of another patch", "shifted, inverted or of another patch", _other_mask)
one_chip(
    "checkerboard for a mask",
    "different labels",
    lambda i, m: (i, _board(m.shape).astype(np.uint8)),
)
one_chip("rectangle that leaves no trace in the image", "rectangles of one label", _block)
all_chips("all masks inverted", "masks look inverted", lambda i, m: (i, 1 - m))
all_chips(
    "all masks shifted", "shifted or of other patches", lambda i, m: (i, np.roll(m, 90, (0, 1)))
)
all_chips(
    "all masks wet throughout",
    "every labelled pixel of the event is wet",
    lambda i, m: (i, m * 0 + 1),
    "warning",
)

# --- copies --------------------------------------------------------------------------------------


@case("the same chip under another name", "patch", "exactly the same pixels", accepted=PATCHES)
def _(folder: Path) -> Path:
    source = chips(folder / "source")
    for suffix in ("_vv", "_vh", ""):
        content = (source / f"c{BAD:02d}{suffix}.tif").read_bytes()
        (source / f"copy{suffix}.tif").write_bytes(content)
    return source


@case(
    "the same image with another mask", "patch", "same pixels with another mask", accepted=PATCHES
)
def _(folder: Path) -> Path:
    source = chips(folder / "source")
    clean = simulated(BAD)
    chip(source, 50, clean.after, np.where(clean.mask == 1, 1, np.roll(clean.mask, 2, 0)))
    return source


@case("shifted copy", "warning", "shifted or re-stretched", accepted=PATCHES + 1)
def _(folder: Path) -> Path:
    source = chips(folder / "source")
    clean = simulated(BAD)
    chip(source, 50, np.roll(clean.after, 70, 1), np.roll(clean.mask, 70, 0))
    return source


@case("re-stretched copy", "warning", "shifted or re-stretched", accepted=PATCHES + 1)
def _(folder: Path) -> Path:
    source = chips(folder / "source")
    clean = simulated(BAD)
    mask = clean.mask.copy()
    mask[:2] = 255
    chip(source, 50, clean.after * np.float32(0.8) - 2, mask)
    return source


# --- names, layouts, manifests -------------------------------------------------------------------


@case("Unicode and spaces in names", "handled", accepted=PATCHES)
def _(folder: Path) -> Path:
    source = chips(folder / "Überflutung im Süden — 洪水")
    for path in sorted(source.iterdir()):
        path.rename(path.with_name(path.name.replace("c", "Köln süd ")))
    return source


@case("a newline in a name", "item", "no name of this layout", accepted=PATCHES - 1)
def _(folder: Path) -> Path:
    source = chips(folder / "source")
    path = source / f"c{BAD:02d}_vh.tif"
    path.rename(path.with_name(path.name.replace("c", "c\n")))
    return source


@case("sizes that are no multiple of 256", "handled", accepted=PATCHES + 3)
def _(folder: Path) -> Path:
    source = chips(folder / "source")
    wide = area(400, 300)
    chip(source, BAD, wide.after, wide.mask)
    return source


@case("no known layout", "input", "no known layout")
def _(folder: Path) -> Path:
    (folder / "source").mkdir()
    (folder / "source" / "readme.txt").write_text("floods")
    return folder / "source"


@case("two layouts at once", "input", "at once")
def _(folder: Path) -> Path:
    return tiles(chips(folder / "source"))


@case("a source that is not there", "input", "no such file or folder")
def _(folder: Path) -> Path:
    return folder / "nowhere"


def manifest(name: str, outcome: str, rule: str, text: str) -> None:
    def make(folder: Path) -> Path:
        source = chips(folder / "source")
        (source / "event.yaml").write_text(text, encoding="utf-8")
        return source

    CASES.append(Case(name, outcome, rule, make, accepted=PATCHES))


manifest("manifest that fits", "handled", "", "name: Elbe\nunits: db\nacquired: 2013-06-03\n")
manifest(
    "manifest that says linear of dB",
    "input",
    "values are db, event.yaml says linear",
    "units: linear\n",
)
manifest("manifest that is no YAML", "input", "cannot be read as YAML", "units: [db\n")
manifest("manifest with an unknown field", "input", "a manifest may have", "unit: db\n")


@case(
    "--units that the values contradict",
    "input",
    "values are db, --units says linear",
    said=Said(units="linear"),
)
def _(folder: Path) -> Path:
    return chips(folder / "source")


# --- scenes and polygons -------------------------------------------------------------------------


@case("scene in linear power", "handled", accepted=9)
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    power = np.float32(10) ** (read_tif(source / "scene.tif") / 10)
    write_tif(source / "scene.tif", power, place(0), nodata=np.nan)
    write_tif(source / "mask.tif", read_tif(source / "mask.tif")[0], place(0))
    return source


@case("scene before the flood in other units", "input", "not in db as", accepted=0)
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    where = _grid(source)
    power = np.float32(10) ** (read_tif(source / "scene.tif") / 10)
    write_tif(source / "pre.tif", power, where, nodata=np.nan)
    return source


def _grid(source: Path) -> Affine:
    import rasterio

    with rasterio.open(source / "scene.tif") as file:
        grid: Affine = file.transform
    return grid


def polygons(source: Path, crs: str | None, *, east_m: float = 0.0) -> None:
    """Replace the mask by its polygons in GeoJSON."""
    from pyproj import Transformer
    from rasterio.features import shapes

    mask = read_tif(source / "mask.tif")[0]
    where = _grid(source) @ Affine.translation(east_m / 10, 0)
    (source / "mask.tif").unlink()
    to_crs = Transformer.from_crs(CRS, crs or CRS, always_xy=True)
    features = []
    for outline, value in shapes(mask, mask == 1, transform=where):
        if value == 1:
            rings = [
                [to_crs.transform(*point) for point in ring] for ring in outline["coordinates"]
            ]
            geometry = {"type": "Polygon", "coordinates": rings}
            features.append({"type": "Feature", "properties": {}, "geometry": geometry})
    content: dict[str, object] = {"type": "FeatureCollection", "features": features}
    if crs not in (None, "EPSG:4326"):
        name = f"urn:ogc:def:crs:EPSG::{str(crs).split(':')[1]}"
        content["crs"] = {"type": "name", "properties": {"name": name}}
    (source / "mask.geojson").write_text(json.dumps(content))


@case("mask as polygons in longitude and latitude", "handled", accepted=9)
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    polygons(source, "EPSG:4326")
    return source


@case("mask as polygons in the CRS next door", "handled", accepted=9)
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    polygons(source, "EPSG:32650")
    return source


@case("polygons beside the scene", "input", "no polygon lies on the scene")
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    polygons(source, CRS, east_m=50_000)
    return source


@case(
    "polygons whose numbers are not in their CRS",
    "input",
    "no polygon lies on the scene|does not lead",
)
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    polygons(source, None)
    return source


@case("polygons in broken GeoJSON", "input", "cannot be read as GeoJSON")
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    (source / "mask.tif").unlink()
    (source / "mask.geojson").write_text('{"type": "FeatureCollection", "features": [')
    return source


@case("no polygon at all", "input", "no polygon; for a dry scene")
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    (source / "mask.tif").unlink()
    (source / "mask.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    return source


@case("mask twice, as raster and as polygons", "input", "mask.tif, mask.geojson where")
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    (source / "mask.geojson").write_text("{}")
    return source


@case("mask.gpkg that is a text", "input", "not GPKG")
def _(folder: Path) -> Path:
    source = scene(folder / "source")
    (source / "mask.tif").rename(source / "mask.gpkg")
    return source


# --- archives and addresses ----------------------------------------------------------------------


def _zip(folder: Path, entries: dict[str, bytes | Path]) -> Path:
    with zipfile.ZipFile(folder / "source.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in entries.items():
            packed.writestr(name, content.read_bytes() if isinstance(content, Path) else content)
    return folder / "source.zip"


def _packed(folder: Path) -> dict[str, bytes | Path]:
    source = chips(folder / "chips")
    return {f"chips/{path.name}": path for path in sorted(source.iterdir())}


@case("zip with all in one folder", "handled", accepted=PATCHES)
def _(folder: Path) -> Path:
    junk = {"__MACOSX/chips/._c00.tif": b"x", "chips/.DS_Store": b"x"}
    return _zip(folder, {**_packed(folder), **junk})


@case("zip with ../", "input", "leads out of the archive")
def _(folder: Path) -> Path:
    return _zip(folder, {**_packed(folder), "../../evil.tif": b"x"})


@case("zip bomb", "input", "zip bomb")
def _(folder: Path) -> Path:
    with (
        zipfile.ZipFile(folder / "source.zip", "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("c00_vv.tif", "w", force_zip64=True) as file,
    ):
        for _ in range(300):
            file.write(bytes(1 << 20))
    return folder / "source.zip"


@case("encrypted zip", "input", "is encrypted")
def _(folder: Path) -> Path:
    path = _zip(folder, {"c00_vv.tif": b"x"})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    return path


@case("truncated zip", "input", "damaged or truncated")
def _(folder: Path) -> Path:
    path = _zip(folder, _packed(folder))
    path.write_bytes(path.read_bytes()[:-3000])
    return path


@case("zip in a zip", "input", "no known layout")
def _(folder: Path) -> Path:
    inner = _zip(folder, _packed(folder)).rename(folder / "inner.zip")
    return _zip(folder, {"inner.zip": inner})


@case("zip with an entry twice", "input", "stands twice")
def _(folder: Path) -> Path:
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(folder / "source.zip", "w") as packed:
        warnings.simplefilter("ignore")
        packed.writestr("c00_vv.tif", b"x")
        packed.writestr("c00_vv.tif", b"y")
    return folder / "source.zip"


def _tar(folder: Path, mode: str, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(folder / "source.tar", mode) as packed:  # type: ignore[call-overload]
        for entry, content in entries:
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return folder / "source.tar"


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


@case("tar.xz", "handled", accepted=PATCHES)
def _(folder: Path) -> Path:
    packed = _packed(folder).items()
    return _tar(folder, "w:xz", *((_entry(n), Path(str(p)).read_bytes()) for n, p in packed))


@case("absolute path in a tar", "input", "leads out of the archive")
def _(folder: Path) -> Path:
    return _tar(folder, "w", (_entry("/etc/evil.tif"), b"x"))


@case("symlink in a tar", "input", "is a link or a device")
def _(folder: Path) -> Path:
    return _tar(folder, "w", (_entry("c00_vv.tif", tarfile.SYMTYPE, "/etc/passwd"), b""))


@case("device in a tar", "input", "is a link or a device")
def _(folder: Path) -> Path:
    return _tar(folder, "w", (_entry("c00_vv.tif", tarfile.CHRTYPE), b""))


def _stac(folder: Path, href: str) -> Path:
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "evil",
        "geometry": None,
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "links": [],
        "assets": {
            "vv": {"href": href, "type": "image/tiff"},
            "vh": {"href": "c00_vh.tif", "type": "image/tiff"},
        },
    }
    (folder / "source").mkdir()
    (folder / "source" / "item.json").write_text(json.dumps(item))
    return folder / "source" / "item.json"


@case("STAC item that names /etc/passwd", "input", "lies outside of the catalogue's folder")
def _(folder: Path) -> Path:
    return _stac(folder, "/etc/passwd")


@case("STAC item that names another machine's file", "input", "only http addresses")
def _(folder: Path) -> Path:
    return _stac(folder, "ftp://127.0.0.1/c00_vv.tif")


def table() -> str:
    """Return all cases as Markdown."""
    lines = [
        "# Spoiled inputs",
        "",
        "What becomes of sources that are not as they should be. Each line is a test in",
        "`tests/spoiled`: it writes the source, takes it in, and checks that it is caught by the",
        "rule, that the rest of the source is accepted, and that no file is lost or changed.",
        "`python tests/spoiled/corpus.py > docs/spoiled-inputs.md` writes this page.",
        "",
        "| input | what happens | what is said |",
        "|---|---|---|",
    ]
    for item in CASES:
        rule = item.rule.replace("|", " or ") or "–"
        lines.append(f"| {item.name} | {OUTCOMES[item.outcome]} | {rule} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
