from __future__ import annotations

import numpy as np
import pytest

from sarflood.model.advice import advise, look_at


def masks(*wet: slice | None, number: int = 4) -> np.ndarray:
    """Patches of 64 pixels with a wet band of rows each, or none."""
    found = np.zeros((number, 64, 64), np.uint8)
    for mask, rows in zip(found, wet, strict=True):
        if rows:
            mask[rows] = 1
    return found


def test_masks_are_measured() -> None:
    mask = np.zeros((2, 64, 64), np.uint8)
    mask[0, 10:20, 10:30] = 1  # 200 pixels, 56 of them border
    mask[0, 40, 40] = 1  # alone
    mask[1, :32] = 255
    found = look_at(mask)
    assert found.patches == 2
    assert found.wet_share == pytest.approx(201 / (2 * 4096 - 2048))
    assert found.dry_patches == 0.5
    assert found.object_pixels == 200
    assert found.border_share == pytest.approx(57 / 201)


def test_the_unknown_is_no_border() -> None:
    mask = np.ones((1, 64, 64), np.uint8)
    mask[:, 30:] = 255
    assert look_at(mask).border_share == 0.0


@pytest.mark.parametrize(
    ("wet", "terms", "reason"),
    [
        ([slice(0, 32)] * 4, {"cross_entropy"}, "balanced"),
        ([slice(0, 12)] * 4, {"dice"}, "minority"),
        ([slice(0, 32), None, None, None], {"cross_entropy", "dice"}, "steady"),
        ([slice(10, 14)] * 4, {"cross_entropy", "dice", "boundary"}, "thin"),
        ([None] * 4, {"cross_entropy", "dice"}, "100% of the patches have none"),
        ([slice(0, 60)] * 4, {"cross_entropy", "dice"}, "93.8% of the pixels"),
    ],
)
def test_the_advice_follows_the_masks(
    wet: list[slice | None], terms: set[str], reason: str
) -> None:
    advice = advise(masks(*wet))
    assert set(advice.terms) == terms
    assert reason in advice.reason
    for first, last in advice.terms.values():
        assert last > 0
        assert first >= 0
