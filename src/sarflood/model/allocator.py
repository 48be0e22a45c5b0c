"""Which memory glibc's malloc keeps in the process, and which it hands back."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # <malloc.h>
_LARGEST_INT = 2**31 - 1


@cache
def keep_large_buffers() -> None:
    """Serve large buffers from a heap that does not shrink, for what PyTorch computes on the CPU.

    By default each buffer of a few megabytes is a new memory map that the kernel has to fill with
    zeros; on two CPU cores, training a U-Net of width 16 spent up to half of its time there. Does
    nothing where there is no glibc.
    """
    _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: _LARGEST_INT, _TOP_PAD: 64 * 2**20})


def share_heaps() -> None:
    """Let all threads of a service have two heaps, before it starts any.

    By default there are eight for each core, and each keeps what the largest requests of its
    threads took. Does nothing where there is no glibc.
    """
    _set({_ARENA_MAX: 2})


def hand_back() -> None:
    """Hand back to the system what is free in the heaps, also below what is in use.

    By default only their ends are, so that a service grows with what its requests leave in between.
    Does nothing where there is no glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(values: dict[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in values.items():
            mallopt(option, value)
