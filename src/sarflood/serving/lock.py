"""The packages that a bundle needs, in the versions that it is checked with."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Asked for by packages that can compile something; nothing that serves imports them.
BUILD_TOOLS = frozenset({"pip", "setuptools", "uv", "wheel"})


def lock(names: Iterable[str]) -> list[str]:
    """Return packages and all that these need, without build tools, as they are installed here.

    Args:
        names: Of packages, with extras where these are needed, such as `uvicorn[standard]`.

    Returns:
        Sorted requirements such as `numpy==2.4.6`; a local part such as `+cpu` is left away.
    """
    extras: dict[str, set[str]] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in BUILD_TOOLS or (name in extras and wanted.extras <= extras[name]):
            continue
        extras.setdefault(name, set()).update(wanted.extras)
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            if _applies(needed, extras[name]):
                waiting.append(needed)
    return sorted(f"{name}=={metadata.version(name).partition('+')[0]}" for name in extras)


def _applies(needed: Requirement, extras: set[str]) -> bool:
    """Say whether a package needs another one here, with some of its extras."""
    marker = needed.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
