from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from sarflood.patches.room import room


def test_what_exceeds_the_memory_lies_in_a_file_without_a_name(tmp_path: Path) -> None:
    patch = 256 * 256
    count = psutil.virtual_memory().total // patch + 1
    array = room((count, patch), np.uint8, tmp_path / "scratch")
    array[0], array[-1] = 7, 9
    assert (int(array[0, 5]), int(array[1, 5]), int(array[-1, 5])) == (7, 0, 9)
    assert not list((tmp_path / "scratch").iterdir()), "nothing is left behind, whatever happens"


@pytest.mark.parametrize("shape", [(0, 3), (4, 3)])
def test_what_fits_is_in_memory(tmp_path: Path, shape: tuple[int, int]) -> None:
    array = room(shape, np.float16, tmp_path)
    assert not isinstance(array, np.memmap)
    assert array.shape == shape
    assert array.dtype == np.float16
