"""The losses: pure functions of the labelled pixels of a batch.

An unknown pixel (255) has no gradient and is in no mean. Sums run over the whole batch, so that one
patch without water is an ordinary case, or over each image (`Pixels.reduction`). With several
classes the terms that compare areas are averaged over the classes; those that no pixel has are
compared as one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sarflood.model.pixels import Pixels

# Added to both sides of the overlap ratios, as a share of the labelled pixels. A constant number of
# pixels vanishes in a large batch: where 10⁵ dry pixels have the probability 0.5, the gradient of
# Dice against these false alarms is 4·10⁻¹⁰ a pixel with 1, and 7·10⁻⁷ with this.
SMOOTHING = 0.02
_LEAST = 1e-7  # where a power below 1 has no finite slope at 0

Term = Callable[[Pixels], Tensor]


def cross_entropy(pixels: Pixels) -> Tensor:
    """Return the mean of −log p_t, with p_t the probability of the true class."""
    return pixels.mean(pixels.share(pixels.sums.entropy.sum(dim=1, keepdim=True)))


def weighted_cross_entropy(pixels: Pixels, *, weights: tuple[float, ...]) -> Tensor:
    """Return the mean of −w_t log p_t, with w_t the weight of the true class.

    Args:
        pixels: The batch.
        weights: Of each class, dry first.

    Raises:
        ValueError: There is not one weight for each class.
    """
    entropy = pixels.sums.entropy
    if len(weights) != entropy.shape[1]:
        raise ValueError(f"{len(weights)} class weights for {entropy.shape[1]} classes")
    weighted = entropy * entropy.new_tensor(weights)
    return pixels.mean(pixels.share(weighted.sum(dim=1, keepdim=True)))


def focal(pixels: Pixels, *, gamma: float) -> Tensor:
    """Return the mean of −(1 − p_t)^γ log p_t.

    Lin et al. (2017), equation 4, https://arxiv.org/abs/1708.02002.
    """
    doubt = -torch.expm1(pixels.log_truth.clamp(max=-_LEAST))
    return -pixels.mean(pixels.share((doubt**gamma * pixels.log_truth).sum(dim=1, keepdim=True)))


def dice(pixels: Pixels) -> Tensor:
    """Return 1 − (2 Σ p g + s) / (Σ p + Σ g + s), with s the smoothing.

    Milletari, Navab and Ahmadi (2016), section 3, https://arxiv.org/abs/1606.04797, with plain sums
    below the line in place of sums of squares.
    """
    hits, alarms, misses = pixels.overlap
    return pixels.mean(1.0 - (2 * hits + SMOOTHING) / (2 * hits + alarms + misses + SMOOTHING))


def iou(pixels: Pixels) -> Tensor:
    """Return 1 − (Σ p g + s) / (Σ (p + g − p g) + s), with s the smoothing.

    Rahman and Wang (2016), equations 3 to 5, https://doi.org/10.1007/978-3-319-50835-1_22.
    """
    return tversky(pixels, alpha=1.0, beta=1.0)


def tversky(pixels: Pixels, *, alpha: float, beta: float) -> Tensor:
    """Return 1 − (Σ p g + s) / (Σ p g + α Σ p (1 − g) + β Σ (1 − p) g + s), with s the smoothing.

    Salehi, Erdogmus and Gholipour (2017), equation 4, https://arxiv.org/abs/1706.05721.

    Args:
        pixels: The batch.
        alpha: Weight of the false alarms.
        beta: Weight of the misses.
    """
    return pixels.mean(_tversky(pixels, alpha, beta))


def focal_tversky(pixels: Pixels, *, alpha: float, beta: float, gamma: float) -> Tensor:
    """Return the Tversky loss to the power of 1 / γ, class by class.

    Abraham and Khan (2019), equation 4, https://arxiv.org/abs/1810.07842.

    Args:
        pixels: The batch.
        alpha: Weight of the false alarms.
        beta: Weight of the misses.
        gamma: Above 1 what is nearly right counts for more.
    """
    return pixels.mean(_tversky(pixels, alpha, beta).clamp(min=_LEAST) ** (1.0 / gamma))


def _tversky(pixels: Pixels, alpha: float, beta: float) -> Tensor:
    hits, alarms, misses = pixels.overlap
    return 1.0 - (hits + SMOOTHING) / (hits + alpha * alarms + beta * misses + SMOOTHING)


def lovasz(pixels: Pixels) -> Tensor:
    """Return the Lovász extension of 1 − IoU of each class at the errors |g − p|.

    Berman, Triki and Blaschko (2018), equations 8 and 9, https://arxiv.org/abs/1705.08790. Unknown
    pixels have the error 0 and come last, where they change nothing. Of a batch that processes
    share each one sorts its own share.
    """
    probability, truth = pixels.probability, pixels.truth
    if pixels.reduction == "batch":
        probability, truth = (x.transpose(0, 1).flatten(1)[None] for x in (probability, truth))
    errors, order = (truth - probability).abs().sort(dim=2, descending=True)
    found = truth.gather(2, order)
    total = found.sum(dim=2, keepdim=True)
    common, union = total - found.cumsum(dim=2), total + (1.0 - found).cumsum(dim=2)
    slope = torch.diff(1.0 - common / union, dim=2, prepend=torch.zeros_like(total))
    return pixels.mean((errors * slope.detach()).sum(dim=2))


def boundary(pixels: Pixels) -> Tensor:
    """Return the mean of p φ, with φ the signed distance to the border of the true area.

    Kervadec et al. (2019), equation 5, https://arxiv.org/abs/1812.07032. φ is in pixels, negative
    inside, so that the loss of a right map is below 0, and a weight of 0.01 is not little.

    Raises:
        ValueError: The batch came without distances.
    """
    if pixels.distance is None:
        raise ValueError("the boundary loss needs distances")
    return pixels.mean(pixels.share(pixels.sums.along))
