"""The files of a flood map: COGs, polygons, a summary, a picture."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarflood.errors import InputError
from sarflood.files import write_json, write_text
from sarflood.mapping.scene import SceneMap
from sarflood.raster.cog import write_cog
from sarflood.raster.patch import UNKNOWN
from sarflood.raster.polygons import flood_polygons

FILES = {
    "mask": "flood.tif",
    "probability": "probability.tif",
    "polygons": "flood.geojson",
    "preview": "preview.png",
    "summary": "summary.json",
}


def write_map(
    result: SceneMap,
    out: Path,
    *,
    version: str,
    scene: Path,
    inputs: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Write a map into a folder: each file whole or not at all, the summary last.

    Args:
        result: The map.
        out: The folder; it is made if need be, and an earlier map in it is replaced.
        version: The model's version, such as `v0.3.0`.
        scene: The scene, for its name.
        inputs: The SHA-256 of what was mapped, for the summary; see `SceneFiles.hashes`.

    Returns:
        `mask` (flood.tif), `probability` (probability.tif, percent), `polygons` (flood.geojson),
        `preview` (preview.png) and `summary` (summary.json), each with its path.

    Raises:
        InputError: `out` is no folder, or cannot be written, such as on a full disk.
    """
    make_folder(out)
    polygons = map_polygons(result)
    with _writing(out), tempfile.TemporaryDirectory(prefix=".map-", dir=out) as folder:
        made = {name: Path(folder) / file for name, file in FILES.items()}
        write_mask(result, made["mask"])
        write_cog(
            made["probability"],
            _percent(result.probability),
            crs=result.crs,
            transform=result.transform,
            description=f"probability of {result.manifest.label} in percent",
        )
        write_text(made["polygons"], json.dumps(polygons, allow_nan=False))
        from sarflood.mapping.preview import write_preview

        write_preview(result, made["preview"], version=version, scene=scene.name)
        summary = {"scene": scene.name, "inputs": inputs or {}, **summarise(result, version)}
        write_json(made["summary"], {**summary, "polygons": len(polygons["features"])})
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


def write_mask(result: SceneMap, path: Path) -> None:
    """Write the mask as a cloud-optimised GeoTIFF: 0 dry, 1 wet, 255 no data."""
    write_cog(
        path,
        result.mask,
        crs=result.crs,
        transform=result.transform,
        description=f"{result.manifest.label}: 0 dry, 1 wet, 255 no data",
    )


def map_polygons(result: SceneMap, *, at_most: int | None = None) -> dict[str, Any]:
    """Return the wet areas as a GeoJSON FeatureCollection.

    Raises:
        InputError: There are more than `at_most` areas.
    """
    return flood_polygons(
        result.mask, result.probability, result.crs, result.transform, at_most=at_most
    )


def summarise(result: SceneMap, version: str) -> dict[str, Any]:
    """Return the map's figures as plain JSON."""
    height, width = result.mask.shape
    return {
        "version": version,
        "label": result.manifest.label,
        "flooded_km2": round(result.flooded_km2, 6),
        "flooded_share": round(result.flooded_share, 6),
        "valid_share": round(result.valid_share, 6),
        "threshold": result.manifest.threshold,
        "width": width,
        "height": height,
        "crs": result.crs.to_string(),
        "seconds": round(result.seconds, 3),
    }


def _percent(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    percent = probability * 100
    np.nan_to_num(percent, copy=False, nan=UNKNOWN)
    return np.rint(percent, out=percent).astype(np.uint8)
