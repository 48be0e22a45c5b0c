"""Uploads that were made to do harm, each with what it is and the statuses that it may get."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from tiny import naming_a_grid, speckle, write_scene

WIDTH, HEIGHT, BITS, COUNT = 256, 257, 258, 277
GOOD = {200}
WRONG, LARGE, TYPE = {422}, {413}, {415}


def with_tag(content: bytes, tag: int, value: int) -> bytes:
    """Change the value of a tag in a little-endian TIFF."""
    spoiled = bytearray(content)
    start = struct.unpack_from("<I", content, 4)[0]
    for number in range(struct.unpack_from("<H", content, start)[0]):
        entry = start + 2 + 12 * number
        if struct.unpack_from("<H", content, entry)[0] == tag:
            struct.pack_into("<HHII", spoiled, entry, tag, 4, 1, value)
            return bytes(spoiled)
    raise KeyError(tag)


def scenes(folder: Path) -> Iterator[tuple[str, bytes, set[int]]]:
    """Give files for the field `scene`."""
    image = speckle(2, 200, 200)
    good = write_scene(folder / "good.tif", image).read_bytes()
    yield "a header of 10^10 pixels", with_tag(with_tag(good, WIDTH, 10**5), HEIGHT, 10**5), LARGE
    yield "a side without end", with_tag(good, WIDTH, 2**32 - 1), LARGE | WRONG
    yield "65,535 bands", with_tag(good, COUNT, 65_535), WRONG
    yield "a VRT behind the bytes of a TIFF", b"II*\0<VRTDataset rasterXSize='1'/>", WRONG
    yield "a VRT", b"<VRTDataset><SourceFilename>/etc/passwd</SourceFilename></VRTDataset>", TYPE
    yield "a zip", b"PK\x03\x04" + bytes(100), TYPE
    yield "a grid that names a file", naming_a_grid(folder / "grid.tif", Path("/etc/passwd")), WRONG
    yield "a directory that goes on with itself", _looping(good), GOOD | WRONG
    yield "30,000 directories", _many_directories(good, 30_000), GOOD | WRONG
    yield "100,000 nested tags of metadata", _nested(folder, 100_000), GOOD | WRONG

    def made(
        name: str, values: Any, statuses: set[int], **profile: Any
    ) -> tuple[str, bytes, set[int]]:
        return name, write_scene(folder / "made.tif", values, **profile).read_bytes(), statuses

    yield made("zeros that unpack to 500 times", np.zeros((2, 8000, 8000), np.float32), LARGE)
    yield made(
        "one block of 650 MB",
        np.ones((2, 9000, 9000), np.float32),
        LARGE,
        tiled=False,
        blockysize=9000,
        compress="zstd",
    )
    yield made("tiles of 16 pixels", speckle(2, 1500, 1500), GOOD, blockxsize=16, blockysize=16)
    yield made("only NaN", np.full_like(image, np.nan), WRONG)
    yield made("infinite", np.full_like(image, np.inf), WRONG)
    yield made("complex numbers", image.astype(np.complex64), WRONG)
    yield made("one band", image[:1], WRONG)
    yield made("seventeen bands", np.repeat(image[:1], 17, 0), WRONG)
    yield made("no georeference", image, WRONG, crs=None, transform=None)
    yield made(
        "a grid beyond the pole",
        image,
        WRONG,
        crs="EPSG:4326",
        transform=Affine(0.1, 0, 0, 0, -0.1, 95),
    )
    yield made("a grid of no size", image, WRONG, transform=Affine(0, 0, 5e5, 0, 0, 1.5e6))
    yield made(
        "a grid that is not finite",
        image,
        WRONG,
        transform=Affine(1e300, 0, 1e308, 0, -1e300, 1e308),
    )
    yield made(
        "a grid in no metres", image, WRONG, crs=CRS.from_wkt('LOCAL_CS["here",UNIT["metre",1]]')
    )
    points = [
        GroundControlPoint(row, col, 120 + col / 1e3, 15 - row / 1e3)
        for row in (0, 200)
        for col in (0, 200)
    ]
    yield made(
        "ground control points alone",
        image,
        WRONG,
        crs="EPSG:4326",
        transform=None,
        gcps=points,
    )


def arrays() -> Iterator[tuple[str, bytes, set[int]]]:
    """Give bodies for `/predict/patches`."""

    def npy(array: Any) -> bytes:
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        return file.getvalue()

    good = npy(speckle(2, 256, 256)[None])
    yield "a pickle", npy(np.array([{"a": 1}], dtype=object)), WRONG
    yield "a pickle by itself", b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.", TYPE
    # The header is padded with spaces, so that it stays as long.
    many = b"(999999999, 2, 256, 256), }"
    yield "10^14 values", good.replace(b"(1, 2, 256, 256), }".ljust(len(many)), many), WRONG
    yield "an archive", b"PK\x03\x04" + zlib.compress(bytes(10**6)), TYPE
    yield "infinite values", npy(np.full((1, 2, 256, 256), np.inf, np.float32)), GOOD


def _looping(content: bytes) -> bytes:
    start = struct.unpack_from("<I", content, 4)[0]
    end = start + 2 + 12 * struct.unpack_from("<H", content, start)[0]
    return content[:end] + struct.pack("<I", start) + content[end + 4 :]


def _many_directories(content: bytes, count: int) -> bytes:
    """Hang a chain of small directories behind the one there is."""
    start = struct.unpack_from("<I", content, 4)[0]
    end = start + 2 + 12 * struct.unpack_from("<H", content, start)[0]
    chain = bytearray()
    first = len(content)
    size = 2 + 12 * 2 + 4
    for number in range(count):
        following = first + size * (number + 1) if number + 1 < count else 0
        chain += struct.pack("<H", 2)
        chain += struct.pack("<HHII", WIDTH, 4, 1, 1) + struct.pack("<HHII", HEIGHT, 4, 1, 1)
        chain += struct.pack("<I", following)
    return content[:end] + struct.pack("<I", first) + content[end + 4 :] + bytes(chain)


def _nested(folder: Path, depth: int) -> bytes:
    """Write a scene whose XML of metadata is nested very deeply."""
    path = write_scene(folder / "nested.tif", speckle(2, 64, 64))
    room = "x" * (7 * depth)
    with rasterio.open(path, "r+") as scene:
        scene.update_tags(A=room)
    content = path.read_bytes()
    start = content.index(b"<GDALMetadata>")
    end = content.index(b"</GDALMetadata>") + len(b"</GDALMetadata>")
    deep = b"<a>" * ((end - start) // 7)
    deep += b"</a>" * ((end - start - len(deep)) // 4)
    return content[:start] + deep.ljust(end - start) + content[end:]
