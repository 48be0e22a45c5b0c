"""The layouts that are known, and the reader of a source."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sarflood.errors import InputError
from sarflood.sources.etci import EtciReader
from sarflood.sources.ombria import OmbriaReader
from sarflood.sources.reader import Reader
from sarflood.sources.scene import SceneReader
from sarflood.sources.sen1floods11 import Sen1Floods11Reader
from sarflood.sources.stac_overflow import StacOverflowReader

READERS: tuple[Reader, ...] = (
    SceneReader(),
    Sen1Floods11Reader(),
    StacOverflowReader(),
    OmbriaReader(),
    EtciReader(),
)


def recognise(root: Path) -> Reader:
    """Return the one reader that recognises `root`, a folder or a file.

    Raises:
        InputError: `root` is not there, or no layout or several match; lists what each looks for.
    """
    if not root.exists():
        raise InputError(f"{root}: no such file or folder")
    found = [reader for reader in READERS if reader.recognises(root)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"{root}: no known layout; one of these is needed:\n{_list(READERS)}")
    raise InputError(
        f"{root}: {' and '.join(reader.layout for reader in found)} at once; give each a folder of "
        f"its own:\n{_list(found)}\nAll layouts:\n{_list(READERS)}"
    )


def _list(readers: Iterable[Reader]) -> str:
    return "\n".join(f"  {reader.layout}: {reader.looks_for}" for reader in readers)
