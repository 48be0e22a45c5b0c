"""When a scene was acquired, as far as its name or its tags say."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

from sarflood.errors import InputError
from sarflood.raster.safe import open_raster

# Names such as S1A_IW_GRDH_1SDV_20190302T234651_20190302T234716_…, of which the first moment is the
# beginning, or beira-2019-03-19.
_MOMENT = re.compile(r"(?<!\d)(\d{4})(\d\d)(\d\d)[Tt](\d\d)(\d\d)(\d\d)(?!\d)")
_DAY = re.compile(r"(?<!\d)(\d{4})(-?)(\d\d)\2(\d\d)(?!\d)")
_TAGS = ("ACQUIRED", "ACQUISITION_DATETIME")  # TIFF's own tells when the file was made
_FIRST_YEAR = 1978  # of radar in orbit, Seasat's


def acquired(scene: Path) -> dt.datetime | None:
    """Return when a scene was acquired, in UTC; None where nothing tells.

    The file's name is asked first, then that of its folder, then the tags of the file.
    """
    for name in (scene.stem, scene.resolve().parent.name):
        found = _in_name(name)
        if found:
            return found
    try:
        with open_raster(scene) as dataset:
            tags = {key.upper(): value for key, value in dataset.tags().items()}
    except InputError:
        return None
    return next((found for tag in _TAGS if (found := _in_tag(tags.get(tag, "")))), None)


def _in_name(name: str) -> dt.datetime | None:
    for match in _MOMENT.finditer(name):
        if found := _moment(*match.groups()):
            return found
    for match in _DAY.finditer(name):
        if found := _moment(match[1], match[3], match[4]):
            return found
    return None


def _in_tag(text: str) -> dt.datetime | None:
    try:
        found = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or dt.UTC).astimezone(dt.UTC)


def _moment(*parts: str) -> dt.datetime | None:
    try:
        words: Any = map(int, parts)
        found = dt.datetime(*words).replace(tzinfo=dt.UTC)  # noqa: DTZ001
    except ValueError:
        return None
    return found if _FIRST_YEAR <= found.year < 2100 else None
