from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from validation_tables import BANDS, PARAMS, Image, Mask, Spoil, patch_table, speckled_patch

from sarflood.errors import InputError, SarfloodError
from sarflood.sources.event import Units
from sarflood.validation.checkpoint import validate_table
from sarflood.validation.verdict import Verdict

SPOILED = 3
ID = f"elbe-2013/p{SPOILED}"


def judge(table: pd.DataFrame, units: Units = "db") -> Verdict:
    return validate_table(table, bands=BANDS, units=units, params=PARAMS)


def failed(verdict: Verdict) -> set[str]:
    return {item.name for item in verdict.expectations if not item.success}


def constant_vv(image: Image, mask: Mask) -> None:
    image[0] = image[0, 0, 0]


def mostly_constant_vh(image: Image, mask: Mask) -> None:
    image[1, :160] = image[1, 0, 0]


def no_data(image: Image, mask: Mask) -> None:
    image[:] = np.nan


def nan_band(image: Image, mask: Mask) -> None:
    image[1] = np.nan


def swath_edge(image: Image, mask: Mask) -> None:
    image[:, 2:] = np.nan


def linear_power(image: Image, mask: Mask) -> None:
    image[:] = 10 ** (image / 10)


def bright_linear_power(image: Image, mask: Mask) -> None:
    image[:] = 40 * 10 ** (image / 10)
    image[:, 0, 0] = -0.01  # as the removal of thermal noise leaves some


def without_speckle(image: Image, mask: Mask) -> None:
    image[0] = -10 + image[0] / 1000


def far_too_dark(image: Image, mask: Mask) -> None:
    image[0] -= 40


def too_bright_for_8_bits(image: Image, mask: Mask) -> None:
    image[0] += 200


def inverted(image: Image, mask: Mask) -> None:
    mask[:] = 1 - mask


@pytest.mark.parametrize("units", ["db", "uint8"])
@pytest.mark.parametrize("labelled", [True, False])
def test_clean_patches_pass_without_a_word(units: Units, labelled: bool) -> None:
    verdict = judge(patch_table(units, labelled=labelled), units)
    assert verdict.passed
    assert (verdict.reasons, verdict.event_reasons, verdict.warnings) == ({}, [], [])
    assert len(verdict.expectations) >= 25
    groups = {item.group for item in verdict.expectations}
    assert groups == {"structure", "physics"} | ({"labels"} if labelled else set())


@pytest.mark.parametrize(
    ("units", "spoil", "expectations", "reason"),
    [
        ("db", constant_vv, {"VV not constant", "VV speckle"}, "more than 50% of the valid"),
        ("uint8", constant_vv, {"VV not constant", "VV speckle"}, "one and the same VV value"),
        ("db", mostly_constant_vh, {"VH not constant"}, "one and the same VH value"),
        ("db", no_data, {"valid share", "statistics finite"}, "less than 5% of the pixels"),
        ("db", nan_band, {"valid share", "statistics finite"}, "no pixel has data in all bands"),
        ("db", swath_edge, {"valid share"}, "less than 5% of the pixels have data"),
        (
            "db",
            linear_power,
            {"VV in dB", "VH in dB", "VV speckle", "VH speckle"},
            "looks like linear power",
        ),
        ("db", bright_linear_power, {"VV in dB", "VH in dB"}, "looks like linear power"),
        ("db", without_speckle, {"VV speckle"}, "less than speckle alone gives"),
        ("db", far_too_dark, {"VV mean in range"}, "the mean of VV lies outside -45 to 15 dB"),
        ("uint8", too_bright_for_8_bits, {"VV mean in range"}, "outside 0 to 255 grey levels"),
    ],
)
def test_a_spoiled_patch_alone_is_refused_for_what_is_wrong_with_it(
    units: Units, spoil: Spoil, expectations: set[str], reason: str
) -> None:
    verdict = judge(patch_table(units, spoil={SPOILED: spoil}), units)
    assert not verdict.passed
    assert expectations <= failed(verdict)
    assert list(verdict.reasons) == [ID]
    assert any(reason in said for said in verdict.reasons[ID])
    assert verdict.event_reasons == []


@pytest.mark.parametrize(
    ("column", "value", "expectation"),
    [
        ("vv_max", np.inf, "statistics finite"),
        ("vv_wet_mean", -np.inf, "statistics finite"),
        ("vh_mean", 3.0, "VH mean between extremes"),
        ("wet_share", 1.5, "wet share"),
        ("id", "elbe-2013/p2", "id unique"),
    ],
)
def test_a_damaged_table_names_the_row(column: str, value: Any, expectation: str) -> None:
    table = patch_table()
    table.loc[SPOILED, column] = value
    verdict = judge(table)
    assert failed(verdict) == {expectation}
    assert list(verdict.reasons) == [table.loc[SPOILED, "id"]]


def test_of_two_equal_patches_the_first_stays() -> None:
    table = patch_table()
    table["sha256"] = table["sha256"].mask(table["id"] == ID, table["sha256"].iloc[1])
    verdict = judge(table)
    assert verdict.reasons == {ID: ["an earlier patch has exactly the same pixels and mask"]}


def test_a_patch_without_an_id_is_a_fault_of_the_table() -> None:
    table = patch_table()
    table.loc[SPOILED, "id"] = None
    verdict = judge(table)
    assert verdict.event_reasons == ["a patch has no id (1: unnamed)"]
    assert not verdict.passed


def test_patches_without_wet_or_labelled_pixels_are_no_failure() -> None:
    def dry(image: Image, mask: Mask) -> None:
        mask[:] = 0

    def unlabelled(image: Image, mask: Mask) -> None:
        mask[:] = 255

    table = patch_table(spoil={1: dry, 2: unlabelled})
    assert table["vv_wet_mean"].isna().sum() == 2
    assert table["wet_share"].isna().sum() == 1
    verdict = judge(table)
    assert verdict.passed
    assert all(item.unexpected_count == 0 for item in verdict.expectations)


def test_inverted_masks_refuse_their_event_and_no_other() -> None:
    wrong = dict.fromkeys(range(10), inverted)
    alone = judge(patch_table(spoil=wrong))
    assert "the masks look inverted" in alone.event_reasons[0]
    assert alone.reasons == {}

    good = patch_table(event="oder-1997", count=30, first_seed=100)
    together = judge(pd.concat([good, patch_table(spoil=wrong)], ignore_index=True))
    assert not together.passed
    assert all(reason.startswith("elbe-2013: ") for reason in together.event_reasons)


def test_a_few_inverted_masks_are_refused_among_well_drawn_ones() -> None:
    verdict = judge(patch_table(spoil=dict.fromkeys([1, 4, 7], inverted)))
    assert list(verdict.reasons) == ["elbe-2013/p1", "elbe-2013/p4", "elbe-2013/p7"]
    assert verdict.event_reasons == []
    assert "inverted or of another patch" in verdict.reasons["elbe-2013/p1"][0]
    assert "in more than 20% of the patches the wet pixels are brighter" in verdict.warnings[0]
    assert "(3: elbe-2013/p1, elbe-2013/p4, elbe-2013/p7)" in verdict.warnings[0]


@pytest.mark.parametrize("few", [0, 1])
def test_a_few_odd_pixels_of_a_class_do_not_refuse_an_event(few: int) -> None:
    def odd(image: Image, mask: Mask) -> None:
        mask[:] = 1 - few
        mask[:5, 0] = few
        image[0, :5, 0] = 5.0 if few else -25.0

    verdict = judge(patch_table(spoil=dict.fromkeys(range(10), odd)))
    assert verdict.passed
    assert verdict.event_reasons == []


def test_few_telling_patches_are_enough_to_refuse_an_event() -> None:
    def puddle(image: Image, mask: Mask) -> None:
        mask[:] = 0
        mask[:2, 0] = 1
        image[0, :2, 0] = -25.0

    spoil: dict[int, Spoil] = dict.fromkeys(range(10), puddle)
    verdict = judge(patch_table(spoil=spoil | dict.fromkeys([2, 6], inverted)))
    assert "the masks look inverted" in verdict.event_reasons[0]


def test_swapped_bands_refuse_the_event() -> None:
    def swapped(image: Image, mask: Mask) -> None:
        image[:] = image[::-1].copy()

    verdict = judge(patch_table(spoil=dict.fromkeys(range(10), swapped)))
    assert failed(verdict) == {"VH below VV", "bands not swapped"}
    assert "the bands are swapped" in verdict.event_reasons[0]


def other_mask(image: Image, mask: Mask) -> None:
    mask[:] = speckled_patch(77, "db")[1][::-1]


def shifted_mask(image: Image, mask: Mask) -> None:
    mask[:] = np.roll(mask, 90, axis=1)


def inverted_mask(image: Image, mask: Mask) -> None:
    mask[:] = 1 - mask


def flooded_forest(image: Image, mask: Mask) -> None:
    """Trunks and calm water reflect twice: the flood is bright."""
    image[:, mask == 1] += 14.0


def checkerboard_mask(image: Image, mask: Mask) -> None:
    mask[:] = np.indices(mask.shape).sum(axis=0) % 2


def block(image: Image, mask: Mask) -> None:
    mask[150:200, 180:240] = 1


def checkerboard(image: Image, mask: Mask) -> None:
    image[:] = np.where(np.indices(mask.shape).sum(axis=0) % 2, -8.0, -20.0)


def striped(image: Image, mask: Mask) -> None:
    image[:, ::4] += 6.0


def saturated(image: Image, mask: Mask) -> None:
    image[0] = np.minimum(image[0], np.quantile(image[0], 0.4))


def noise(image: Image, mask: Mask) -> None:
    image[:] = np.random.default_rng(0).normal(-12, 8, image.shape)


def too_smooth(image: Image, mask: Mask) -> None:
    image[:] = np.where(mask == 1, -20.0, -10.0) + image / 30


@pytest.mark.parametrize(
    ("spoil", "expectation"),
    [
        (other_mask, "mask belongs to its image"),
        (shifted_mask, "mask belongs to its image"),
        (inverted_mask, "mask belongs to its image"),
        (checkerboard_mask, "mask in one piece"),
        (block, "no label blocks"),
        (checkerboard, "VV levels"),
        (striped, "VV without banding"),
        (saturated, "VV not saturated"),
        (noise, "VV looks like radar"),
    ],
)
def test_what_no_radar_or_labeller_makes_is_refused(spoil: Spoil, expectation: str) -> None:
    verdict = judge(patch_table(spoil={SPOILED: spoil}))
    assert list(verdict.reasons) == [ID]
    assert expectation in failed(verdict)


def test_flooded_forest_is_honest_though_it_is_bright() -> None:
    verdict = judge(patch_table(spoil={SPOILED: flooded_forest}))
    assert verdict.reasons == {}
    assert verdict.event_reasons == []


def test_smoothed_radar_is_a_warning() -> None:
    verdict = judge(patch_table(spoil={SPOILED: too_smooth}))
    assert {"VV looks", "VH looks"} <= failed(verdict)
    assert any("filtered, resampled" in warning for warning in verdict.warnings)


@pytest.mark.parametrize("spoil", [shifted_mask, other_mask])
def test_masks_that_follow_no_radar_edge_refuse_their_event(spoil: Spoil) -> None:
    def foreign(image: Image, mask: Mask) -> None:
        spoil(image, mask)
        mask[:3, :] = 0  # so that no two masks are the same
        mask[0, int(abs(image[0, 0, 0]) * 9)] = 1

    verdict = judge(patch_table(spoil=dict.fromkeys(range(10), foreign)))
    assert any("shifted or of other patches" in reason for reason in verdict.event_reasons)


def test_a_mask_that_was_copied_to_another_patch_names_both() -> None:
    source = speckled_patch(1, "db")[1]

    def copied(image: Image, mask: Mask) -> None:
        mask[:] = source

    verdict = judge(patch_table(spoil={4: copied}))
    reason = "another image has exactly the same mask: one of them is a copy"
    assert reason in verdict.reasons["elbe-2013/p1"]
    assert reason in verdict.reasons["elbe-2013/p4"]


@pytest.mark.parametrize(
    ("changes", "expectation", "scope"),
    [
        ({"grid": "s", "row": 2, "col": 5}, "own place in the grid", "patch"),
        ({"row": -1}, "row of the grid", "patch"),
        ({"height": 300}, "height in pixels", "patch"),
        ({"dtype": "complex64"}, "pixel type", "patch"),
        ({"grid": "s", "crs": "EPSG:32652"}, "one CRS a grid", "event"),
        ({"dtype": "uint8"}, "one pixel type an event", "warning"),
        ({"crs": "EPSG:32652"}, "georeferenced or not", "warning"),
        (
            {"crs": "EPSG:32651", "transform": "[500.0, 0, 0, 0, -500.0, 0]"},
            "pixel spacing",
            "warning",
        ),
    ],
)
def test_structure_that_cannot_be_is_found(
    changes: dict[str, Any], expectation: str, scope: str
) -> None:
    table = patch_table()
    if "grid" in changes:
        changes = {"crs": "EPSG:32651", **changes}
        table[["grid", "crs"]] = "s", "EPSG:32651"
        table["row"], table["col"] = 2, range(10)
    for name, value in changes.items():
        table.loc[SPOILED, name] = value
    verdict = judge(table)
    assert expectation in failed(verdict)
    if scope == "patch":
        assert list(verdict.reasons) in ([ID], ["elbe-2013/p5"])  # of two, the later
    elif scope == "event":
        assert len(verdict.event_reasons) == 1
    else:
        assert verdict.passed


def test_one_image_with_two_masks_is_refused() -> None:
    def same_image(image: Image, mask: Mask) -> None:
        image[:] = speckled_patch(1, "db")[0]
        mask[:5] = 255

    verdict = judge(patch_table(spoil={SPOILED: same_image}))
    assert "one mask an image" in failed(verdict)


def test_a_georeferenced_grid_passes_without_a_word() -> None:
    table = patch_table()
    table[["grid", "crs"]] = "s", "EPSG:4326"
    table["row"], table["col"] = 2, range(10)
    table["transform"] = "[9e-05, 0, 5.0, 0, -9e-05, 45.0]"
    verdict = judge(table)
    assert verdict.passed
    assert verdict.warnings == []


def test_a_missing_column_is_named() -> None:
    verdict = judge(patch_table().drop(columns=["vh_std", "sha256"]))
    assert not verdict.passed
    assert len(verdict.event_reasons) == 1
    assert "vh_std" in verdict.event_reasons[0]
    assert "sha256" in verdict.event_reasons[0]


def test_what_cannot_be_judged_is_an_error() -> None:
    table = patch_table()
    with pytest.raises(InputError, match="has no rows"):
        judge(table.iloc[:0])
    with pytest.raises(InputError, match="units 'linear' cannot be validated"):
        judge(table, units="linear")
    table["valid_share"] = "all"
    with pytest.raises(SarfloodError, match="'valid share' could not be judged"):
        judge(table)


def test_metrics_are_plain_figures() -> None:
    metrics = judge(patch_table(spoil={SPOILED: constant_vv})).as_metrics()
    assert json.loads(json.dumps(metrics)) == {
        "passed": False,
        "patches": 10,
        "bad_patches": 1,
        "bad_share": 0.1,
        "expectations": 52,
        "failed": 4,
        "warnings": 1,
    }
    assert {type(value) for value in metrics.values()} == {bool, int, float}


def test_results_have_at_most_five_examples() -> None:
    verdict = judge(patch_table(spoil=dict.fromkeys(range(8), swath_edge)))
    [result] = [item for item in verdict.expectations if item.name == "valid share"]
    assert result.unexpected_count == 8
    assert result.examples == tuple(f"elbe-2013/p{number}" for number in range(5))
    assert len(verdict.reasons) == 8


def test_great_expectations_is_imported_late_quiet_and_without_litter(tmp_path: Path) -> None:
    code = (
        "import sys; from sarflood.validation.checkpoint import validate_table;"
        "early = 'great_expectations' in sys.modules;"
        "from validation_tables import BANDS, PARAMS, patch_table;"
        "validate_table(patch_table(count=3), bands=BANDS, units='db', params=PARAMS);"
        "sys.exit(early)"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(Path(__file__).parent),
            "TMPDIR": str(temporary),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(temporary.iterdir()) == []
    assert list(tmp_path.iterdir()) == [temporary]
