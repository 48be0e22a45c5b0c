"""Rasters of a map on disk while it is made: plain rows, written and read by parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarflood.errors import SarfloodError
from sarflood.mapping.tiles import STEP


class Layer:
    """A raster of one band, row after row in a file without a header.

    Attributes:
        path: The file.
        shape: Rows and columns.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: type[np.generic]) -> None:
        self.path, self.shape, self._dtype = path, shape, np.dtype(dtype)
        if not path.exists():
            path.touch()

    def write(self, top: int, values: NDArray[Any]) -> None:
        """Write rows from `top` on, and see them on the disk.

        Args:
            top: The first row.
            values: (h, W) of the layer's type.

        Raises:
            SarfloodError: They cannot be written, such as on a full disk.
        """
        try:
            with self.path.open("r+b") as file:
                file.seek(top * self._row_bytes)
                file.write(np.ascontiguousarray(values, self._dtype).data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SarfloodError(f"{self.path}: cannot be written: {error.strerror}") from error

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        """Read rows `top` to `bottom`: (bottom − top, W)."""
        count = (bottom - top) * self.shape[1]
        values = np.fromfile(self.path, self._dtype, count, offset=top * self._row_bytes)
        return values.reshape(bottom - top, self.shape[1])

    def strips(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Give all rows from the top down, 1024 at a time: the first row's number and (h, W)."""
        for top in range(0, self.shape[0], STEP):
            yield top, self.rows(top, min(top + STEP, self.shape[0]))

    def whole(self) -> NDArray[Any]:
        """Read all rows: (H, W)."""
        return self.rows(0, self.shape[0])

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * self._dtype.itemsize
