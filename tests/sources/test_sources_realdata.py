"""The readers on original files, as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sarflood.errors import InputError
from sarflood.sources.readers import recognise

pytestmark = pytest.mark.realdata
NORTHAL = "etci2021/northal_20190302t234651"


@pytest.mark.parametrize(
    ("source", "layout", "patches", "values", "wet_share", "no_data_share"),
    [
        ("sen1floods11", "sen1floods11", 4, (-47.06, 25.65), 0.2673, 0.0),
        ("stac-overflow", "stac-overflow", 8, (-56.41, 8.06), 0.3742, 0.134),
        ("ombria", "ombria", 694, (0, 255), 0.3310, 0.0),
        ("ombria/test", "ombria", 70, (0, 255), 0.3337, 0.0),
        ("ombria-2021", "ombria", 118, (0, 255), 0.0863, 0.0),
        ("ombria-2021/FRANCE", "ombria", 88, (0, 255), 0.0742, 0.0),
        ("ombria-2021/GUYANA", "ombria", 30, (0, 255), 0.1218, 0.0),
        (NORTHAL, "etci2021", 233, (0, 255), 0.0494, 0.006),
    ],
)
def test_counts_values_and_wet_shares(
    real_data: Path,
    source: str,
    layout: str,
    patches: int,
    values: tuple[float, float],
    wet_share: float,
    no_data_share: float,
) -> None:
    root = real_data / source
    reader = recognise(root)
    assert reader.layout == layout
    bands = reader.facts(root).bands
    lows, highs, wet, known, no_data, names = [], [], 0, 0, 0, []
    for item in reader.items(root):
        for patch in reader.read(item):
            assert patch.mask is not None
            assert patch.image.shape == (len(bands), 256, 256)
            names.append(patch.name)
            valid = np.isfinite(patch.image).all(axis=0)
            lows.append(patch.image[:, valid].min(initial=np.inf))
            highs.append(patch.image[:, valid].max(initial=-np.inf))
            wet += int((patch.mask == 1).sum())
            known += int((patch.mask != 255).sum())
            no_data += int((~valid).sum())
    assert len(names) == len(set(names)) == patches
    assert (min(lows), max(highs)) == pytest.approx(values, abs=0.01)
    assert wet / known == pytest.approx(wet_share, abs=1e-4)
    assert no_data / (patches * 256**2) == pytest.approx(no_data_share, abs=1e-3)


def test_etci_rows_and_columns_are_the_right_way_round(real_data: Path) -> None:
    """Grey levels go on across the border of neighbours only if x is the row."""
    root = real_data / NORTHAL
    reader = recognise(root)
    tiles = {(p.row, p.col): p.image for item in reader.items(root) for p in reader.read(item)}

    def steps(down: int, right: int) -> float:
        far = []
        for (row, col), image in tiles.items():
            other = tiles.get((row + down, col + right))
            if other is not None:
                edges = (image[:, -8:], other[:, :8]) if down else (image[..., -8:], other[..., :8])
                far.append(abs(edges[0].mean() - edges[1].mean()))
        return float(np.nanmedian(far))

    within = [abs(i[:, 120:128].mean() - i[:, 128:136].mean()) for i in tiles.values()]
    assert max(steps(1, 0), steps(0, 1)) < 3 * float(np.nanmedian(within))


@pytest.mark.parametrize("source", ["terramesh", "pyrosar", ""])
def test_other_folders_are_unknown(real_data: Path, source: str) -> None:
    with pytest.raises(InputError, match="no known layout"):
        recognise(real_data / source)
