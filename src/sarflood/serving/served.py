"""The model package in a bundle, loaded and checked before it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sarflood.errors import InputError
from sarflood.mapping.patches import map_patches
from sarflood.model.package import FloodModel, load_model
from sarflood.params import ServingParams
from sarflood.serving.recorded import check_answers, read_recorded

BUNDLE_INFO, RECORDED = "bundle.json", "recorded.npz"


class BundleInfo(BaseModel):
    """`bundle.json`: which version this is, and the limits that it serves with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    serving: ServingParams


@dataclass(frozen=True)
class Served:
    """A model that answered its recorded patches as it should."""

    model: FloodModel
    info: BundleInfo


def load_served(package: Path) -> Served:
    """Load a bundle's model package and let it answer its recorded patches.

    Raises:
        InputError: A file is missing or damaged, or the recorded patches have other bands.
        SarfloodError: The answers are not those recorded.
    """
    path = package / BUNDLE_INFO
    try:
        info = BundleInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise InputError(f"{path}: not a bundle's description: {error}") from error
    model = load_model(package)
    images, masks = read_recorded(package / RECORDED)
    if images.shape[1] != len(model.manifest.bands):
        raise InputError(
            f"{package / RECORDED}: patches of {images.shape[1]} band(s); the model needs "
            f"{', '.join(model.manifest.bands)}; evaluate the model again"
        )
    check_answers(map_patches(model, images), masks, f"flood-unet {info.version}")
    return Served(model, info)
