"""The folder of a flood map: all its files, for people, GIS and programs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sarflood.errors import InputError
from sarflood.files import write_json
from sarflood.mapping.exclusion import SAID, Excluded, exclusion_strips
from sarflood.mapping.outputs import areas_of, summarise, write_mask, write_probability
from sarflood.mapping.preview import write_preview
from sarflood.mapping.qgis import write_layer_file
from sarflood.mapping.scene import CACHE_BYTES, SceneMap
from sarflood.mapping.vectors import write_vectors
from sarflood.mapping.wanted import Wanted
from sarflood.mapping.water import without_permanent_water
from sarflood.mapping.zones import figures_of, read_zones
from sarflood.raster.cache import block_cache
from sarflood.raster.cog import write_cog

FILES = {
    "mask": "flood.tif",
    "probability": "probability.tif",
    "exclusion": "exclusion.tif",
    "polygons": "flood.geojson",
    "geopackage": "flood.gpkg",
    "layers": "flood.qlr",
    "preview": "preview.png",
    "summary": "summary.json",
}


def write_map(
    result: SceneMap,
    out: Path,
    *,
    version: str,
    origin: Mapping[str, Any],
    wanted: Wanted | None = None,
) -> dict[str, Path]:
    """Write a map into a folder: each file whole or not at all, the summary last.

    Args:
        result: The map.
        out: The folder; it is made if need be, and an earlier map in it is replaced.
        version: The model's version, such as `v0.3.0`.
        origin: What the summary begins with; `scene` is the scene's name.
        wanted: What the files are to hold.

    Returns:
        Each of `FILES` with its path; docs/map.md says what they hold.

    Raises:
        InputError: `out` is no folder, or cannot be written, such as on a full disk; a file that
            is read for what is wanted cannot be read, or lies beside the scene.
        SarfloodError: A file cannot be written.
    """
    wanted, started = wanted or Wanted(), time.monotonic()
    make_folder(out)
    with (
        _writing(out),
        tempfile.TemporaryDirectory(prefix=".map-", dir=out) as folder,
        block_cache(CACHE_BYTES),
        ThreadPoolExecutor(1) as beside,
    ):
        made = {name: Path(folder) / file for name, file in FILES.items()}
        found: dict[str, Any] = {}
        if wanted.permanent_water:
            layer = Path(folder) / "without"
            result, km2 = without_permanent_water(result, wanted.permanent_water, layer)
            found["permanent_water_km2"] = round(km2, 6)
        zones = []
        if wanted.zones:
            named = read_zones(wanted.zones, wanted.zone_field, result.crs, result.grid)
            zones = figures_of(named, result)
            found["zones"] = [zone.as_json() for zone in zones]
        # The vectors take one core.
        rasters = beside.submit(_write_rasters, result, made, wanted)
        preview = beside.submit(
            write_preview, result, made["preview"], version=version, scene=origin["scene"]
        )
        found |= write_vectors(
            areas_of(result), result.grid, made["polygons"], made["geopackage"], wanted, zones
        )
        found["excluded"] = rasters.result()
        preview.result()
        title = f"{out.resolve().name}, flood-unet {version}"
        label = result.manifest.label
        write_layer_file(made["layers"], title, label, result.crs, has_zones=bool(zones))
        seconds = {**result.seconds, "writing": round(time.monotonic() - started, 3)}
        summary = {**origin, **summarise(result, version), **found, "seconds": seconds}
        write_json(made["summary"], summary)
        (out / FILES["summary"]).unlink(missing_ok=True)  # it says that a map is whole
        for path in made.values():
            path.replace(out / path.name)
    return {name: out / file for name, file in FILES.items()}


def make_folder(out: Path) -> None:
    """Make the folder of a map, and try whether a file can be written there.

    Raises:
        InputError: It is a file, or cannot be written.
    """
    with _writing(out):
        if out.is_file():
            raise InputError(f"{out}: is a file; name a folder for the map")
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from error


def _write_rasters(result: SceneMap, made: Mapping[str, Path], wanted: Wanted) -> dict[str, Any]:
    """Write mask, probability, and where not to trust the map; return how much that is."""
    write_mask(result, made["mask"])
    write_probability(result, made["probability"])
    excluded = Excluded()
    write_cog(
        made["exclusion"],
        exclusion_strips(result, wanted.terrain, excluded),
        result.mask.shape,
        crs=result.crs,
        transform=result.transform,
        description=SAID,
    )
    valid = max(1, result.valid)
    return {
        "outside_training_share": (
            None if result.outside is None else round(excluded.outside / valid, 6)
        ),
        "radar_shadow_share": round(excluded.hidden / valid, 6) if wanted.terrain else None,
        "flooded_km2": round(excluded.flooded_km2, 6),
    }
