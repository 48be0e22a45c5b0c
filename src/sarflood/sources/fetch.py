"""Sources as people have them, brought to a folder that the readers know."""

from __future__ import annotations

import re
from pathlib import Path

from sarflood.errors import InputError
from sarflood.sources.archive import is_archive, unpack
from sarflood.sources.stac import fetch_stac, is_stac

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def local_copy(source: str, scratch: Path) -> Path:
    """Return a folder or file with the content of a source.

    Args:
        source: A folder or file, which is returned as it is; an archive, which is unpacked; a STAC
            item or catalogue by path or http address, whose assets are brought.
        scratch: A folder to be made where there is something to unpack or to bring.

    Raises:
        InputError: There is no such source, or it cannot be brought safely.
    """
    if _ADDRESS.match(source):
        if not source.startswith(("http://", "https://")):
            raise InputError(f"{source}: sources are paths or http addresses of STAC items")
        return fetch_stac(source, scratch)
    path = Path(source)
    if not path.exists():
        raise InputError(f"{source}: no such file or folder")
    if path.is_dir():
        return path
    if not path.is_file():
        raise InputError(f"{source}: neither a folder nor a regular file")
    if is_archive(path):
        return unpack(path, scratch)
    return fetch_stac(source, scratch) if is_stac(path) else path
