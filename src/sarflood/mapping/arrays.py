"""What `numpy.load` raises for files that are damaged, or made to do harm."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib

# Headers are Python literals, which numpy hands to Python's own parser; MemoryError is also what an
# array raises that says it is larger than any memory.
DAMAGED = (
    ArithmeticError,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
