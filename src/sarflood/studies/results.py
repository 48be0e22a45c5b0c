"""What a study found, as a table in Markdown and as a picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sarflood.files import replacing, write_text
from sarflood.studies.study import Study

_COLUMNS = (
    ("IoU, validation", "val_iou"),
    ("IoU at 0.5", "default_iou"),
    ("IoU", "iou"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("boundary F1", "boundary_f1"),
    ("border off by, px", "boundary_distance_px"),
)


def markdown(study: Study, runs: pd.DataFrame, events: str) -> str:
    """Return the table: means over the seeds, with the standard deviation where there are several.

    Its rows are in the order of the validation patches, by which a setting should be chosen.

    Args:
        study: What was compared.
        runs: As `run_study` gives them.
        events: Their names.
    """
    grouped = runs.groupby("setting", sort=False)
    order = grouped["val_iou"].mean().sort_values(ascending=False, kind="stable").index
    rows = [
        "| "
        + " | ".join([str(name), *(_cell(grouped.get_group(name)[key]) for _, key in _COLUMNS)])
        + " |"
        for name in order
    ]
    minutes = runs["minutes"].mean()
    told = (
        f"{events}: {runs['wet_share'].mean():.1%} of the test pixels are wet. "
        f"{study.seeds} seed{'s' if study.seeds > 1 else ''} each, "
        f"{minutes:.1f} minutes and {runs['epochs'].mean():.0f} epochs a training in the mean. "
        f"On the same patches Otsu has IoU {runs['otsu_iou'].iloc[0]:.3f}, the fitted threshold "
        f"{runs['fitted_threshold_iou'].iloc[0]:.3f}. Choose by the first column, "
        "which is of the validation patches; all others are of the test patches: the second at the "
        "probability 0.5, the rest at the threshold calibrated on validation patches."
    )
    header = "| " + " | ".join([study.name, *(title for title, _ in _COLUMNS)]) + " |"
    return "\n".join([told, "", header, "|" + "---|" * (len(_COLUMNS) + 1), *rows, ""])


def _cell(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return "–"
    spread = f" ± {known.std():.3f}" if len(known) > 1 else ""
    return f"{known.mean():.3f}{spread}"


def write_results(folder: Path, study: Study, runs: pd.DataFrame, events: str) -> list[Path]:
    """Write `<study>.md` and `<study>.svg` into a folder; return their paths."""
    table, picture = (folder / f"{study.name}.{kind}" for kind in ("md", "svg"))
    write_text(table, markdown(study, runs, events))
    with replacing(picture) as temporary:
        _plot(runs, temporary)
    return [table, picture]


def _plot(runs: pd.DataFrame, path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    order = runs.groupby("setting", sort=False)["val_iou"].mean().sort_values(kind="stable").index
    figure = Figure(figsize=(7, 1.5 + 0.42 * len(order)), layout="constrained")
    axes = figure.add_subplot()
    for column, label, colour, off in (
        ("default_iou", "at 0.5", "#E69F00", -0.15),
        ("iou", "at the calibrated threshold", "#0072B2", 0.15),
    ):
        for place, name in enumerate(order):
            values = runs.loc[runs["setting"] == name, column]
            axes.plot(values, [place + off] * len(values), "o", color=colour, markersize=4)
            told = label if place == 0 else None
            axes.plot(values.mean(), place + off, "|", color=colour, markersize=14, label=told)
    axes.set_yticks(range(len(order)), list(order))
    axes.axvline(runs["otsu_iou"].iloc[0], color="#6B7280", linestyle=":", label="Otsu")
    axes.axvline(
        runs["fitted_threshold_iou"].iloc[0], color="#6B7280", linestyle="--", label="fitted"
    )
    axes.set(xlabel="IoU of wet pixels, test patches; a dot a seed", xlim=(0, 1))
    axes.set_ylim(-0.5, len(order) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    with mpl.rc_context({"svg.hashsalt": "sarflood"}):
        canvas = FigureCanvasSVG(figure)
        canvas.print_figure(path, format="svg", metadata={"Date": None, "Creator": None})
