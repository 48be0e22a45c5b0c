"""Bands, told by what their descriptions name."""

from __future__ import annotations

import re
from pathlib import Path

from rasterio.io import DatasetReader

from sarflood.errors import InputError

# Matches `VV`, `vh_pre`, and names as processors write them, such as `Sigma0_VV_db`.
_POLARISATION = re.compile(r"(?<![a-z])(vv|vh|hv|hh)(_pre)?(?![a-z])")


def bands_by_name(path: Path, dataset: DatasetReader, *, one_date: bool) -> dict[str, int]:
    """Return the 1-based indexes of the bands that have a recognisable name.

    Args:
        path: The file, for messages.
        dataset: The open file.
        one_date: Whether all bands are of one date, so that `VV_PRE` is VV like `VV` itself.

    Returns:
        By name: `vv`, `vh`, `hv` or `hh`, with `_pre` for a band from before the event.

    Raises:
        InputError: Two bands have the same name, so that either could be meant.
    """
    bands: dict[str, int] = {}
    for index, description in zip(dataset.indexes, dataset.descriptions, strict=True):
        found = _POLARISATION.search((description or "").lower())
        if found is None:
            continue
        name = found[1] if one_date else found[0]
        first = bands.setdefault(name, index)
        if first != index:
            raise InputError(
                f"{path}: bands {first} ({dataset.descriptions[first - 1]}) and {index} "
                f"({description}) are both {name}; write a file with the one that is meant"
            )
    return bands
