from __future__ import annotations

import csv
import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from tiny import speckle, write_scene

from sarflood.errors import InputError
from sarflood.mapping.acquired import acquired
from sarflood.mapping.series import Course, check_dated, follow, write_series
from sarflood.mapping.sources import find_scene

FIRST = dt.datetime(2019, 3, 2, 16, 10, tzinfo=dt.UTC)


def day(number: int) -> dt.datetime:
    return FIRST + dt.timedelta(days=6 * number)


def maps(overall: list[float], **zones: list[float]) -> dict[str, dict[str, Any]]:
    """Summaries of maps every six days, of 100 km² each; zones have 10 km²."""
    found = {}
    for number, area in enumerate(overall):
        found[f"map{number}"] = {
            "version": "v0.1.0",
            "label": "flood",
            "acquired": day(number).isoformat(),
            "flooded_km2": area,
            "valid_km2": 100.0,
            "zones": [
                {"name": name, "area_km2": 10.0, "flooded_km2": areas[number], "valid_share": 1.0}
                for name, areas in zones.items()
            ],
        }
    return found


def course(name: str, summaries: dict[str, dict[str, Any]]) -> Course:
    (found,) = (item for item in follow(summaries) if item.name == name)
    return found


def test_a_zone_is_flooded_from_half_of_its_rise_until_it_is_below_that_again() -> None:
    summaries = maps([5, 9, 60, 88, 70, 40, 10], Buzi=[0, 0, 0, 4, 1, 3, 1])
    found = course("overall", summaries)
    assert found.peak
    assert (found.peak.acquired, found.peak.flooded_km2) == (day(3), 88)
    assert (found.onset_after, found.onset) == (day(1), day(2))
    assert (found.recession_after, found.recession) == (day(4), day(5))  # 46.5 is half of the rise
    zone = course("Buzi", summaries)
    assert (zone.onset_after, zone.onset) == (day(2), day(3))
    assert (zone.recession_after, zone.recession) == (day(3), day(4)), "the first time"


def test_a_river_that_is_always_there_hides_no_onset() -> None:
    found = course("overall", maps([50, 51, 60, 52]))
    assert (found.onset_after, found.onset, found.recession) == (day(1), day(2), day(3))


def test_what_began_before_or_goes_on_has_no_bounds_there() -> None:
    found = course("overall", maps([90, 80, 10, 85]))
    assert (found.onset_after, found.onset) == (None, day(0))
    assert found.recession == day(2)
    assert course("overall", maps([10, 90, 80])).recession is None


@pytest.mark.parametrize("areas", [[0.0, 0.0], [3.0]])
def test_what_never_changes_has_no_onset(areas: list[float]) -> None:
    found = course("overall", maps(areas))
    assert (found.peak, found.onset, found.recession) == (None, None, None)


def test_a_date_that_saw_less_of_a_zone_is_told_but_not_compared() -> None:
    summaries = maps([5, 60, 88, 70, 9], Buzi=[1, 2, 9, 2, 1])
    summaries["map2"]["zones"][0]["valid_share"] = 0.7
    summaries["map3"]["valid_km2"] = 80.0
    del summaries["map4"]["zones"][0]  # the scene does not touch it
    zone = course("Buzi", summaries)
    assert [point.counts for point in zone.points] == [True, True, False, True]
    assert zone.peak
    assert (zone.peak.acquired, zone.onset) == (day(1), day(1))
    assert course("overall", summaries).recession_after == day(2)


def test_the_files_have_all_dates_in_order(tmp_path: Path) -> None:
    summaries = maps([5, 60, 9], **{"=Buzi": [1.0, 2.0, 1.0], "Dom$be": [0.0, 0.0, 3.0]})
    files = write_series(tmp_path, dict(reversed(summaries.items())))
    with files["table"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["zone"] for row in rows] == ["overall"] * 3 + ["'=Buzi"] * 3 + ["Dom$be"] * 3
    assert [row["acquired"] for row in rows[:3]] == [day(n).isoformat() for n in range(3)]
    assert [float(row["flooded_km2"]) for row in rows[:3]] == [5, 60, 9]
    content = json.loads(files["series"].read_text("utf-8"))
    overall, _, last = content["zones"]
    assert (overall["onset"], overall["recession"]) == (day(1).isoformat(), day(2).isoformat())
    assert (last["peak_km2"], last["recession"]) == (3.0, None)
    picture = np.asarray(Image.open(files["plot"]).convert("RGB")).astype(int)
    assert (picture[:, :, 2] - picture[:, :, 0] > 60).mean() > 0.05, "areas and bars in blue"


@pytest.mark.parametrize(
    ("name", "when"),
    [
        (
            "S1A_IW_GRDH_1SDV_20190302T234651_20190302T234716_026171_02EBE2_4A8C.tif",
            dt.datetime(2019, 3, 2, 23, 46, 51, tzinfo=dt.UTC),
        ),
        ("s1b-iw-grd-vv-20190314t161000-x.tif", day(2)),
        ("2019-03-19/scene.tif", dt.datetime(2019, 3, 19, tzinfo=dt.UTC)),
        ("beira_20190319_db.tif", dt.datetime(2019, 3, 19, tzinfo=dt.UTC)),
        ("orbit_12345678_20191332.tif", None),
        ("scene.tif", None),
    ],
)
def test_the_date_is_in_the_name_of_the_file_or_of_its_folder(
    tmp_path: Path, name: str, when: dt.datetime | None
) -> None:
    assert acquired(tmp_path / name) == when


def test_the_date_may_be_a_tag_and_one_that_lacks_is_named(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", speckle(1, 20, 20))
    with pytest.raises(InputError, match=r"scene\.tif: no date for a time series; .* ACQUIRED="):
        check_dated([find_scene(scene)])
    with rasterio.open(scene, "r+") as raster:
        raster.update_tags(
            ACQUIRED="2019-03-02T18:10:00+02:00", TIFFTAG_DATETIME="2024:01:01 00:00:00"
        )
    check_dated([find_scene(scene)])
    assert acquired(scene) == day(0)
