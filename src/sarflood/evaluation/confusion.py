"""Counts of right and wrong pixels, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from sarflood.raster.patch import UNKNOWN, WET


@dataclass(frozen=True)
class Counts:
    """Pixels by what was said and what is true; "positive" is wet."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def pixels(self) -> int:
        """All pixels counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def wet(self) -> int:
        """The truly wet pixels."""
        return self.tp + self.fn

    @property
    def iou(self) -> float | None:
        """Intersection over union of "wet"; None where nothing is wet and nothing was called so."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    def metrics(self) -> dict[str, float | None]:
        """Return the figures, ready for JSON.

        Returns:
            `iou`, `f1`, `precision`, `recall` of "wet", `accuracy`, `mean_iou`, the mean of the IoU
            of "wet" and of "dry", and `area_error`, the wet area that was said too much (or too
            little, below 0) as a share of the true one. A figure whose denominator is 0 is None:
            `recall` and `area_error` without wet pixels, `precision` without pixels called wet,
            `iou` and `f1` with neither, `accuracy` without pixels. `mean_iou` is over the classes
            that have an IoU.
        """
        classes = [self.iou, _ratio(self.tn, self.tn + self.fp + self.fn)]
        known = [value for value in classes if value is not None]
        return {
            "iou": self.iou,
            "f1": _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn),
            "precision": _ratio(self.tp, self.tp + self.fp),
            "recall": _ratio(self.tp, self.tp + self.fn),
            "accuracy": _ratio(self.tp + self.tn, self.pixels),
            "mean_iou": _ratio(sum(known), len(known)),
            "area_error": _ratio(self.fp - self.fn, self.wet),
        }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def count(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Counts:
    """Compare two masks of one shape; pixels that are 255 (unknown) in either are not counted.

    Args:
        predicted: 0 dry, 1 wet.
        truth: 1 wet, all other codes dry.
    """
    known = (truth != UNKNOWN) & (predicted != UNKNOWN)
    wet = truth[known] == WET
    tn, fp, fn, tp = np.bincount(2 * wet + predicted[known], minlength=4).tolist()
    return Counts(tp, fp, fn, tn)


def count_classes(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Compare two masks of K classes; pixels that are 255 (unknown) in either are not counted.

    Returns:
        (K, K) pixels; a row for each true class, a column for each that was said.
    """
    known = (truth != UNKNOWN) & (predicted != UNKNOWN)
    pairs = classes * truth[known].astype(np.intp) + predicted[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_ious(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, float | None]:
    """Return the IoU of each class, and as `mean` that of the classes that have one.

    Args:
        counts: (K, K), as `count_classes` gives it.
        names: Of the K classes.

    Returns:
        None for a class that is neither there nor was said.
    """
    hits = counts.diagonal()
    whole = counts.sum(axis=0) + counts.sum(axis=1) - hits
    found = [_ratio(*pair) for pair in zip(hits.tolist(), whole.tolist(), strict=True)]
    known = [iou for iou in found if iou is not None]
    return dict(zip(names, found, strict=True)) | {"mean": _ratio(sum(known), len(known))}
