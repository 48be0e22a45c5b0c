from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer
from rasterio.crs import CRS
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser
from tiny import UTM, speckle, tiny_model, write_scene

from sarflood.errors import InputError
from sarflood.mapping.layers import Layer
from sarflood.mapping.outputs import (
    count_polygons,
    summarise,
    write_mask,
    write_polygons,
    write_probability,
)
from sarflood.mapping.scene import SceneMap, map_scene
from sarflood.serving.overlay import LONGEST, write_form

FILES = ["flood.tif", "probability.tif", "flood.geojson", "radar.png", "flood.png"]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> SceneMap:
    folder = tmp_path_factory.mktemp("mapped")
    image = speckle(2, 320, 300)
    image[:, :40] = np.nan
    scene = write_scene(folder / "scene.tif", image)
    return map_scene(tiny_model(), scene, folder=folder / "map")


def read_form(body: bytes, kind: str) -> dict[str, bytes]:
    """The parts of a form by name, as another program reads them."""

    async def parse() -> dict[str, bytes]:
        async def stream() -> AsyncGenerator[bytes, None]:
            yield body

        form = await MultiPartParser(Headers({"content-type": kind}), stream()).parse()
        parts = {
            name: await part.read() if isinstance(part, UploadFile) else part.encode()
            for name, part in form.multi_items()
        }
        await form.close()
        return parts

    return anyio.run(parse)


def form_of(mapped: SceneMap, folder: Path, max_polygons: int = 10_000) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    path = folder / "form"
    summary = {**summarise(mapped, "v0.1.0"), "polygons": count_polygons(mapped)}
    kind = write_form(mapped, summary, path, max_polygons=max_polygons)
    return read_form(path.read_bytes(), kind)


def picture(part: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(part)))


def pixels_below(parts: dict[str, bytes], mapped: SceneMap) -> NDArray[np.intp]:
    """(2, h, w): on which row and column of the scene each pixel of the pictures lies."""
    west, south, east, north = json.loads(parts["overlay"])["bounds"]
    height, width = picture(parts["flood.png"]).shape[:2]
    bottom, top = np.arcsinh(np.tan(np.radians((south, north))))
    ys, xs = np.mgrid[:height, :width] + 0.5
    lon = west + (east - west) * xs / width
    lat = np.degrees(np.arctan(np.sinh(top + (bottom - top) * ys / height)))
    place = Transformer.from_crs("EPSG:4326", mapped.crs.to_wkt(), always_xy=True)
    x, y = place.transform((lon + 180) % 360 - 180, lat)
    if mapped.crs.is_geographic:
        x += 360 * np.round((mapped.transform.c - x) / 360)
    cols, rows = ~mapped.transform @ (x, y)
    return np.floor((rows, cols)).astype(np.intp)


def test_the_files_are_those_of_a_map(mapped: SceneMap, tmp_path: Path) -> None:
    parts = form_of(mapped, tmp_path / "form")
    assert list(parts) == ["summary", "overlay", *FILES]
    for write, name in zip((write_mask, write_probability), FILES, strict=False):
        write(mapped, tmp_path / name)
        assert parts[name] == (tmp_path / name).read_bytes()
    count = write_polygons(mapped, tmp_path / "flood.geojson")
    assert parts["flood.geojson"] == (tmp_path / "flood.geojson").read_bytes()
    assert json.loads(parts["summary"]) == {**summarise(mapped, "v0.1.0"), "polygons": count}


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32651", UTM),
        ("EPSG:32601", Affine(10, 0, 165_000, 0, -10, 1_500_000)),  # across 180 degrees
        ("EPSG:4326", Affine(1e-3, 0, 179.9, 0, -1e-3, -17.0)),  # runs on beyond 180
        ("EPSG:4326", Affine(1e-2, 0, -181.0, 0, -1e-2, 70.0)),  # begins before -180
        ("EPSG:4326", Affine(1e-3, 0, 238.0, 0, -1e-3, 40.0)),  # counts to 360
        ("EPSG:3413", Affine(40, 0, -2_000_000, 0, -40, -1_500_000)),  # turned by a lot
    ],
)
def test_the_pictures_lie_where_the_scene_does(
    mapped: SceneMap, tmp_path: Path, crs: str, transform: Affine
) -> None:
    mapped = dataclasses.replace(mapped, crs=CRS.from_string(crs), transform=transform)
    parts = form_of(mapped, tmp_path / "form", max_polygons=1)
    west, _, east, _ = json.loads(parts["overlay"])["bounds"]
    assert -180 <= west < 180
    assert 0 < east - west < 5
    rows, cols = pixels_below(parts, mapped)
    mask = mapped.mask.whole()
    inside = (rows >= 0) & (rows < mask.shape[0]) & (cols >= 0) & (cols < mask.shape[1])
    assert inside.mean() > 0.3
    below = mask[np.where(inside, rows, 0), np.where(inside, cols, 0)]
    flood, radar = picture(parts["flood.png"]), picture(parts["radar.png"])
    assert flood.shape == (*radar.shape[:2], 4)
    assert ((flood[..., 3] > 127) == (inside & (below == 1))).mean() > 0.985
    assert ((radar[..., 1] == 255) == (inside & (below != 255))).mean() > 0.985
    # The lake is dark.
    lake = (np.hypot(rows - mask.shape[0] / 2, cols - mask.shape[1] / 2) < 60) & inside
    seen = radar[..., 1] == 255
    assert radar[..., 0][lake & seen].mean() + 60 < radar[..., 0][~lake & seen].mean()


def test_a_pixel_of_water_is_not_lost_in_a_large_scene(mapped: SceneMap, tmp_path: Path) -> None:
    mask = np.zeros((200, 6000), np.uint8)
    mask[90, 3001] = 1
    layers = {name: Layer(tmp_path / name, mask.shape, np.uint8) for name in ("mask", "percent")}
    for layer in layers.values():
        layer.write(0, mask)
    wide: dict[str, Any] = {
        "backscatter": np.zeros((50, 1500), np.float32),
        "backscatter_step": 4,
        **layers,
    }
    mapped = dataclasses.replace(mapped, **wide)
    parts = form_of(mapped, tmp_path / "form")
    flood = picture(parts["flood.png"])
    assert max(flood.shape) == LONGEST
    wet = flood[..., 3] > 0
    assert 1 <= wet.sum() <= 4
    rows, cols = pixels_below(parts, mapped)
    assert np.abs(cols[wet] - 3001).max() <= 3
    assert np.abs(rows[wet] - 90).max() <= 3


def test_too_many_areas_are_left_out_and_the_rest_is_there(
    mapped: SceneMap, tmp_path: Path
) -> None:
    parts = form_of(mapped, tmp_path / "form", max_polygons=1)
    assert json.loads(parts["summary"])["polygons"] > 1
    assert set(parts) == {"summary", "overlay", *FILES} - {"flood.geojson"}


def test_a_scene_at_the_pole_has_no_place_on_a_web_map(mapped: SceneMap, tmp_path: Path) -> None:
    polar = dataclasses.replace(
        mapped, crs=CRS.from_epsg(3413), transform=Affine(10, 0, 9000, 0, -10, 9000)
    )
    with pytest.raises(InputError, match=r"beyond 85.05 degrees"):
        form_of(polar, tmp_path / "form")


def test_the_mask_opens_as_it_came(mapped: SceneMap, tmp_path: Path) -> None:
    part = form_of(mapped, tmp_path / "form")["flood.tif"]
    with rasterio.MemoryFile(part) as file, file.open() as dataset:
        assert np.array_equal(dataset.read(1), mapped.mask.whole())
