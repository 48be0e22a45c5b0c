"""The report's figures, each as a data URI, so that a page with them needs no other file."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from sarflood.raster.patch import DRY, UNKNOWN, WET, is_dry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with any kind of colour vision, on a dark ground for dry land.
COLOURS = {
    "hit": "#009E73",
    "false alarm": "#D55E00",
    "miss": "#F0E442",
    "wet": "#56B4E9",
    "dry": "#22272E",
    "unknown": "#9AA0A6",
}
NO_DATA_GREY = 0.6
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#6B7280"


def training_curves(training: pd.DataFrame) -> str:
    """Draw the loss on training patches and the IoU on validation patches over the epochs.

    Args:
        training: A row an epoch with `epoch`, `train_loss`, `val_iou`.
    """
    figure = new_figure()
    loss = figure.add_subplot()
    iou = loss.twinx()
    for axes, column, colour, label in (
        (loss, "train_loss", ORANGE, "loss, training patches"),
        (iou, "val_iou", BLUE, "IoU, validation patches"),
    ):
        axes.plot(training["epoch"], training[column], color=colour, marker=".", markersize=3)
        axes.set_ylabel(label, color=colour)
        axes.tick_params(axis="y", colors=colour)
        axes.spines["top"].set_visible(False)
    loss.set_xlabel("epoch")
    loss.locator_params(axis="x", integer=True)
    loss.set_ylim(bottom=0)
    iou.set_ylim(0, 1)
    loss.grid(axis="x", color="#E5E7EB")
    best = int(training["val_iou"].argmax())
    epoch, value = training["epoch"].iloc[best], training["val_iou"].iloc[best]
    iou.plot(epoch, value, "o", color=BLUE, markersize=6)
    iou.annotate(
        f"best {value:.3f}",
        (epoch, value),
        xytext=(-6, -16),
        textcoords="offset points",
        ha="right",
        color=BLUE,
    )
    return as_svg(figure)


def precision_recall_curve(
    curve: pd.DataFrame, *, precision: float | None, recall: float | None, threshold: float
) -> str:
    """Draw precision over recall, lines of equal F1, and the point at which the model works.

    Args:
        curve: `Evaluation.precision_recall`.
        precision: Of the model at its threshold; None leaves the point out.
        recall: Likewise.
        threshold: The model's threshold on the probability.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    _f1_lines(axes)
    axes.plot(curve["recall"], curve["precision"], color=BLUE, linewidth=2)
    if precision is not None and recall is not None:
        axes.plot(recall, precision, "o", color="#D55E00", markersize=8, clip_on=False)
        axes.annotate(
            f"threshold {threshold:.2f}",
            (recall, precision),
            xytext=(-10, -14),
            textcoords="offset points",
            ha="right",
            color="#D55E00",
        )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
    axes.spines[["top", "right"]].set_visible(False)
    return as_svg(figure)


def reliability_curve(curve: pd.DataFrame) -> str:
    """Draw the share of wet pixels over the probability, and how many pixels have each.

    Args:
        curve: `Evaluation.reliability`.
    """
    figure = new_figure()
    number = figure.add_subplot()
    number.bar(curve["probability"], curve["pixels"], width=0.05, color="#E5E7EB")
    number.set(xlim=(0, 1), xlabel="probability", yscale="log")
    number.minorticks_off()
    number.set_ylabel("pixels", color=GREY)
    axes = number.twinx()  # which puts both scales where they are not wanted
    number.yaxis.tick_right()
    number.yaxis.set_label_position("right")
    axes.yaxis.tick_left()
    axes.yaxis.set_label_position("left")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    axes.plot(curve["probability"], curve["wet_share"], color=BLUE, marker="o", markersize=4)
    axes.set(ylim=(0, 1.01), ylabel="share of wet pixels")
    for each in (number, axes):
        each.spines["top"].set_visible(False)
    return as_svg(figure)


def _f1_lines(axes: Axes) -> None:
    for f1 in (0.5, 0.6, 0.7, 0.8, 0.9):
        recall = np.linspace(f1 / (2 - f1), 1, 60)
        precision = f1 * recall / (2 * recall - f1)
        axes.plot(recall, precision, color="#D1D5DB", linewidth=0.8)
        axes.annotate(f"F1 {f1}", (f1, f1), color=GREY, fontsize=7, ha="center", va="center")


def new_figure() -> Figure:
    """Return an empty figure of the report's size."""
    from matplotlib.figure import Figure

    return Figure(figsize=(5.6, 3.4), layout="constrained")


def as_svg(figure: Figure) -> str:
    """Return a figure as a data URI."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = io.BytesIO()
    # A fixed salt and no date: the same evaluation gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "sarflood"}):
        canvas = FigureCanvasSVG(figure)
        canvas.print_figure(content, format="svg", metadata={"Date": None, "Creator": None})
    return _uri("image/svg+xml", content.getvalue())


def radar_image(vv: NDArray[np.floating]) -> str:
    """Show (H, W) backscatter from its 2nd (black) to its 98th percentile; no data is mid-grey."""
    known = np.isfinite(vv)
    grey = np.full(vv.shape, NO_DATA_GREY)
    if known.any():
        low, high = np.percentile(vv[known].astype(np.float64), (2, 98))
        grey[known] = ((vv[known] - low) / max(high - low, 1e-6)).clip(0, 1)
    return _png((grey * 255).astype(np.uint8))


def truth_image(truth: NDArray[np.uint8]) -> str:
    """Show a mask (H, W): 1 wet, 255 unknown, all other codes dry."""
    return _png(_paint(truth.shape, {"wet": truth == WET, "unknown": truth == UNKNOWN}))


def verdict_image(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> str:
    """Show where a prediction (H, W) hits, misses, and gives false alarms."""
    return _png(
        _paint(
            truth.shape,
            {
                "hit": (predicted == WET) & (truth == WET),
                "false alarm": (predicted == WET) & is_dry(truth),
                "miss": (predicted == DRY) & (truth == WET),
                "unknown": (predicted == UNKNOWN) | (truth == UNKNOWN),
            },
        )
    )


def _paint(shape: tuple[int, ...], parts: dict[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    pixels = np.full((*shape, 3), _rgb("dry"), np.uint8)
    for name, where in parts.items():
        pixels[where] = _rgb(name)
    return pixels


def _rgb(name: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(COLOURS[name][1:]))


def _png(pixels: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return _uri("image/png", content.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
