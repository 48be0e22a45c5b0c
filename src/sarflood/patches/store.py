"""The patch store of an event: images and masks by memory map, an index row a patch."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sarflood.errors import InputError
from sarflood.files import replacing
from sarflood.patches.statistics import patch_statistics
from sarflood.raster.patch import PATCH, UNKNOWN
from sarflood.sources.event import Event
from sarflood.sources.reader import RawPatch


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
        self._file.write(np.ascontiguousarray(item, self._dtype).tobytes())
        self._length += 1

    def close(self) -> None:
        if self._write_header() != self._header_bytes:
            raise InputError(f"{self._file.name}: {self._length} patches are too many")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class PatchWriter:
    """Writes an event's folder patch by patch, with memory for one patch and the index.

    Args:
        folder: An existing folder; `images.npy`, `masks.npy`, `index.parquet`, `event.yaml` go in.
        event: The manifest.
        labelled: Whether the patches have masks.
    """

    def __init__(self, folder: Path, event: Event, *, labelled: bool) -> None:
        self._folder, self._event = folder, event
        shape = (len(event.bands), PATCH, PATCH)
        self._images = _GrowingNpy(folder / "images.npy", shape, "<f2")
        self._masks = _GrowingNpy(folder / "masks.npy", shape[1:], "|u1") if labelled else None
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._images.close()
        if self._masks:
            self._masks.close()
        if error is None:
            self._event.write(self._folder / "event.yaml")
            with replacing(self._folder / "index.parquet") as temporary:
                self.index().to_parquet(temporary, index=False)

    def add(self, patch: RawPatch, item: str) -> dict[str, Any]:
        """Write one patch and return its index row; statistics are of the values as stored.

        Raises:
            InputError: The event is labelled, and the patch has no mask.
        """
        image, mask = patch.image, patch.mask
        if self._masks and mask is None:
            raise InputError(
                f"{item}: patch {patch.name} has no mask, and event {self._event.id} is labelled; "
                "give patches without labels an event of their own"
            )
        if mask is not None:
            mask = np.where(np.isfinite(image).all(axis=0), mask, UNKNOWN).astype(np.uint8)
        stored = image.astype(np.float16)
        digest = hashlib.sha256(stored.tobytes())
        if mask is not None:
            digest.update(mask.tobytes())
        self._images.append(stored)
        if self._masks and mask is not None:
            self._masks.append(mask)
        transform = json.dumps(list(patch.transform)[:6]) if patch.transform else None
        row = {
            "id": f"{self._event.id}/{patch.name}",
            "event": self._event.id,
            "sha256": digest.hexdigest(),
            "item": item,
            "grid": patch.grid,
            "row": patch.row,
            "col": patch.col,
            "crs": patch.crs,
            "transform": transform,
            "height": patch.height,
            "width": patch.width,
            "dtype": patch.dtype,
            **patch_statistics(stored.astype(np.float32), mask, self._event.bands),
        }
        self._rows.append(row)
        return row

    def copy(self, other: EventPatches, rows: NDArray[np.int64]) -> None:
        """Append `rows` of another store of the same event as they are."""
        for row in rows:
            self._images.append(other.images[row])
            if self._masks and other.masks is not None:
                self._masks.append(other.masks[row])
        for row in other.index.iloc[rows].to_dict("records"):
            self._rows.append({str(name): value for name, value in row.items()})

    def index(self) -> pd.DataFrame:
        """Return the rows written so far."""
        return pd.DataFrame(self._rows)


@dataclass(frozen=True)
class EventPatches:
    """An accepted event, opened by memory map.

    Attributes:
        event: The manifest.
        index: A row a patch, in the order of the arrays.
        images: (N, C, 256, 256) float16, in `event.units`; NaN no data.
        masks: (N, 256, 256) uint8; None where unlabelled.
    """

    event: Event
    index: pd.DataFrame
    images: NDArray[np.float16]
    masks: NDArray[np.uint8] | None


def open_event(folder: Path) -> EventPatches:
    """Open an event's folder.

    Raises:
        InputError: A file is missing, or the arrays do not fit the index.
    """
    try:
        event = Event.read(folder / "event.yaml")
        index = pd.read_parquet(folder / "index.parquet")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        masks_file = folder / "masks.npy"
        masks = (
            np.load(masks_file, mmap_mode="r", allow_pickle=False) if masks_file.exists() else None
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: not a whole event ({error}); get it with `dvc pull`, or ingest it again"
        ) from error
    expected = (len(index), len(event.bands), PATCH, PATCH)
    lengths = {len(array) for array in (images, masks) if array is not None}
    if images.shape != expected or lengths != {len(index)}:
        raise InputError(f"{folder}: images.npy is {images.shape}, the index says {expected}")
    return EventPatches(event, index, images, masks)


def open_events(folder: Path) -> list[EventPatches]:
    """Open all events below `folder` (`data/events`), in the order of their ids."""
    return [open_event(path.parent) for path in sorted(folder.glob("*/event.yaml"))]
