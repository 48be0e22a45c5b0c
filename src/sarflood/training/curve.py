"""The training curves: a row an epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One row; `val_iou`, `temperature` and `threshold` are as `calibrate` chose them after it."""

    epoch: int
    seconds: float
    train_loss: float
    val_iou: float
    temperature: float
    threshold: float
    learning_rate: float
