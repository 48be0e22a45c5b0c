"""The manifest that a source may bring with it: what its maker says of the event."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sarflood.errors import InputError
from sarflood.sources.event import Label, Origin, Units

MANIFEST = "event.yaml"
_MAX_BYTES = 100_000


class SourceManifest(BaseModel):
    """`event.yaml` in a source's folder; every field may be left out.

    Attributes:
        name: Readable name of the event.
        acquired: Day of acquisition.
        region: Where it was.
        units: Of the pixels; the values must agree.
        label: What the masks show.
        source: Who published the data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    acquired: dt.date | None = None
    region: str | None = None
    units: Units | None = None
    label: Label | None = None
    source: Origin | None = None


def read_manifest(root: Path) -> SourceManifest:
    """Read the manifest of a source; an empty one where there is none.

    Raises:
        InputError: It cannot be read, or has an unknown field or value; names each.
    """
    path = root / MANIFEST
    if not path.is_file():
        return SourceManifest()
    if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: a link, or more than {_MAX_BYTES:,} bytes; write a plain file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return SourceManifest.model_validate({} if content is None else content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {error}") from error
    except ValidationError as error:
        known = ", ".join(SourceManifest.model_fields)
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}"
            for item in error.errors()
        )
        raise InputError(f"{path}: {wrong}; a manifest may have {known}") from error
