"""Sketches of patches that shifted or re-stretched copies of a patch share.

A bright pixel of speckle and the order of the values around it are the same in every copy of an
image, wherever the copy is cut and however its values are stretched. The codes of these orders are
the words of a patch; of their hashes the smallest are kept, so that the share of hashes that two
patches have in common estimates how much of their ground is the same (bottom-k MinHash: Broder, On
the resemblance and containment of documents, 1997; the codes follow the census transform: Zabih and
Woodfill, 1994).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

WORDS = 32
_ENOUGH = 8 * WORDS  # of the smallest hashes, for as many different ones
MIN_SHARED = 6  # of 32 words; patches of other ground share 0 or 1
_MAX_HOLDERS = 64  # a word of more patches than this is of a pattern, not of a place
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
_RADIUS = 5


def _ring(radius: int, count: int) -> list[tuple[int, int]]:
    angles = 2 * np.pi * np.arange(count) / count
    return [(round(radius * np.sin(turn)), round(radius * np.cos(turn))) for turn in angles]


_RINGS = np.array([_ring(3, 16), _ring(_RADIUS, 16)])  # (2, 16, 2): row and column offsets
_BITS = np.uint32(1) << np.arange(32, dtype=np.uint32)


def sketch(band: NDArray[np.float32]) -> bytes:
    """Return the 32 smallest hashes of a patch's words.

    Args:
        band: (H, W) float32 of one band; NaN is no data.

    Returns:
        At most 32 ascending little-endian uint32; fewer where there is little to see.
    """
    height, width = band.shape
    inner = (slice(_RADIUS, -_RADIUS), slice(_RADIUS, -_RADIUS))
    centre = band[inner]
    peak = np.ones(centre.shape, np.bool_)
    for down, right in _NEIGHBOURS:
        rows = slice(_RADIUS + down, height - _RADIUS + down)
        cols = slice(_RADIUS + right, width - _RADIUS + right)
        np.logical_and(peak, centre > band[rows, cols], out=peak)
    places = np.flatnonzero(peak)
    places = (places // centre.shape[1] + _RADIUS) * width + places % centre.shape[1] + _RADIUS
    offsets = _RINGS[..., 0] * width + _RINGS[..., 1]
    around = band.ravel()[places[:, None, None] + offsets]
    higher = around > np.roll(around, 1, axis=2)
    codes = (higher.reshape(len(places), 32) * _BITS).sum(axis=1, dtype=np.uint32)
    hashes = _mixed(codes[codes != 0])
    if hashes.size > _ENOUGH:
        hashes = np.partition(hashes, _ENOUGH)[:_ENOUGH]
    hashes = np.unique(hashes)[:WORDS]
    return hashes.astype("<u4").tobytes()


def _mixed(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spread codes evenly over 32 bits (the finaliser of MurmurHash3)."""
    mixed = codes.copy()
    mixed ^= mixed >> 16
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> 13
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> 16
    return mixed


def near_duplicates(left: pd.DataFrame, right: pd.DataFrame | None = None) -> pd.DataFrame:
    """Find patches that show the same pixels, shifted or re-stretched, by their sketches.

    Args:
        left: `id` and `sketch`, a row a patch.
        right: The patches to compare with; by default those of `left` among themselves.

    Returns:
        `first` (of `left`), `second` (of `right`) and `overlap`, the share of words in common (0 to
        1), a row a pair, each pair once.
    """
    one = _words(left)
    other = one if right is None else _words(right)
    pairs = one.merge(other, on="word", suffixes=("_one", "_other"))
    if right is None:
        pairs = pairs[pairs["place_one"] < pairs["place_other"]]
    shared = pairs.groupby(["place_one", "place_other"]).size()
    shared = shared[shared >= MIN_SHARED]
    ids = (left if right is None else right)["id"].to_numpy()
    return pd.DataFrame(
        {
            "first": left["id"].to_numpy()[shared.index.get_level_values(0)],
            "second": ids[shared.index.get_level_values(1)],
            "overlap": shared.to_numpy() / WORDS,
        }
    )


def _words(table: pd.DataFrame) -> pd.DataFrame:
    """Return `place` (the row) and `word`, without the words of too many patches."""
    words = [np.frombuffer(item, "<u4") for item in table["sketch"]]
    flat = np.concatenate([np.empty(0, np.uint32), *words])
    places = np.repeat(np.arange(len(words)), [len(item) for item in words])
    frame = pd.DataFrame({"place": places, "word": flat})
    holders = frame.groupby("word")["place"].transform("size")
    return frame[holders <= _MAX_HOLDERS]
