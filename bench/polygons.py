"""Polygons of a whole scene: seconds and memory until they are written, and whether seams show.

A mask of smooth noise, as wide and high as a scene of Sentinel-1, is written as GeoJSON and as
GeoPackage by a process of its own, with no area too small. A part of it is outlined in strips and
in one piece, and the two are compared polygon by polygon.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rich.console import Console
from scipy.ndimage import gaussian_filter

from bench.claims import Claim, parser, peak_gib, report
from sarflood.mapping.layers import Layer
from sarflood.mapping.vectors import write_vectors
from sarflood.mapping.wanted import Wanted
from sarflood.raster.grid import Grid
from sarflood.raster.outline import WetArea, wet_areas

HEIGHT, WIDTH = 16_700, 25_000
PIECE = 1024
WET_SHARE = 0.3
GRID = rasterio.Affine(10.0, 0.0, 300_000.0, 0.0, -10.0, 1_800_000.0)
Strip = tuple[int, NDArray[np.uint8], NDArray[np.uint8]]
say = Console(stderr=True).print


def layers(folder: Path, shape: tuple[int, int]) -> tuple[Layer, Layer]:
    """Return mask and percents."""
    mask, percent = (Layer(folder / name, shape, np.uint8) for name in ("mask", "percent"))
    return mask, percent


def draw(folder: Path, shape: tuple[int, int], smooth: float) -> None:
    """Write a mask of smooth noise, made of a few pieces in random order."""
    generator = np.random.default_rng(0)
    pieces = [
        gaussian_filter(generator.standard_normal((PIECE, PIECE), np.float32), smooth, mode="wrap")
        for _ in range(6)
    ]
    least = np.quantile(np.stack(pieces), 1 - WET_SHARE)
    mask, percent = layers(folder, shape)
    for top in range(0, shape[0], PIECE):
        chosen = generator.integers(len(pieces), size=-(-shape[1] // PIECE))
        rows = np.concatenate([pieces[number] for number in chosen], axis=1)
        rows = rows[: shape[0] - top, : shape[1]] - least
        mask.write(top, (rows > 0).astype(np.uint8))
        percent.write(top, np.clip(50 + rows * 1000, 0, 100).astype(np.uint8))


def both(mask: Layer, percent: Layer) -> Iterator[Strip]:
    """Give mask and percents together, strip by strip."""
    for (top, rows), (_, percents) in zip(mask.strips(), percent.strips(), strict=True):
        yield top, rows, percents


def write(folder: Path, shape: tuple[int, int]) -> tuple[int, float, float, float]:
    """Write all polygons.

    Returns:
        Their number, the seconds, those of the processor, and the GiB beyond the idle process.
    """
    grid = Grid(*shape, rasterio.CRS.from_epsg(32651), GRID)
    idle, started, busy = peak_gib(), time.monotonic(), time.process_time()
    areas, wanted = wet_areas(both(*layers(folder, shape))), Wanted(min_area_m2=0.0)
    found = write_vectors(areas, grid, folder / "a.geojson", folder / "a.gpkg", wanted)
    seconds = (time.monotonic() - started, time.process_time() - busy)
    return (int(found["polygons"]), *seconds, peak_gib() - idle)


def different(folder: Path, shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Outline a part of the mask in strips and at once; return how many differ, and of how many."""
    mask, percent = (layer.rows(0, size)[:, :size] for layer in layers(folder, shape))
    strips = (
        (top, mask[top : top + PIECE], percent[top : top + PIECE]) for top in range(0, size, PIECE)
    )

    def ordered(areas: Iterable[WetArea]) -> list[WetArea]:
        return sorted(areas, key=lambda area: (area.outline.bounds, area.pixels))

    pieced, whole = ordered(wet_areas(strips)), ordered(wet_areas([(0, mask, percent)]))
    one, other = ([shapely.normalize(area.outline) for area in areas] for areas in (pieced, whole))
    same = sum(
        a.mean_percent == b.mean_percent and left == right
        for a, b, left, right in zip(pieced, whole, one, other, strict=False)
    )
    return max(len(pieced), len(whole)) - same, len(whole)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parser(__doc__ or "")
    options.add_argument("--height", type=int, default=HEIGHT)
    options.add_argument("--smooth", type=float, default=8.0, help="pixels; less: more polygons")
    options.add_argument("--part", type=int, default=4096, help="edge of the part in one piece")
    asked = options.parse_args(arguments)
    shape = (asked.height, WIDTH)
    with tempfile.TemporaryDirectory(prefix="sarflood-polygons-") as name:
        folder = Path(name)
        draw(folder, shape, asked.smooth)
        say("mask drawn")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            count, seconds, busy, gib = pool.apply(write, (folder, shape))
        sizes = [(folder / file).stat().st_size / 2**20 for file in ("a.geojson", "a.gpkg")]
        say(f"{count} polygons in {seconds:.1f} s: {sizes[0]:.0f} and {sizes[1]:.0f} MiB")
        wrong, of = different(folder, shape, min(asked.part, asked.height))
    how = f"{count:,} polygons of {shape[0]} × {shape[1]} pixels, as GeoJSON and GeoPackage"
    claims = [
        Claim("polygons", count, 1e5, "so many at least are written", at_least=True),
        Claim(
            "seconds until polygons are written",
            seconds,
            60.0,
            f"{how}; {busy:.0f} s of one processor",
        ),
        Claim("GiB of memory at the peak above the idle process", gib, 1.5, how),
        Claim(
            "polygons that differ from those of one piece",
            wrong,
            0,
            f"{of:,} polygons of {min(asked.part, asked.height)}² pixels",
        ),
    ]
    return report(claims, asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
