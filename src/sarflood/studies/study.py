"""Train the same thing with different settings and seeds, and score all on the same patches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sarflood.errors import InputError
from sarflood.evaluation.evaluate import evaluate
from sarflood.files import replacing
from sarflood.model.package import FloodModel
from sarflood.params import InputNormalisation, LossName, Params
from sarflood.patches.loader import take
from sarflood.patches.split import split_events
from sarflood.patches.store import EventPatches
from sarflood.training.fit import fit

LOSSES: Mapping[str, Mapping[LossName, tuple[float, float]]] = {
    "cross entropy": {"cross_entropy": (1.0, 1.0)},
    "weighted cross entropy": {"weighted_cross_entropy": (1.0, 1.0)},
    "Dice": {"dice": (1.0, 1.0)},
    "IoU": {"iou": (1.0, 1.0)},
    "focal": {"focal": (1.0, 1.0)},
    "Tversky": {"tversky": (1.0, 1.0)},
    "focal Tversky": {"focal_tversky": (1.0, 1.0)},
    "Lovász": {"lovasz": (1.0, 1.0)},
    "cross entropy + Dice": {"cross_entropy": (1.0, 1.0), "dice": (1.0, 1.0)},
    "cross entropy + Dice + boundary": {
        "cross_entropy": (1.0, 1.0),
        "dice": (1.0, 1.0),
        "boundary": (0.0, 0.5),
    },
}
NORMALISATIONS: Mapping[str, InputNormalisation] = {
    "training patches": "training",
    "event": "event",
    "256 pixels around": "local",
    "training patches and 256 pixels around": "both",
    "fixed range": "fixed_db",
}
_NO_LIMIT = 100_000.0  # minutes: a budget of passes is the same on any machine
FIGURES = ("iou", "f1", "precision", "recall", "boundary_f1", "boundary_distance_px")


@dataclass(frozen=True)
class Study:
    """Trainings that are compared.

    Attributes:
        name: Of the study, such as `losses`.
        settings: What is compared, by the name that tables show.
        seeds: Each setting is trained once with each.
        epochs: Passes over the training patches of each training, at most.
        wet_share: Patches are left out until about this share of the pixels is wet; None takes all.
    """

    name: str
    settings: Mapping[str, Params]
    seeds: int
    epochs: int
    wet_share: float | None = None


def loss_settings(params: Params) -> dict[str, Params]:
    """Return the settings with each loss; class weights by inverse frequency."""
    settings = {}
    for name, terms in LOSSES.items():
        changed = {"auto": False, "terms": dict(terms), "class_weights": "inverse_frequency"}
        loss = params.loss.model_copy(update=changed)
        settings[name] = params.model_copy(update={"loss": loss})
    return settings


def skip_settings(params: Params) -> dict[str, Params]:
    """Return the settings with and without skip connections."""
    return {
        name: params.model_copy(update={"model": params.model.model_copy(update={"skips": skips})})
        for name, skips in (("with skips", True), ("without skips", False))
    }


def input_settings(params: Params, units: str) -> dict[str, Params]:
    """Return the settings with each normalisation of the input that suits events of these units."""
    return {
        name: params.model_copy(
            update={"input": params.input.model_copy(update={"normalisation": kind})}
        )
        for name, kind in NORMALISATIONS.items()
        if kind != "fixed_db" or units == "db"
    }


def run_study(
    study: Study,
    events: Sequence[EventPatches],
    kept: Path,
    on_run: Callable[[str, int, int, int], object] | None = None,
) -> pd.DataFrame:
    """Train and score all that `kept` does not have yet.

    Args:
        study: What.
        events: Labelled events of the same bands and units.
        kept: A CSV that each run is added to, so that a study that was ended goes on; runs of other
            data or settings in it are left out.
        on_run: Is told the setting and the seed that come next, and how many of how many runs are
            done.

    Returns:
        A row a run: `setting`, `seed`, `epochs`, `minutes`, `val_iou`, the best on the validation
        patches, `threshold`, and of the test patches
        `wet_share`, the figures at the calibrated threshold, and with `default_` before their names
        at the probability 0.5 of the uncalibrated network; the baselines' `otsu_iou` and
        `fitted_threshold_iou`; `key`, which names data and settings.

    Raises:
        InputError: The events cannot be split, or have no patches of that wet share.
    """
    chosen = [of_wet_share(item, study.wet_share) for item in events if item.masks is not None]
    if not chosen:
        raise InputError("no labelled event to study; ingest one, or name others with --event")
    runs = [(name, seed) for seed in range(study.seeds) for name in study.settings]
    done = _read(kept)
    rows: list[dict[str, Any]] = []
    for number, (name, seed) in enumerate(runs):
        params = study.settings[name]
        train = {
            "seed": seed,
            "epochs": study.epochs,
            "min_steps": 1,
            "max_minutes": _NO_LIMIT,
            "processes": 1,  # others would run all of the study again
        }
        params = params.model_copy(update={"train": params.train.model_copy(update=train)})
        key = _key(chosen, params)
        if key not in done:
            if on_run:
                on_run(name, seed, number, len(runs))
            done[key] = {"setting": name, "seed": seed, **_run(chosen, params), "key": key}
            with replacing(kept) as temporary:
                pd.DataFrame(done.values()).to_csv(temporary, index=False)
        rows.append(done[key])
    return pd.DataFrame(rows)


def _read(kept: Path) -> dict[str, dict[str, Any]]:
    if not kept.exists():
        return {}
    try:
        rows = pd.read_csv(kept).to_dict("records")
        return {str(row["key"]): {str(name): row[name] for name in row} for row in rows}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{kept}: not the runs of a study ({error}); remove it") from error


def _key(events: Sequence[EventPatches], params: Params) -> str:
    parts = [params.model_dump_json(exclude={"validation", "gate", "serving"})]
    parts += [value for item in events for value in item.index["sha256"]]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _run(events: list[EventPatches], params: Params) -> dict[str, Any]:
    split = split_events(events, params.split)
    first = events[0].event
    train, val = (take(events, split, part, params.input) for part in ("train", "val"))
    fitted = fit(train, val, first.bands, params, lambda _: None)
    model = fitted.model(first, params)
    plain = model.manifest.model_copy(update={"temperature": 1.0, "threshold": 0.5})
    test = evaluate(model, events, split).metrics["test"]
    default = evaluate(FloodModel(plain, model.network), events, split).metrics["test"]
    return {
        "epochs": len(fitted.epochs),
        "minutes": round(float(fitted.epochs["seconds"].iloc[-1]) / 60, 2),
        "val_iou": float(fitted.epochs["val_iou"].max()),
        "threshold": fitted.threshold,
        "wet_share": test["wet_share"],
        **{name: test[name] for name in FIGURES},
        **{f"default_{name}": default[name] for name in FIGURES},
        "otsu_iou": test["otsu_iou"],
        "fitted_threshold_iou": test["fitted_threshold_iou"],
    }


def of_wet_share(item: EventPatches, wanted: float | None) -> EventPatches:
    """Leave out patches at random, wet or dry ones, until about `wanted` of the pixels is wet.

    Raises:
        InputError: Fewer than ten would be left.
    """
    if wanted is None or item.masks is None:
        return item
    index = item.index.reset_index(drop=True)
    wet = (index["wet_share"] * index["valid_share"]).fillna(0.0).to_numpy(np.float64)
    valid = index["valid_share"].to_numpy(np.float64)
    too_much = wet.sum() > wanted * valid.sum()
    off = (wet - wanted * valid) * (1 if too_much else -1)
    kept, left = np.ones(len(index), bool), off.sum()
    for row in np.random.default_rng(0).permutation(len(index)):
        if 0 < off[row] <= left:
            kept[row], left = False, left - off[row]
    rows = np.flatnonzero(kept)
    if rows.size < 10:
        raise InputError(
            f"event {item.event.id}: {wet.sum() / valid.sum():.1%} of its pixels are wet; too few "
            f"patches are left to make that {wanted:.1%}; choose another --wet-share"
        )
    return replace(
        item,
        index=index.iloc[rows].reset_index(drop=True),
        images=item.images[rows],
        masks=item.masks[rows],
        permanent_water=None,
    )
