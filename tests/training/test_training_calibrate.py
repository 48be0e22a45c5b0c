from __future__ import annotations

import numpy as np
import pytest
import torch

from sarflood.training.calibrate import calibrate, count_logits


def drawn(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `scale` times the true log-odds, and masks that follow those."""
    random = np.random.default_rng(0)
    odds = random.normal(-2, 2, (4, 256, 256)).astype(np.float32)
    masks = (random.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(np.uint8)
    masks[:, 0] = 255
    return torch.from_numpy(scale * odds), torch.from_numpy(masks)


def test_the_threshold_is_the_one_of_the_highest_iou() -> None:
    logits, masks = drawn()
    counts = count_logits(logits, masks)
    assert counts.sum() == (masks < 2).sum()
    found = calibrate(counts)
    probability = torch.sigmoid(logits / found.temperature).numpy()
    truth = masks.numpy()

    def brute(at: float) -> float:
        wet = (probability >= at) & (truth < 2)
        return float((wet & (truth == 1)).sum() / (wet | (truth == 1)).sum())

    assert found.iou == pytest.approx(brute(found.threshold), abs=1e-4)
    assert found.iou == pytest.approx(max(brute(step / 400) for step in range(1, 400)), abs=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_makes_probabilities_honest(scale: float) -> None:
    logits, masks = drawn(scale)
    found = calibrate(count_logits(logits, masks))
    assert found.temperature == pytest.approx(scale, rel=0.05)
    known = masks < 2
    probability = torch.sigmoid(logits / found.temperature)
    sure = known & (probability > 0.7) & (probability < 0.8)
    assert float(masks[sure].float().mean()) == pytest.approx(0.75, abs=0.03)


def test_a_perfect_separation_has_a_threshold_inside() -> None:
    masks = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    found = calibrate(count_logits(torch.tensor([[[-40.0, 40.0, 0.0]]]), masks))
    assert found.iou == 1
    assert 0 < found.threshold < 1
