"""The model package in a bundle, loaded and checked before it serves."""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sarflood.errors import InputError
from sarflood.files import sha256
from sarflood.mapping.fastest import ENGINE, Engine, Engines, choose
from sarflood.mapping.recorded import RECORDED, read_recorded
from sarflood.model import WEIGHTS
from sarflood.model.package import FloodModel, ModelManifest, TrainedOn, load_model
from sarflood.monitoring.reference import REFERENCE, read_reference
from sarflood.params import ServingParams
from sarflood.serving.access import STAGE

BUNDLE_INFO = "bundle.json"
NAME = "flood-unet"
EVALUATION, CARD = "evaluation.json", "card.md"


class BundleInfo(BaseModel):
    """`bundle.json`: which version this is, and the limits that it serves with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    serving: ServingParams


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Lineage(_Closed):
    """What a version was made of."""

    tag: str
    commit: str
    created: dt.datetime
    sarflood: str
    params_sha256: str
    weights_sha256: str
    trained_on: tuple[TrainedOn, ...]
    started_from: str | None


class About(_Closed):
    """What `/model` says.

    `stage` is `production` where whoever started the service found the version there just then; a
    bundle does not know it. `evaluation` is what was found on the test patches, None in a bundle
    that was built without. `training_range` says between which values 99.8 % of each band's
    training pixels lie; None where the version has no statistics of its training. `engine` is what
    computes.
    """

    version: str
    stage: str | None
    label: str
    bands: tuple[str, ...]
    units: str
    threshold: float
    training_range: dict[str, tuple[float, float]] | None
    evaluation: dict[str, Any] | None
    card: str
    lineage: Lineage
    serving: ServingParams
    engine: Engine
    model: ModelManifest


@dataclass(frozen=True)
class Served:
    """A model that answered its recorded patches as it should.

    Attributes:
        engines: The model on its engine.
        info: Which version it is, and its limits.
        card: Its card in Markdown; empty where it has none.
        evaluation: What was found on the test patches, where the bundle has it.
        ranges: Of each band, between which values its training lay, where that is known.
        weights_sha256: Of the weights.
    """

    engines: Engines
    info: BundleInfo
    card: str = ""
    evaluation: dict[str, Any] | None = None
    ranges: dict[str, tuple[float, float]] | None = None
    weights_sha256: str = ""

    @property
    def model(self) -> FloodModel:
        """The model as it answers scenes."""
        return self.engines.scenes

    def about(self) -> About:
        """Return what `/model` says."""
        manifest = self.model.manifest
        made_of = {"commit", "created", "sarflood", "params_sha256", "trained_on", "started_from"}
        return About(
            version=self.info.version,
            stage=os.environ.get(STAGE) or None,
            label=manifest.label,
            bands=manifest.bands,
            units=manifest.units,
            threshold=manifest.threshold,
            training_range=self.ranges,
            evaluation=self.evaluation,
            card=self.card,
            lineage=Lineage(
                tag=f"{NAME}@{self.info.version}",
                weights_sha256=self.weights_sha256,
                **manifest.model_dump(include=made_of),
            ),
            serving=self.info.serving,
            engine=self.engines.engine,
            model=manifest,
        )


def load_info(package: Path) -> BundleInfo:
    """Read `bundle.json` of a bundle's model package.

    Raises:
        InputError: It is missing or damaged.
    """
    path = package / BUNDLE_INFO
    try:
        return BundleInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise InputError(f"{path}: not a bundle's description: {error}") from error


def load_served(package: Path) -> Served:
    """Load a bundle's model package and let it answer its recorded patches.

    Raises:
        InputError: A file is missing or damaged, or the recorded patches have other bands.
        SarfloodError: The answers are not those recorded.
    """
    info, model = load_info(package), load_model(package)
    recorded = read_recorded(package / RECORDED)
    if recorded.images.shape[1] != len(model.manifest.bands):
        raise InputError(
            f"{package / RECORDED}: patches of {recorded.images.shape[1]} band(s); the model needs "
            f"{', '.join(model.manifest.bands)}; evaluate the model again"
        )
    may_round = info.serving.engine == "auto"
    who = f"{NAME} {info.version}"
    evaluation = _text(package / EVALUATION)
    return Served(
        choose(model, package / ENGINE, recorded, who, may_round=may_round),
        info,
        card=_text(package / CARD) or "",
        evaluation=None if evaluation is None else json.loads(evaluation),
        ranges=read_reference(package).ranges() if (package / REFERENCE).exists() else None,
        weights_sha256=sha256(package / WEIGHTS),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
