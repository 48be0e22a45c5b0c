"""A picture of a time series: area over time, and from when to when each zone was flooded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.dates
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sarflood.files import replacing
from sarflood.mapping.series import OVERALL, Course

_dates: Any = matplotlib.dates  # has no types

_WATER, _LIGHT, _INK, _GREY = "#1f6feb", "#b6d4fe", "#24292f", "#57606a"
_MOST_ZONES = 24


def plot_series(courses: Sequence[Course], path: Path, *, label: str) -> None:
    """Draw the area of all that was mapped, and below it the zones with the largest peaks.

    Args:
        courses: The first is that of all.
        path: Where to.
        label: What is mapped, such as `flood`.
    """
    zones = [course for course in courses if course.name != OVERALL and course.peak]
    zones.sort(key=lambda course: -course.peak.flooded_km2 if course.peak else 0)
    shown = zones[:_MOST_ZONES]
    below = 0.55 + 0.26 * len(shown)
    height = 3.6 + (below if shown else 0)
    figure = Figure(figsize=(9.0, height), dpi=130, layout="constrained")
    figure.set_facecolor("white")
    rows = figure.subplots(
        2 if shown else 1,
        1,
        sharex=True,
        squeeze=False,
        height_ratios=[3.6, below] if shown else [1],
    )[:, 0]
    kind = "Flooded" if label == "flood" else "Water"
    _draw_area(rows[0], courses[0], kind)
    if shown:
        more = f"; the {_MOST_ZONES} largest of {len(zones)}" if len(zones) > len(shown) else ""
        _draw_zones(rows[1], shown, more)
    locator = _dates.AutoDateLocator(minticks=3, maxticks=9)
    rows[-1].xaxis.set_major_locator(locator)
    rows[-1].xaxis.set_major_formatter(_dates.ConciseDateFormatter(locator))
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_area(axes: Axes, course: Course, kind: str) -> None:
    counting = [point for point in course.points if point.counts]
    times = _dates.date2num([point.acquired for point in counting])
    areas = [point.flooded_km2 for point in counting]
    axes.fill_between(times, areas, color=_LIGHT, linewidth=0)
    axes.plot(times, areas, color=_WATER, marker="o", linewidth=1.8, markersize=5)
    others = [point for point in course.points if not point.counts]
    if others:
        axes.plot(
            _dates.date2num([point.acquired for point in others]),
            [point.flooded_km2 for point in others],
            linestyle="none",
            marker="o",
            markerfacecolor="white",
            color=_GREY,
            label="less of the area seen",
        )
        axes.legend(frameon=False, fontsize=9)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.03)
    axes.set_ylabel("km²", color=_GREY)
    axes.set_title(f"{kind} area", loc="left", fontsize=13, weight="bold", color=_INK)
    _tidy(axes)


def _draw_zones(axes: Axes, zones: Sequence[Course], more: str) -> None:
    """Draw a bar from onset to recession; the gaps to the dates around them are drawn light."""
    last = max(_dates.date2num(point.acquired) for course in zones for point in course.points)
    for row, course in enumerate(zones):
        if course.peak is None or course.onset is None:
            continue
        start, end = _dates.date2num(course.onset), last
        if course.recession and course.recession_after:
            end = _dates.date2num(course.recession_after)
            axes.barh(
                row, _dates.date2num(course.recession) - end, left=end, height=0.5, color=_LIGHT
            )
        if course.onset_after:
            before = _dates.date2num(course.onset_after)
            axes.barh(row, start - before, left=before, height=0.5, color=_LIGHT)
        axes.barh(row, end - start, left=start, height=0.5, color=_WATER)
        axes.plot(
            _dates.date2num(course.peak.acquired),
            row,
            marker="o",
            color=_WATER,
            markeredgecolor="white",
            markersize=7,
        )
    names = [
        f"{_short(course.name)}  {course.peak.flooded_km2 if course.peak else 0:.3g} km²"
        for course in zones
    ]
    axes.set_yticks(range(len(zones)), names, fontsize=9)
    axes.set_ylim(len(zones) - 0.4, -0.6)
    axes.set_title(
        f"When zones were flooded (light: in between two dates; dot: peak{more})",
        loc="left",
        fontsize=10,
        color=_GREY,
    )
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d0d7de")
    axes.tick_params(colors=_GREY, labelcolor=_INK)
    axes.grid(axis="x", color="#eaeef2")
    axes.set_axisbelow(True)


def _short(name: str) -> str:
    # Matplotlib takes what stands between two dollar signs for mathematics.
    return (name if len(name) <= 28 else f"{name[:27]}…").replace("$", r"\$")
