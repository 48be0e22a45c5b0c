"""What all patches have in common: their edge in pixels, and the codes of their masks."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator

PATCH = 256
DRY, WET, UNKNOWN = 0, 1, 255  # 2 to 15 are further kinds of dry land, where an event names them
TWO_CLASSES = ("dry", "wet")
MAX_CLASSES = 16


def is_dry(mask: Any) -> Any:
    """Say where a mask shows dry land of any kind: what is known and is not water.

    Args:
        mask: Codes of classes, an array or a tensor of any shape.

    Returns:
        Flags of the same kind and shape.
    """
    return (mask != WET) & (mask != UNKNOWN)


def check_classes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the codes 0, 1, 2, … of masks, if they are such.

    Raises:
        ValueError: They are not 3 to 16, one is no name or stands twice, or water is not code 1.
    """
    if not 3 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"{len(names)} name(s) of classes; give 3 to {MAX_CLASSES}")
    for name in names:
        # `mean` stands beside the classes in metrics.
        if not re.fullmatch(r"\w[\w -]{0,39}", name) or name == "mean":
            raise ValueError(f"{name!r} cannot name a class; use letters, digits, spaces, _ and -")
    if len(set(names)) < len(names):
        raise ValueError("a class stands twice")
    if "water" in names and names[WET] != "water":
        raise ValueError(f"water is code {WET} of masks, the second name")
    return names


ClassNames = Annotated[tuple[str, ...], AfterValidator(check_classes)]
