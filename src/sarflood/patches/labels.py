"""Statistics of a mask against the radar image that it was drawn on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from sarflood.patches.blocks import block_means

LABEL_STATISTICS = ("mask_edge_share", "edge_contrast", "edge_strength", "block_share")
BLOCK = 4  # pixels a side: 16 looks more, and edges that are drawn some pixels off still fit
_SOLID = 0.9  # share of one class that makes a block of that class
_MIN_EDGES = 24  # pairs of blocks, for a mean that tells
_MIN_SIDE = 4  # blocks: smaller rectangles come about by chance
_RECTANGLE = 0.97  # how much of its bounding box a rectangle fills
_MIN_TRACE = 0.5  # mean difference between inside and outside, in standard deviations of outside
_WHOLE = 0.9  # a component with more of the patch is its background

Flags = NDArray[np.bool_]
Blocks = NDArray[np.float32]


def label_statistics(band: Blocks, wet: Flags, dry: Flags) -> dict[str, float]:
    """Describe how a mask fits its radar image.

    Args:
        band: (H, W) float32 backscatter; NaN is no data.
        wet: (H, W) labelled wet.
        dry: (H, W) labelled dry.

    Returns:
        `mask_edge_share`: of the neighbouring pixels that are labelled, those with different
        labels: a few percent for water, 1 for a checkerboard. `edge_contrast`: how much darker the
        wet side of the mask's edges is, in mean differences between neighbours anywhere: 0 for a
        mask of another place, negative for an inverted one and for flooded vegetation; NaN with
        less than 24 edges. `edge_strength`: the same of the differences' amounts, darker or
        brighter: about 1 for a mask of another place. `block_share`: of the patch, what is
        rectangles of one label that leave no trace in the radar image. All NaN where nothing is
        labelled.
    """
    if not (wet.any() or dry.any()):
        return dict.fromkeys(LABEL_STATISTICS, float("nan"))
    if not (wet.any() and dry.any()):
        nothing = dict.fromkeys(("edge_contrast", "edge_strength"), float("nan"))
        return {"mask_edge_share": 0.0, **nothing, "block_share": 0.0}
    radar = block_means(band, BLOCK)
    wet_share, dry_share = (block_means(kind.astype(np.float32), BLOCK) for kind in (wet, dry))
    contrast, strength = _edge_contrast(radar, wet_share >= _SOLID, dry_share >= _SOLID)
    return {
        "mask_edge_share": _edge_share(wet, dry),
        "edge_contrast": contrast,
        "edge_strength": strength,
        "block_share": _traceless(radar, wet, wet_share) + _traceless(radar, dry, dry_share),
    }


def _edge_share(wet: Flags, dry: Flags) -> float:
    labelled = wet | dry
    edges = pairs = 0
    for is_wet, known in ((wet, labelled), (wet.T, labelled.T)):
        both = known[1:] & known[:-1]
        edges += int(np.count_nonzero((is_wet[1:] ^ is_wet[:-1]) & both))
        pairs += int(np.count_nonzero(both))
    return edges / pairs if pairs else 0.0


def _edge_contrast(radar: Blocks, wet: Flags, dry: Flags) -> tuple[float, float]:
    """Return `edge_contrast` and `edge_strength`.

    Blocks two apart are compared, so that the block that the edge runs through is left out.
    """
    drops, steps = [], []
    for image, is_wet, is_dry in ((radar, wet, dry), (radar.T, wet.T, dry.T)):
        step = image[2:] - image[:-2]
        steps.append(np.abs(step).ravel())
        drops.append(step[is_dry[2:] & is_wet[:-2]])
        drops.append(-step[is_wet[2:] & is_dry[:-2]])
    drop, step = np.concatenate(drops), np.concatenate(steps)
    drop, step = drop[np.isfinite(drop)], step[np.isfinite(step)]
    usual = float(step.mean()) if step.size else 0.0
    if drop.size < _MIN_EDGES or usual == 0:
        return float("nan"), float("nan")
    return float(drop.mean()) / usual, float(np.abs(drop).mean()) / usual


def _is_rectangle(pixels: Flags, box: tuple[slice, ...]) -> bool:
    """Say whether a component in a box of blocks has the corners of a rectangle, too."""
    margin = BLOCK // 2  # a block is a member with half of its pixels
    part = pixels[
        tuple(slice(max(s.start * BLOCK - margin, 0), s.stop * BLOCK + margin) for s in box)
    ]
    rows, cols = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    filled = part[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].mean()
    return bool(filled >= _RECTANGLE)


def _traceless(radar: Blocks, pixels: Flags, share: Blocks) -> float:
    """Return the share of the patch in solid rectangles whose inside looks like their outside."""
    member = share >= 0.5
    components, _ = label(member)
    blocks = 0
    for number, box in enumerate(find_objects(components), start=1):
        inside = components[box] == number
        if min(inside.shape) < _MIN_SIDE or inside.mean() < _RECTANGLE:
            continue
        if inside.size > _WHOLE * member.size or not _is_rectangle(pixels, box):
            continue
        around = tuple(slice(max(side.start - _MIN_SIDE, 0), side.stop + _MIN_SIDE) for side in box)
        ring = np.ones_like(member[around])
        ring[
            tuple(
                slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True)
            )
        ] = False
        outside = radar[around][ring]
        outside, within = outside[np.isfinite(outside)], radar[box][np.isfinite(radar[box])]
        if outside.size and within.size:
            step = abs(float(np.median(within)) - float(np.median(outside)))
            if step < _MIN_TRACE * float(outside.std()):
                blocks += inside.size
    return blocks / member.size
