"""How far the border of the water that was said lies from the true one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from sarflood.raster.patch import UNKNOWN, WET

TOLERANCE = 2.0  # pixels that a border may be off and still counts as found


@dataclass(frozen=True)
class Borders:
    """Sums over the border pixels of truth and prediction, which add up over patches.

    Attributes:
        true: Border pixels of the truth.
        found: Those of them with the prediction's border within 2 pixels.
        said: Border pixels of the prediction.
        right: Those of them with the true border within 2 pixels.
        paired: `true` and `said` of the patches in which both have a border.
        distance: Their distances to the other border, summed, in pixels.
    """

    true: int = 0
    found: int = 0
    said: int = 0
    right: int = 0
    paired: int = 0
    distance: float = 0.0

    def __add__(self, other: Borders) -> Borders:
        return Borders(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def f1(self) -> float | None:
        """Boundary F1 of Csurka et al. (2013), https://doi.org/10.5244/C.27.32, section 3.

        None where nothing has a border.
        """
        if not self.true + self.said:
            return None
        precision = self.right / self.said if self.said else 0.0
        recall = self.found / self.true if self.true else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    @property
    def mean_distance(self) -> float | None:
        """Average symmetric distance between the borders, in pixels; None without a pair."""
        return self.distance / self.paired if self.paired else None


def compare_borders(
    predictions: Sequence[NDArray[np.uint8]], truth: NDArray[np.uint8]
) -> list[Borders]:
    """Compare the borders of some predictions with those of the truth.

    A border pixel is wet and has a dry one beside it (one of 4). Where the truth is unknown there
    is no border.

    Args:
        predictions: (H, W) each; 0 dry, 1 wet.
        truth: (H, W); 1 wet, 255 unknown, all other codes dry.
    """
    known = truth != UNKNOWN
    true = _border(truth == WET, known)
    to_true = _distances(true)
    result = []
    for predicted in predictions:
        said = _border(predicted == WET, known)
        counts = int(true.sum()), int(said.sum())
        if not all(counts):
            result.append(Borders(true=counts[0], said=counts[1]))
            continue
        misses, alarms = _distances(said)[true], to_true[said]
        result.append(
            Borders(
                true=counts[0],
                found=int((misses <= TOLERANCE).sum()),
                said=counts[1],
                right=int((alarms <= TOLERANCE).sum()),
                paired=sum(counts),
                distance=float(misses.sum() + alarms.sum()),
            )
        )
    return result


def _border(wet: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    dry = np.pad(~wet & known, 1)
    beside = dry[:-2, 1:-1] | dry[2:, 1:-1] | dry[1:-1, :-2] | dry[1:-1, 2:]
    border: NDArray[np.bool_] = wet & known & beside
    return border


def _distances(border: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of each pixel to the border, in pixels; meaningless without one."""
    from scipy.ndimage import distance_transform_edt

    distances: NDArray[np.float64] = distance_transform_edt(~border)
    return distances
