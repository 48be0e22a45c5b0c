from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sarflood.patches.neighbours import groups
from sarflood.patches.similarity import edge_continuations
from sarflood.sources.readers import recognise


def mosaic(rows: int, cols: int, seed: int) -> np.ndarray:
    """Neighbouring patches of one smooth field of two bands, with speckle: (N, 2, 256, 256)."""
    rng = np.random.default_rng(seed)
    shape = (2, 256 * rows, 256 * cols)
    field = np.stack([gaussian_filter(rng.normal(0, 60, shape[1:]), 4) for _ in range(2)])
    field += rng.normal(0, 0.5, shape)
    return np.stack(
        [
            field[:, 256 * row : 256 * row + 256, 256 * col : 256 * col + 256]
            for row in range(rows)
            for col in range(cols)
        ]
    ).astype(np.float16)


def test_neighbours_are_found_in_their_order_and_no_others() -> None:
    images = np.concatenate([mosaic(2, 2, 1), mosaic(1, 2, 2)])
    found = edge_continuations(images)
    assert set(zip(found["first"], found["second"], strict=True)) == {
        (0, 1),
        (2, 3),
        (0, 2),
        (1, 3),
        (4, 5),
    }
    assert (found["correlation"] > 0.6).all()
    pairs = found[["first", "second"]].to_numpy(np.int64)
    assert groups(pairs, 6).tolist() == [0, 0, 0, 0, 1, 1]


def test_one_band_alone_does_not_make_neighbours() -> None:
    images = mosaic(1, 2, 3)
    images[1, 1] = mosaic(1, 1, 4)[0, 1]
    assert edge_continuations(images).empty


def test_edges_without_data_or_structure_say_nothing() -> None:
    images = mosaic(1, 2, 5)
    images[0, :, :, -2:] = np.nan
    assert edge_continuations(images).empty
    assert edge_continuations(np.zeros((3, 2, 256, 256), np.float16)).empty


@pytest.mark.realdata
def test_ombria_falls_into_scenes(real_data: Path) -> None:
    """Its numbers count row by row: neighbours are one apart, or a row's length."""
    root = real_data / "ombria"
    reader = recognise(root)
    images = np.stack(
        [
            patch.image.astype(np.float16)
            for item in reader.items(root)
            for patch in reader.read(item)
        ]
    )
    found = edge_continuations(images)
    apart = (found["second"] - found["first"]).abs()
    assert len(found) > 800
    assert (apart == 1).sum() > 400
    assert (apart > 30).sum() <= 10, "no scene is so wide: these are by chance"
    sizes = np.bincount(groups(found[["first", "second"]].to_numpy(np.int64), len(images)))
    assert sizes.max() < 0.2 * len(images), "so that scenes can be dealt out"
