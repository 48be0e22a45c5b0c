from __future__ import annotations

import numpy as np
import pytest

from sarflood.patches.distance import MAX_DISTANCE, signed_distance


def by_hand(mask: np.ndarray, of: int) -> np.ndarray:
    """Each pixel against each other one."""
    inside, outside = np.argwhere(mask == of), np.argwhere((mask != of) & (mask != 255))
    distance = np.zeros(mask.shape)
    for place in np.argwhere(mask != 255):
        others, sign = (outside, -1) if mask[tuple(place)] == of else (inside, 1)
        nearest = np.sqrt(((others - place) ** 2).sum(axis=1)).min()
        distance[tuple(place)] = nearest if sign == 1 else 1 - nearest
    return np.rint(distance)


@pytest.mark.parametrize("of", [0, 1, 2])
def test_distances_are_those_to_the_nearest_pixel_on_the_other_side(of: int) -> None:
    mask = np.random.default_rng(of).choice([0, 1, 2, 255], (24, 20), p=[0.7, 0.1, 0.1, 0.1])
    mask[2:10, 4:14], mask[12:20, 4:14] = of, (of + 1) % 3  # some are not at the border
    mask = mask.astype(np.uint8)
    distance = signed_distance(mask, of)
    np.testing.assert_array_equal(distance, by_hand(mask, of))
    assert distance.min() < -1
    assert distance.max() > 1


@pytest.mark.parametrize(("value", "expected"), [(0, MAX_DISTANCE), (1, -MAX_DISTANCE), (255, 0)])
def test_a_patch_without_border_is_far_from_it(value: int, expected: int) -> None:
    assert (signed_distance(np.full((256, 256), value, np.uint8), 1) == expected).all()


def test_far_away_is_no_overflow() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[0, 0] = 1
    distance = signed_distance(mask, 1)
    assert distance[0, 0] == 0
    assert distance[0, 100] == 100
    assert distance[255, 255] == MAX_DISTANCE
