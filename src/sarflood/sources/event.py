"""The event manifest, `event.yaml`: what an event is, in which bands and units."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sarflood.errors import InputError
from sarflood.files import write_text
from sarflood.raster.patch import ClassNames, check_classes

Band = Literal["vv", "vh", "vv_pre", "vh_pre"]
Units = Literal["db", "linear", "uint8"]
Label = Literal["water", "flood"]

ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(_Closed):
    """Who published the data, where, and under which licence (as far as it is known)."""

    name: str
    url: str | None = None
    licence: str | None = None


class Event(_Closed):
    """One flood event, as `event.yaml` holds it.

    Attributes:
        units: Those of the stored patches.
        classes: Names of the codes of its masks: of other dry land, water, and further kinds of dry
            land; None where they are dry and wet.
        permanent_water: Whether it is known where water stands at all times.
        number: Events are counted as they are accepted, from 1; 0 before that. What was accepted
            earlier decides where a later event overlaps it, so that a split is stable.
    """

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    name: str
    acquired: dt.date | None = None
    region: str | None = None
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]
    units: Units
    label: Label | None
    classes: ClassNames | None = None
    permanent_water: bool = False
    source: Origin
    hold_out: bool = False
    number: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _bands_once(self) -> Self:
        if len(set(self.bands)) != len(self.bands):
            raise ValueError(f"a band stands twice in {self.bands}")
        return self

    def write(self, path: Path) -> None:
        """Write `event.yaml`."""
        content = self.model_dump(mode="json")
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    @classmethod
    def read(cls, path: Path) -> Event:
        """Read `event.yaml`.

        Raises:
            InputError: The file cannot be read or is no manifest.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            raise InputError(f"{path}: not an event manifest: {error}") from error


def common_kind(events: Iterable[Event]) -> tuple[tuple[Band, ...], Units]:
    """Return the bands and units of the events with labels; of all, where none has labels.

    Raises:
        InputError: They differ in bands, units, label or classes, so that no model can train on
            all.
    """
    everything = list(events)
    found = [item for item in everything if item.label] or everything
    kinds = {(item.bands, item.units, item.label, item.classes) for item in found}
    if len(kinds) > 1:
        named = "; ".join(
            f"{item.id}: {', '.join(item.bands)} in {item.units}, label {item.label or 'none'}"
            + (f" of {', '.join(item.classes)}" if item.classes else "")
            for item in found
        )
        raise InputError(
            f"events of different bands, units, labels or classes cannot train one model "
            f"({named}); keep them in workspaces of their own, made by `sarflood init`"
        )
    return found[0].bands, found[0].units


def as_units(text: str | None) -> Units | None:
    """Return units by their name.

    Raises:
        InputError: There are none of this name.
    """
    for units in get_args(Units):
        if text == units:
            return units  # type: ignore[no-any-return]
    if text is not None:
        raise InputError(f"units {text!r}: use {', '.join(get_args(Units))}")
    return None


def as_classes(text: str | None) -> tuple[str, ...] | None:
    """Return the names of classes that stand in a text with commas between them.

    Raises:
        InputError: They are not such.
    """
    if text is None:
        return None
    try:
        return check_classes(tuple(name.strip() for name in text.split(",")))
    except ValueError as error:
        raise InputError(f"classes {text!r}: {error}; such as other,water,forest,crops") from error


def check_event_id(event_id: str) -> str:
    """Return `event_id` if it is one.

    Raises:
        InputError: It is not 1 to 63 lower-case letters, digits and dashes.
    """
    if not re.fullmatch(ID_PATTERN, event_id):
        raise InputError(
            f"event id {event_id!r}: use 1 to 63 of a–z, 0–9 and -, such as `alabama-2019`"
        )
    return event_id
