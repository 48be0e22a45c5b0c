"""Real Sentinel-1 patches must pass: a false alarm keeps good data from the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from validation_tables import PARAMS

from sarflood.patches.statistics import patch_statistics
from sarflood.validation.checkpoint import Verdict, validate_table

Patch = tuple[str, NDArray[np.float32], NDArray[np.uint8]]

pytestmark = pytest.mark.realdata


def grey(path: Path) -> NDArray[np.float32]:
    return np.asarray(Image.open(path).convert("L"), np.float32)


def etci(root: Path) -> Iterator[Patch]:
    tiles = root / "etci2021" / "northal_20190302t234651" / "tiles"
    for label in sorted((tiles / "flood_label").iterdir()):
        stem = label.stem
        image = np.stack([grey(tiles / band / f"{stem}_{band}.png") for band in ("vv", "vh")])
        image[:, (image == 255).all(axis=0)] = np.nan
        yield stem, image, (grey(label) > 0).astype(np.uint8)


def ombria(root: Path, names: tuple[str, str, str]) -> Iterator[Patch]:
    after_name, before_name, mask_name = names
    for after in sorted((root / "AFTER").iterdir()):
        number = after.stem.rpartition("_")[2]
        before = root / "BEFORE" / f"{before_name}_{number}.png"
        mask = grey(root / "MASK" / f"{mask_name}_{number}.png") > 0
        assert after.stem.startswith(after_name)
        yield after.stem, np.stack([grey(after), grey(before)]), mask.astype(np.uint8)


def chips(root: Path) -> Iterator[Patch]:
    for name in ("awc00", "pxs10"):
        files = [root / "stac-overflow" / f"{name}{end}.tif" for end in ("_vv", "_vh", "")]
        layers = []
        for file in files:
            with rasterio.open(file, driver="GTiff") as opened:
                layers.append(opened.read(1))
        image = np.stack(layers[:2]).astype(np.float32)
        image[image == 0] = np.nan
        for row in (0, 256):
            for col in (0, 256):
                window = np.s_[row : row + 256, col : col + 256]
                yield f"{name}-{row}-{col}", image[(slice(None), *window)], layers[2][window]


def judge(patches: Iterator[Patch], event: str, bands: tuple[str, ...], units: str) -> Verdict:
    rows = []
    for name, image, mask in patches:
        digest = hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()
        row = {"id": f"{event}/{name}", "event": event, "sha256": digest}
        rows.append({**row, **patch_statistics(image, mask, bands)})
    return validate_table(pd.DataFrame(rows), bands=bands, units=units, params=PARAMS)


def assert_no_false_alarm(verdict: Verdict, patches: int) -> None:
    assert verdict.patches == patches
    assert verdict.reasons == {}
    assert verdict.event_reasons == []
    assert verdict.warnings == []


def test_etci_tiles_pass(real_data: Path) -> None:
    assert_no_false_alarm(judge(etci(real_data), "alabama-2019", ("vv", "vh"), "uint8"), 233)


def test_chips_in_db_pass(real_data: Path) -> None:
    assert_no_false_alarm(judge(chips(real_data), "stac-overflow", ("vv", "vh"), "db"), 8)


@pytest.mark.parametrize(
    ("folder", "names", "patches"),
    [
        ("ombria/train", ("S1_after", "S1_before", "S1_mask"), 624),
        ("ombria/test", ("S1_after", "S1_before", "S1_mask"), 70),
        ("ombria-2021/FRANCE", ("imafter", "imbefore", "gt"), 88),
        ("ombria-2021/GUYANA", ("imafter", "imbefore", "gt"), 30),
    ],
)
def test_ombria_passes(
    real_data: Path, folder: str, names: tuple[str, str, str], patches: int
) -> None:
    verdict = judge(ombria(real_data / folder, names), "ombria", ("vv", "vv_pre"), "uint8")
    assert_no_false_alarm(verdict, patches)


def test_inverted_real_masks_are_refused(real_data: Path) -> None:
    inverted = ((name, image, 1 - mask) for name, image, mask in etci(real_data))
    verdict = judge(inverted, "alabama-2019", ("vv", "vh"), "uint8")
    assert not verdict.passed
    assert "the masks look inverted" in verdict.event_reasons[0]
