"""The training curves: a row an epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One row; `val_iou`, `temperature` and `threshold` are as `calibrate` chose them after it.

    `planned` is how many epochs there will be, as far as can be told by then; `seconds` are those
    from the start on, `seconds_an_epoch` what one takes by the last five.
    """

    epoch: int
    planned: int
    seconds: float
    seconds_an_epoch: float
    train_loss: float
    val_iou: float
    temperature: float
    threshold: float
    learning_rate: float
