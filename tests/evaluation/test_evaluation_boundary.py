from __future__ import annotations

import numpy as np
import pytest

from sarflood.evaluation.boundary import Borders, compare_borders


def square(left: int, right: int) -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, left:right] = 1
    return mask


def test_a_border_in_its_place_is_found_whole() -> None:
    (found,) = compare_borders([square(10, 30)], square(10, 30))
    assert found == Borders(true=128, found=128, said=128, right=128, paired=256, distance=0.0)
    assert (found.f1, found.mean_distance) == (1.0, 0.0)


@pytest.mark.parametrize(("off", "f1"), [(1, 1.0), (2, 1.0), (3, 0.0)])
def test_a_moved_border_is_found_within_two_pixels(off: int, f1: float) -> None:
    (found,) = compare_borders([square(10 + off, 40 + off)], square(10, 40))
    assert found.f1 == f1
    assert found.mean_distance == off


def test_predictions_are_compared_one_by_one() -> None:
    truth = square(10, 40)
    near, far, dry = compare_borders([square(11, 40), square(15, 40), square(0, 0)], truth)
    assert (near.mean_distance, far.mean_distance) == (0.5, 2.5)
    assert (near.f1, far.f1, dry.f1) == (1.0, 0.5, 0.0)
    assert dry.mean_distance is None


def test_a_false_border_in_a_dry_patch_counts_against_precision() -> None:
    (dry,) = compare_borders([square(10, 20)], square(0, 0))
    (good,) = compare_borders([square(10, 20)], square(10, 20))
    both = dry + good
    assert both.f1 == pytest.approx(2 * 0.5 / 1.5)
    assert both.mean_distance == 0.0, "no distance to a border that is not there"


def test_neither_the_image_nor_the_unknown_makes_a_border() -> None:
    truth = square(0, 64)
    truth[:, 20:30] = 255
    (found,) = compare_borders([square(0, 64)], truth)
    assert found == Borders()
    assert (found.f1, found.mean_distance) == (None, None)
