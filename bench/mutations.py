"""Uploads that were good once: GeoTIFFs and arrays, spoiled by chance or with intent."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from sarflood.serving.answers import WRITERS

Fields = dict[str, bytes]
_UTM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 1_500_000.0)
_TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}
# As GeoTIFFs are written: how packed, how laid out, in which order of bytes.
_FORMS: tuple[dict[str, object], ...] = (
    {},
    {"compress": "deflate", **_TILED},
    {"compress": "deflate", "predictor": 3, "interleave": "band"},
    {"compress": "lzw", "predictor": 2, "interleave": "band", **_TILED},
    {"compress": "packbits", "nodata": 0.0},
    {"compress": "zstd", **_TILED},
    {"compress": "lerc", "max_z_error": 0.01, **_TILED},
    {"compress": "lzma"},
    {"compress": "deflate", "bigtiff": "YES", "nodata": np.nan},
    {"compress": "deflate", "endianness": "BIG", "interleave": "band", **_TILED},
    {"compress": "jpeg", "interleave": "band", "dtype": "uint8", **_TILED},
    {"compress": "deflate", "dtype": "float64", "predictor": 2},
    {"compress": "deflate", "dtype": "int16", "sparse_ok": True},
)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
# Widths, heights, offsets and counts at which programs go wrong.
_NUMBERS = (
    *(0, 1, 2, 3, 7, 16, 255, 256, 257, 4096, 65_535, 65_536, 10**5, 10**6),
    *(2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1),
)
_BOUNDARY = b"----of-a-form"
_CHARSETS = (b"utf-8", b"utf-16", b"idna", b"undefined", b"unicode_escape", b"punycode", b"zlib")


@dataclass(frozen=True)
class Upload:
    """A request.

    Attributes:
        what: What was done to it.
        path: Where it goes.
        body: Its body.
        headers: With the type of the body and of the answer that is wanted.
    """

    what: str
    path: str
    body: bytes
    headers: dict[bytes, bytes]


def backscatter(edge: int, seed: int = 0) -> NDArray[np.float32]:
    """(2, H, W) float32 dB: land with a dark lake and four looks of speckle."""
    random = np.random.default_rng(seed)
    row, col = np.mgrid[:edge, :edge]
    lake = np.hypot(row - edge / 2, col - edge / 2) < edge / 4
    power = 10 ** (np.where(lake, -20.0, -9.0) / 10) * random.gamma(4.0, 0.25, (2, edge, edge))
    return (10 * np.log10(power)).astype(np.float32)


def written(image: NDArray[np.float32], names: Sequence[str], **form: object) -> bytes:
    """Write (C, H, W) dB as a GeoTIFF."""
    dtype = str(form.get("dtype", "float32"))
    values = image if dtype.startswith("float") else np.clip(image * 5 + 200, 0, 255)
    profile = {"driver": "GTiff", "crs": "EPSG:32651", "transform": _UTM, **form, "dtype": dtype}
    count, height, width = image.shape
    with MemoryFile() as file:
        with file.open(count=count, height=height, width=width, **profile) as dataset:
            dataset.write(values.astype(dtype))
            if names:
                dataset.descriptions = tuple(names)
        content: bytes = file.read()
    return content


def good_scenes(data: Path | None = None) -> list[Fields]:
    """Return forms that a service for VV and VH in dB may be sent, by the names of their fields.

    Args:
        data: A folder with chips of Sen1Floods11 and STAC Overflow; without it all are simulated.
    """
    scenes = [
        {"scene": written(backscatter(96 + 32 * (number % 4)), ("VV", "VH"), **form)}
        for number, form in enumerate(_FORMS)
    ]
    vv, vh = (written(band[None], ()) for band in backscatter(160))
    scenes.append({"scene_vv": vv, "scene_vh": vh})
    if data:
        chips = sorted(data.rglob("*_S1Hand.tif"))[:4]
        scenes += [{"scene": chip.read_bytes()} for chip in chips]
        for path in sorted(data.rglob("*_vv.tif"))[:4]:
            other = path.with_name(path.name.replace("_vv", "_vh"))
            scenes.append({"scene_vv": path.read_bytes(), "scene_vh": other.read_bytes()})
    return scenes


def form(fields: Fields, boundary: bytes = _BOUNDARY) -> bytes:
    """Return a multipart form with a file in each field."""
    parts = b"".join(
        b"--%s\r\nContent-Disposition: form-data; name=%s; filename=a.tif\r\n"
        b"Content-Type: image/tiff\r\n\r\n%s\r\n" % (boundary, name.encode(), content)
        for name, content in fields.items()
    )
    return parts + b"--%s--\r\n" % boundary


def unspoiled(fields: Fields) -> Upload:
    """Return a good upload."""
    kind = b"multipart/form-data; boundary=" + _BOUNDARY
    return Upload("good", "/predict", form(fields), {b"Content-Type": kind})


class Spoiler:
    """Gives uploads without end, the same for the same seed.

    Args:
        scenes: Good ones, see `good_scenes`.
        seed: For the drawing.
    """

    def __init__(self, scenes: Sequence[Fields], seed: int = 0) -> None:
        self._scenes = scenes
        self._random = np.random.default_rng(seed)

    def uploads(self) -> Iterator[Upload]:
        """Spoil one after the other."""
        while True:
            draw = self._random.random()
            if draw < 0.85:
                yield self._scene()
            elif draw < 0.93:
                yield self._form()
            else:
                yield self._array()

    def _int(self, below: int) -> int:
        return int(self._random.integers(max(below, 1)))

    def _bytes(self, count: int) -> bytes:
        return self._random.bytes(count)

    def _headers(self, kind: bytes) -> dict[bytes, bytes]:
        accept = (*WRITERS, "*/*")[self._int(len(WRITERS) + 1)]
        return {b"Content-Type": kind, b"Accept": accept.encode()}

    def _fields(self) -> Fields:
        return dict(self._scenes[self._int(len(self._scenes))])

    def _scene(self) -> Upload:
        """Spoil a file of a scene."""
        fields = self._fields()
        names = list(fields)
        name = names[self._int(len(names))]
        ways = (self._flipped, self._headed, self._tagged, self._cut, self._spliced, self._blanked)
        way = ways[self._random.choice(len(ways), p=(0.15, 0.2, 0.4, 0.1, 0.1, 0.05))]
        content = fields[name]
        for _ in range(1 + self._int(3)):
            content = way(content)
        fields[name] = content
        headers = self._headers(b"multipart/form-data; boundary=" + _BOUNDARY)
        return Upload(way.__name__.strip("_"), "/predict", form(fields), headers)

    def _flipped(self, content: bytes, start: int = 0, stop: int | None = None) -> bytes:
        """Change some bytes, anywhere."""
        spoiled = bytearray(content)
        for _ in range(1 + self._int(8)):
            place = start + self._int((stop or len(spoiled)) - start)
            if place < len(spoiled):
                spoiled[place] = self._int(256)
        return bytes(spoiled)

    def _headed(self, content: bytes) -> bytes:
        """Change some bytes of the header, wherever it is, but for the first four."""
        start = struct.unpack_from("<I", content, 4)[0] if len(content) > 8 else 0
        if self._int(2) or start >= len(content):
            return self._flipped(content, 4, 600)
        return self._flipped(content, start, start + 400)

    def _cut(self, content: bytes) -> bytes:
        """Leave off the end."""
        return content[: self._int(len(content))]

    def _spliced(self, content: bytes) -> bytes:
        """Go on with another file from somewhere on."""
        other = next(iter(self._fields().values()))
        place = self._int(len(content))
        return content[:place] + other[place if self._int(2) else self._int(len(other)) :]

    def _blanked(self, content: bytes) -> bytes:
        """Fill a part with one byte, or with what stands elsewhere."""
        start, size = self._int(len(content)), self._int(4096)
        other = self._int(len(content))
        filler = content[other : other + size] if self._int(2) else bytes([self._int(256)]) * size
        return content[:start] + filler + content[start + size :]

    def _tagged(self, content: bytes) -> bytes:
        """Change an entry of the directory: its tag, type, count or value; or where it goes on."""
        if len(content) < 16 or content[:2] not in (b"II", b"MM"):
            return content
        order = "<" if content[:2] == b"II" else ">"
        big = struct.unpack_from(order + "H", content, 2)[0] == 43
        start = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)[0]
        spoiled = bytearray(content)
        try:
            entries = struct.unpack_from(order + ("Q" if big else "H"), spoiled, start)[0]
            entries = min(entries, 100)
            start += 8 if big else 2
            size = 20 if big else 12
            entry = start + size * self._int(entries + 1)
            number = _NUMBERS[self._int(len(_NUMBERS))]
            if self._int(4) == 0:
                number = self._int(len(content))
            if entry == start + size * entries:  # where the next directory begins
                struct.pack_into(order + ("Q" if big else "I"), spoiled, entry, number)
                return bytes(spoiled)
            which = self._int(10)
            if which == 0:
                struct.pack_into(order + "H", spoiled, entry, self._int(65_536))
            elif which == 1:
                struct.pack_into(order + "H", spoiled, entry + 2, self._int(20))
            elif which < 4:
                struct.pack_into(order + ("Q" if big else "I"), spoiled, entry + 4, number)
            else:
                self._revalue(spoiled, entry, order, number, big=big)
        except struct.error:
            return content
        return bytes(spoiled)

    def _revalue(
        self, spoiled: bytearray, entry: int, order: str, number: int, *, big: bool
    ) -> None:
        """Change the value of an entry, or one of its values where they stand elsewhere."""
        kind, count = struct.unpack_from(order + ("HQ" if big else "HI"), spoiled, entry + 2)
        place, room = entry + (12 if big else 8), 8 if big else 4
        width = _TYPE_BYTES.get(kind, 1)
        if width * count > room and self._int(2):
            place = struct.unpack_from(order + ("Q" if big else "I"), spoiled, place)[0]
            place += width * self._int(min(count, 10_000))
        codes = {1: "B", 2: "H", 4: "I", 8: "Q"}
        value = number % 2 ** (8 * width)
        if kind in (11, 12):
            odd = (0.0, 1e-30, 1e30, np.nan, np.inf, -1.0, 1e9)[self._int(7)]
            struct.pack_into(order + ("f" if kind == 11 else "d"), spoiled, place, odd)
        else:
            struct.pack_into(order + codes[width], spoiled, place, value)

    def _form(self) -> Upload:
        """Spoil the form around good files."""
        fields = self._fields()
        kind = b"multipart/form-data; boundary=" + _BOUNDARY
        body = form(fields)
        which = self._int(6)
        if which == 0:
            body = self._flipped(body, 0, 200)
        elif which == 1:
            kind += b"; charset=" + _CHARSETS[self._int(len(_CHARSETS))]
            body = body.replace(b"name=scene", b'name="sc\xe9\xff\\ud800ene"', self._int(2))
        elif which == 2:
            kind = self._flipped(kind).translate(None, bytes(range(32))).strip()
        elif which == 3:
            body = form({**fields, f"pre{'_vv' * self._int(2)}": next(iter(fields.values()))})
        elif which == 4:
            body = form({(name if self._int(2) else "pre"): file for name, file in fields.items()})
        else:
            body = body[: self._int(len(body))]
        return Upload("form", "/predict", body, self._headers(kind))

    def _array(self) -> Upload:
        """Spoil an array of patches."""
        file = io.BytesIO()
        patches = np.stack([backscatter(256, seed) for seed in range(1 + self._int(2))])
        np.save(file, patches.astype((np.float32, np.float16)[self._int(2)]), allow_pickle=False)
        body = file.getvalue()
        way = (self._flipped, self._cut, self._spliced, self._blanked)[self._int(4)]
        body = self._flipped(body, 0, 128) if self._int(2) else way(body)
        headers = self._headers(b"application/octet-stream")
        return Upload("array", "/predict/patches", body, headers)
