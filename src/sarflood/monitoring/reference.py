"""What a model was trained on, in figures: what it maps later is compared with these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sarflood.errors import InputError
from sarflood.files import write_text
from sarflood.monitoring.histograms import STEP, Histogram, bin_edges, count_values
from sarflood.monitoring.sight import Share, Sight, check_bins

if TYPE_CHECKING:  # a bundle reads the file, and has none of these
    import pandas as pd

    from sarflood.model.package import FloodModel
    from sarflood.patches.store import EventPatches

REFERENCE = "reference.json"
_LEFT_OUT = 0.001
_PATCHES = {"train": 512, "val": 256}  # at most, evenly spaced


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trained(_Closed):
    """A training patch: its scene, and a histogram a band of every 8th pixel of every 8th row."""

    scene: str
    bands: dict[str, Histogram]


class Answered(_Closed):
    """A validation patch: its scene, and what the model said, as in `Seen`."""

    scene: str
    wet_share: Share
    confidence: Share


class Reference(_Closed):
    """`reference.json`."""

    units: str
    bands: tuple[str, ...]
    train: Annotated[tuple[Trained, ...], Field(min_length=1)]
    val: Annotated[tuple[Answered, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _bins_fit(self) -> Self:
        for patch in self.train:
            check_bins(self.units, patch.bands)
            if set(patch.bands) != set(self.bands):
                raise ValueError(f"a patch has {', '.join(patch.bands)}, not the model's bands")
        return self

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return between which values, of the bins' edges, 99.8 % of a band's training pixels lie.

        A thousandth is left out at each end: bright targets and noise reach anywhere.
        """
        edges, found = bin_edges(self.units), {}
        for band in self.bands:
            shares = np.mean([patch.bands[band].shares(self.units) for patch in self.train], axis=0)
            below = np.cumsum(shares)
            low, high = np.searchsorted(below, (_LEFT_OUT, 1 - _LEFT_OUT))
            found[band] = (float(edges[low]), float(edges[high + 1]))
        return found


def make_reference(model: FloodModel, events: list[EventPatches], split: pd.DataFrame) -> Reference:
    """Describe the training patches, and what the model says of the validation patches.

    Args:
        model: The model.
        events: All events; those with patches in the parts have the model's bands.
        split: `id`, `split` and `scene`, a row a patch.
    """
    from sarflood.evaluation.inputs import model_bands

    scene_of = {part: _chosen(split, part) for part in _PATCHES}
    train: list[Trained] = []
    val: list[Answered] = []
    for item in events:
        places = {
            part: np.flatnonzero(item.index["id"].isin(scenes)) for part, scenes in scene_of.items()
        }
        if not any(rows.size for rows in places.values()):
            continue
        ids, bands = item.index["id"], model_bands(item, model.manifest)
        for row in places["train"]:
            thinned = item.images[row, bands, ::STEP, ::STEP]
            counts = [count_values(values, model.manifest.units) for values in thinned]
            if all(one.any() for one in counts):
                named = zip(model.manifest.bands, map(Histogram.of, counts), strict=True)
                train.append(Trained(scene=scene_of["train"][ids[row]], bands=dict(named)))
        scaling = model.scaling_of(item.images[:, bands]) if places["val"].size else None
        for row in places["val"]:
            sight, image = Sight(model.manifest), item.images[row : row + 1, bands]
            sight.add(image, model.probabilities(image, scaling))
            if seen := sight.seen(""):
                val.append(
                    Answered(
                        scene=scene_of["val"][ids[row]],
                        wet_share=seen.wet_share,
                        confidence=seen.confidence,
                    )
                )
    return Reference(
        units=model.manifest.units,
        bands=model.manifest.bands,
        train=tuple(train),
        val=tuple(val),
    )


def _chosen(split: pd.DataFrame, part: str) -> dict[str, str]:
    """Return the scene of each patch that is looked at, by its id."""
    rows = split[split["split"] == part]
    if len(rows) > _PATCHES[part]:
        rows = rows.iloc[np.linspace(0, len(rows) - 1, _PATCHES[part]).astype(np.int64)]
    return dict(zip(rows["id"], rows["scene"], strict=True))


def write_reference(reference: Reference, folder: Path) -> None:
    """Write `reference.json` into a model package."""
    write_text(folder / REFERENCE, reference.model_dump_json() + "\n")


def read_reference(folder: Path) -> Reference:
    """Read `reference.json` of a model package.

    Raises:
        InputError: It is missing, as in versions from before there was one, or damaged.
    """
    path = folder / REFERENCE
    try:
        return Reference.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: this version was made without statistics of its training; `sarflood retrain` "
            "makes one that has them"
        ) from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise InputError(f"{path}: not the statistics of a training: {error}") from error
