"""What a process keeps of the memory that it no longer needs."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Small blocks and large ones by turns, of which the small ones stay.
PROGRAM = """
import ctypes
import psutil
from sarflood.model.allocator import hand_back

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [(libc.malloc(100_000), libc.malloc(64)) for _ in range(2000)]
for large, small in blocks:
    ctypes.memset(large, 1, 100_000)
for large, _ in blocks:
    libc.free(large)
process = psutil.Process()
before = process.memory_info().rss
hand_back()
print(before - process.memory_info().rss)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_what_is_free_between_what_is_in_use_is_handed_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 150e6
