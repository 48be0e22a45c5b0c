"""The patch store of an event: images and masks by memory map, an index row a patch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sarflood.errors import InputError
from sarflood.patches.labels import LABEL_STATISTICS
from sarflood.patches.sketch import sketch
from sarflood.patches.statistics import BAND_STATISTICS, CLASS_MEANS, patch_statistics
from sarflood.raster.patch import PATCH, UNKNOWN
from sarflood.sources.event import Event
from sarflood.sources.reader import RawPatch

MASKS, WATER = "masks.npy", "permanent_water.npy"
_ROWS_AT_ONCE = 1000
_HEADER_BYTES = 128  # of our .npy files, see `_GrowingNpy`
_TEXTS = ("id", "event", "sha256", "image_sha256", "mask_sha256", "item", "grid", "crs")
_NUMBERS = ("row", "col", "height", "width")


def index_schema(bands: tuple[str, ...]) -> pa.Schema:
    """Return the columns of `index.parquet`: who, where, and the statistics as float32."""
    statistics = [
        "valid_share",
        "wet_share",
        *LABEL_STATISTICS,
        *(f"{band}_{name}" for band in bands for name in (*BAND_STATISTICS, *CLASS_MEANS)),
    ]
    return pa.schema(
        [(name, pa.string()) for name in (*_TEXTS, "transform", "dtype")]
        + [(name, pa.int32()) for name in _NUMBERS]
        + [("sketch", pa.binary())]
        + [(name, pa.float32()) for name in statistics]
    )


@dataclass(frozen=True)
class Described:
    """A patch as it is stored.

    Attributes:
        image: (C, 256, 256) float16; NaN is no data.
        mask: (256, 256) uint8; None where unlabelled.
        permanent_water: (256, 256) uint8, 0 or 1; None where that is not known.
        row: Its row of the index.
    """

    image: NDArray[np.float16]
    mask: NDArray[np.uint8] | None
    permanent_water: NDArray[np.uint8] | None
    row: dict[str, Any]


def describe(patch: RawPatch, event: Event, item: str) -> Described:
    """Bring a patch into its stored form and describe that; may run in any thread.

    Raises:
        InputError: The event is labelled, and the patch has no mask.
    """
    image, mask = patch.image, patch.mask
    if event.label and mask is None:
        raise InputError(
            f"{item}: patch {patch.name} has no mask, and event {event.id} is labelled; "
            "give patches without labels an event of their own"
        )
    if mask is not None:
        mask = np.where(np.isfinite(image).all(axis=0), mask, np.uint8(UNKNOWN))
    stored = np.ascontiguousarray(image, np.float16)
    image_digest = hashlib.sha256(stored.data)
    digest = image_digest.copy()
    if mask is not None:
        digest.update(mask.data)
    if patch.permanent_water is not None:
        digest.update(np.ascontiguousarray(patch.permanent_water).data)
    row = {
        "id": f"{event.id}/{patch.name}",
        "event": event.id,
        "sha256": digest.hexdigest(),
        "image_sha256": image_digest.hexdigest(),
        "mask_sha256": None if mask is None else hashlib.sha256(mask.data).hexdigest(),
        "item": item,
        "grid": patch.grid,
        "row": patch.row,
        "col": patch.col,
        "crs": patch.crs,
        "transform": json.dumps(list(patch.transform)[:6]) if patch.transform else None,
        "height": patch.height,
        "width": patch.width,
        "dtype": patch.dtype,
        "sketch": sketch(image[0]),
        **patch_statistics(
            image, stored, mask, event.bands, event.units, patch.height * patch.width
        ),
    }
    return Described(stored, mask, patch.permanent_water, row)


class _GrowingNpy:
    """An .npy file that is appended to; its header gets the final length at the end."""

    def __init__(self, path: Path, item_shape: tuple[int, ...], dtype: str) -> None:
        self._file: BinaryIO = path.open("wb")
        self._item_shape, self._dtype, self._length = item_shape, np.dtype(dtype), 0
        self._header_bytes = self._write_header()

    def _write_header(self) -> int:
        # NumPy pads headers to a multiple of 64 bytes; below 10⁹ items all of ours take 128.
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._length, *self._item_shape),
        }
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def append(self, item: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(item, self._dtype).data)
        self._length += 1

    def close(self) -> None:
        if self._write_header() != self._header_bytes:
            raise InputError(f"{self._file.name}: {self._length} patches are too many")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class PatchWriter:
    """Writes an event's folder patch by patch, with memory for a thousand index rows.

    Args:
        folder: An existing folder; `images.npy`, `index.parquet`, `event.yaml` and, where the event
            has them, `masks.npy` and `permanent_water.npy` go in. It is whole once the `with` block
            ended well.
        event: The manifest.
    """

    def __init__(self, folder: Path, event: Event) -> None:
        self._folder, self._event = folder, event
        shape = (len(event.bands), PATCH, PATCH)
        self._images = _GrowingNpy(folder / "images.npy", shape, "<f2")
        self._masks, self._water = (
            _GrowingNpy(folder / name, shape[1:], "|u1") if there else None
            for name, there in ((MASKS, event.label), (WATER, event.permanent_water))
        )
        self._schema = index_schema(event.bands)
        self._index = pq.ParquetWriter(folder / "index.parquet", self._schema)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for array in (self._images, self._masks, self._water):
            if array:
                array.close()
        if error is None:
            self._flush()
        self._index.close()
        if error is None:
            _sync(self._folder / "index.parquet")
            self._event.write(self._folder / "event.yaml")

    def add(self, patch: RawPatch, item: str) -> dict[str, Any]:
        """Describe and write one patch; return its index row."""
        described = describe(patch, self._event, item)
        self.write(described)
        return described.row

    def write(self, patch: Described) -> None:
        """Append one patch."""
        self._images.append(patch.image)
        if self._masks and patch.mask is not None:
            self._masks.append(patch.mask)
        if self._water and patch.permanent_water is not None:
            self._water.append(patch.permanent_water)
        self._rows.append(patch.row)
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._index.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def stored_patches(folder: Path, only: Container[str] | None = None) -> Iterator[Described]:
    """Read an event's patches one by one; a memory map would count as memory used.

    Args:
        folder: The event's.
        only: The ids of those that are wanted; by default all.
    """
    event, table = Event.read(folder / "event.yaml"), pq.ParquetFile(folder / "index.parquet")
    shape = (len(event.bands), PATCH, PATCH)
    images = folder / "images.npy"
    numbers = count()
    for batch in table.iter_batches(_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            number = next(numbers)
            if only is not None and row["id"] not in only:
                continue
            image = _item(images, number, shape, "<f2")
            mask, water = (
                _item(folder / name, number, shape[1:], "|u1") if there else None
                for name, there in ((MASKS, event.label), (WATER, event.permanent_water))
            )
            yield Described(image, mask, water, row)


def _item(path: Path, number: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    size = int(np.prod(shape))
    offset = _HEADER_BYTES + number * size * np.dtype(dtype).itemsize
    return np.fromfile(path, dtype, size, offset=offset).reshape(shape)


@dataclass(frozen=True)
class EventPatches:
    """An accepted event, opened by memory map.

    Attributes:
        event: The manifest.
        index: A row a patch, in the order of the arrays.
        images: (N, C, 256, 256) float16, in `event.units`; NaN no data.
        masks: (N, 256, 256) uint8, the codes of `event.classes`; None where unlabelled.
        permanent_water: (N, 256, 256) uint8, 0 or 1; None where that is not known.
    """

    event: Event
    index: pd.DataFrame
    images: NDArray[np.float16]
    masks: NDArray[np.uint8] | None
    permanent_water: NDArray[np.uint8] | None = None


def open_event(folder: Path) -> EventPatches:
    """Open an event's folder.

    Raises:
        InputError: A file is missing, or the arrays do not fit the index.
    """
    try:
        event = Event.read(folder / "event.yaml")
        index = pd.read_parquet(folder / "index.parquet")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        masks, water = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) if there else None
            for name, there in ((MASKS, event.label), (WATER, event.permanent_water))
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: not a whole event ({error}); get it with `dvc pull`, or ingest it again"
        ) from error
    missing = set(index_schema(event.bands).names) - set(index)
    if missing:
        raise InputError(
            f"{folder}: its index has no {', '.join(sorted(missing)[:5])}; another version of "
            "sarflood wrote it: remove the event and ingest it again"
        )
    expected = (len(index), len(event.bands), PATCH, PATCH)
    lengths = {len(array) for array in (images, masks, water) if array is not None}
    if images.shape != expected or lengths != {len(index)}:
        raise InputError(f"{folder}: images.npy is {images.shape}, the index says {expected}")
    return EventPatches(event, index, images, masks, water)


def open_events(folder: Path) -> list[EventPatches]:
    """Open all events below `folder` (`data/events`), in the order of their ids."""
    return [open_event(path.parent) for path in sorted(folder.glob("*/event.yaml"))]
