"""Room for large arrays: in memory, or in a file where they would take too much of that."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import DTypeLike, NDArray

MEMORY_SHARE = 0.4  # of the free memory that one array may take


def room(shape: tuple[int, ...], dtype: DTypeLike, scratch: Path | None) -> NDArray[Any]:
    """Return an array to write into.

    Args:
        shape: Of the array.
        dtype: Likewise.
        scratch: The folder for a file that has no name and is gone with the array, or with the
            process.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= MEMORY_SHARE * psutil.virtual_memory().available:
        return np.empty(shape, dtype)
    if scratch:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as file:
        return np.memmap(file, dtype, "w+", shape=shape)
