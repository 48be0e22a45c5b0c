"""What a model and a baseline see of a stored event: the right bands, in the right units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sarflood.errors import InputError
from sarflood.model.package import ModelManifest
from sarflood.patches.store import EventPatches


def model_bands(patches: EventPatches, manifest: ModelManifest) -> list[int]:
    """Return where the model's bands stand in the event's images.

    Raises:
        InputError: The event lacks a band of the model, or its values have other units.
    """
    event = patches.event
    missing = [band for band in manifest.bands if band not in event.bands]
    if missing:
        raise InputError(
            f"event {event.id}: has the bands {', '.join(event.bands)}, the model also needs "
            f"{', '.join(missing)}; evaluate on events with all of its bands"
        )
    if event.units != manifest.units:
        raise InputError(
            f"event {event.id}: is in {event.units}, the model was trained on {manifest.units}; "
            "evaluate on events in the same units"
        )
    return [event.bands.index(band) for band in manifest.bands]


def backscatter(patches: EventPatches, position: int) -> NDArray[np.float16]:
    """Return the VV band (H, W) of a patch, or the first band of an event without VV."""
    bands: tuple[str, ...] = patches.event.bands
    image: NDArray[np.float16] = patches.images[position, bands.index("vv") if "vv" in bands else 0]
    return image
