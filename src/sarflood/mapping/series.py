"""Maps of one place over time: flooded area by date, and when each zone went under and came up."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sarflood.errors import InputError
from sarflood.files import replacing, write_json
from sarflood.mapping.sources import SceneFiles

FILES = {"series": "series.json", "table": "series.csv", "plot": "series.png"}
OVERALL = "overall"
LEVEL = 0.5  # of the rise, from a zone's smallest area to its largest, that counts as flooded
_COVERED = 0.9  # of the area that was ever seen of a zone, that a date must have seen to count
_Times = tuple[str | None, str | None]


@dataclass(frozen=True)
class Point:
    """A zone on a date.

    Attributes:
        acquired: When.
        scene: The map's folder.
        flooded_km2: Its flooded area.
        valid_km2: How much of it was seen.
        counts: Whether that is enough for its area to be compared with other dates.
    """

    acquired: dt.datetime
    scene: str
    flooded_km2: float
    valid_km2: float
    counts: bool = True


@dataclass(frozen=True)
class Course:
    """A zone over time.

    Attributes:
        name: Of the zone, or `overall` for all that was mapped.
        points: By date.
        peak: The date with the largest area; None where the area never changes.
        onset: The first date with an area at or above half of the rise to the peak.
        onset_after: The last date before, so that the zone went under in between; None if it was
            so from the first date on.
        recession: The first date after the peak with an area below that.
        recession_after: The last date before, so that it came up in between.
    """

    name: str
    points: tuple[Point, ...]
    peak: Point | None
    onset: dt.datetime | None
    onset_after: dt.datetime | None
    recession: dt.datetime | None
    recession_after: dt.datetime | None

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        times = ("onset", "onset_after", "recession", "recession_after")
        return {
            "name": self.name,
            "peak": _said(self.peak.acquired) if self.peak else None,
            "peak_km2": self.peak.flooded_km2 if self.peak else None,
            **{name: _said(getattr(self, name)) for name in times},
            "points": [
                {**asdict(point), "acquired": point.acquired.isoformat()} for point in self.points
            ],
        }


def check_dated(scenes: Iterable[SceneFiles]) -> None:
    """Refuse scenes that do not tell when they were acquired.

    Raises:
        InputError: Names them, and what to do.
    """
    undated = [scene.item or str(*scene.paths[:1]) for scene in scenes if scene.acquired is None]
    if undated:
        raise InputError(
            f"{', '.join(undated)}: no date for a time series; have it in the name of the file or "
            "of its folder, such as beira-2019-03-19 or S1A_…_20190319T161000_…, or in a tag: "
            "`rio edit-info --tag ACQUIRED=2019-03-19T16:10:00Z`"
        )


def follow(maps: Mapping[str, Mapping[str, Any]]) -> list[Course]:
    """Follow all that was mapped, and each zone, through the summaries of maps by their names."""
    points: dict[str, list[Point]] = {OVERALL: []}
    for name, summary in maps.items():
        when = dt.datetime.fromisoformat(summary["acquired"])
        flooded, valid = summary["flooded_km2"], summary["valid_km2"]
        points[OVERALL].append(Point(when, name, flooded, valid))
        for zone in summary.get("zones", ()):
            seen = round(zone["valid_share"] * zone["area_km2"], 6)
            points.setdefault(zone["name"], []).append(Point(when, name, zone["flooded_km2"], seen))
    return [_course(name, found) for name, found in points.items()]


def _course(name: str, points: list[Point]) -> Course:
    points = sorted(points, key=lambda point: (point.acquired, point.scene))
    most = max(point.valid_km2 for point in points)
    points = [
        Point(
            point.acquired,
            point.scene,
            point.flooded_km2,
            point.valid_km2,
            point.valid_km2 >= _COVERED * most > 0,
        )
        for point in points
    ]
    counting = [point for point in points if point.counts]
    areas = np.array([point.flooded_km2 for point in counting])
    if not len(areas) or areas.max() == areas.min():
        return Course(name, tuple(points), None, None, None, None, None)
    flooded = areas >= areas.min() + LEVEL * (areas.max() - areas.min())
    peak = int(areas.argmax())
    onset = int(flooded.argmax())
    up = np.flatnonzero(~flooded[peak:])
    times = [point.acquired for point in counting]
    recession = peak + int(up[0]) if up.size else None
    return Course(
        name,
        tuple(points),
        counting[peak],
        times[onset],
        times[onset - 1] if onset else None,
        times[recession] if recession is not None else None,
        times[recession - 1] if recession is not None else None,
    )


def write_series(out: Path, maps: Mapping[str, Mapping[str, Any]]) -> dict[str, Path]:
    """Write series.json, series.csv and series.png into the folder of maps.

    Args:
        out: The folder.
        maps: The maps' summaries by their names, at least two, each with a date.
    """
    from sarflood.mapping.series_plot import plot_series

    courses = follow(maps)
    paths = {name: out / file for name, file in FILES.items()}
    versions = sorted({str(summary["version"]) for summary in maps.values()})
    content = {
        "versions": versions,
        "flooded_from": f"{LEVEL:.0%} of the rise from the smallest to the largest area",
        "zones": [course.as_json() for course in courses],
    }
    write_json(paths["series"], content)
    with (
        replacing(paths["table"]) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(["zone", *Point.__annotations__])
        for course in courses:
            for point in course.points:
                table.writerow([_cell(course.name), *_row(point)])
    plot_series(courses, paths["plot"], label=next(iter(maps.values()))["label"])
    return paths


def _row(point: Point) -> list[Any]:
    return [
        point.acquired.isoformat(),
        _cell(point.scene),
        point.flooded_km2,
        point.valid_km2,
        str(point.counts).lower(),
    ]


def _cell(text: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _said(when: dt.datetime | None) -> str | None:
    return when.isoformat() if when else None
