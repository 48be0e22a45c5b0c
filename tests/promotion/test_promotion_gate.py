from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import LIMITS

from sarflood.evaluation.pooled import BORDERS, COUNTS, METHODS, figures
from sarflood.params import ChampionParams, GateParams, Limit
from sarflood.promotion.gate import (
    Champion,
    Check,
    Scored,
    Verdict,
    comparison,
    judge,
    judge_bundle,
)

PARAMS = GateParams(
    overall={"iou": Limit(min=0.7)},
    event={"iou": Limit(min=0.6)},
    slices={},
    max_dry_false_alarms=0.01,
    champion=ChampionParams(margin=0.01, confidence=0.95, min_gain=0.0, may_forget=()),
    shadow=None,
)
REPORTS = {"data validated": {"passed": True}, "no split leak": {"passed": True}}
SERVING = LIMITS.model_copy(
    update={"ready_within_s": 10.0, "patch_within_s": 1.0, "max_memory_gib": 1.0}
)
ANSWERED = {
    "ready_s": 5.0,
    "patch_s": 0.1,
    "memory_gib": 0.5,
    "rounded": False,
    "equal_share": 1.0,
    "patches": 4,
}


def patches(right: float, number: int = 40, event: str = "a", seed: int = 0) -> pd.DataFrame:
    """Patches of 1,000 wet pixels each, two a block, of which about a share is found."""
    spread = np.random.default_rng(seed).normal(0, 0.02, number)
    tp = np.clip(1000 * (right + spread), 0, 1000).astype(int)
    columns: dict[str, Any] = {f"{m}{c}": 0 for m in METHODS for c in COUNTS}
    columns |= {f"{m}border_{c}": 0 for m in METHODS for c in BORDERS}
    return pd.DataFrame(
        {
            "id": [f"{event}/{n}" for n in range(number)],
            "event": event,
            "block": np.arange(number) // 2,
            "wet_share": np.linspace(0.02, 0.3, number),
            "pixel_m": 10.0,
            **columns,
            "tp": tp,
            "fn": 1000 - tp,
            "tn": 9000,
        }
    )


def metrics(iou: Any, **events: Any) -> dict[str, Any]:
    return {
        "test": {"iou": iou},
        "events": {event: {"iou": value, "wet_share": 0.1} for event, value in events.items()},
    }


def scored(table: pd.DataFrame | None = None, trained_on: str = "a", **found: Any) -> Scored:
    hashes = {event: f"hash of {event}" for event in trained_on}
    table = patches(0.8) if table is None else table
    return Scored(found.get("metrics", metrics(0.8, a=0.8)), table, hashes)


def verdict(candidate: Scored, champion: Scored | str | None = None, **changed: Any) -> Verdict:
    asked: dict[str, Any] = {
        "candidate": "abc",
        "scored": candidate,
        "reports": REPORTS,
        "champion": Champion("v0.1.0", champion) if champion is not None else None,
        "regions": {"a": "Luzon", "b": "Mindanao"},
        "params": PARAMS,
    }
    return judge(**{**asked, **changed})


def failed(result: Verdict) -> list[str]:
    return [check.name for check in result.checks if not check.passed]


def named(result: Verdict, name: str) -> Check:
    return next(check for check in result.checks if check.name == name)


def champion_params(**changed: Any) -> GateParams:
    return PARAMS.model_copy(update={"champion": PARAMS.champion.model_copy(update=changed)})


class TestAbsolute:
    def test_a_first_model_needs_the_absolute_checks_alone(self) -> None:
        result = verdict(scored(metrics=metrics(0.71, a=0.61)))
        assert result.passed
        assert [check.name for check in result.checks] == [
            "data validated",
            "no split leak",
            "IoU, all test patches",
            "IoU, event a",
        ]
        shown = result.as_metrics()
        assert shown["passed"] is True
        assert shown["checks"][2]["observed"] == 0.71
        assert shown["checks"][2]["min"] == 0.7

    def test_too_low_overall_or_on_one_event_refuses(self) -> None:
        low = verdict(scored(metrics=metrics(0.69, a=0.9)))
        assert failed(low) == ["IoU, all test patches"]
        assert low.checks[2].sentence() == "IoU, all test patches: 0.6900, needs at least 0.7"
        assert failed(verdict(scored(metrics=metrics(0.8, a=0.9, b=0.59)))) == ["IoU, event b"]

    @pytest.mark.parametrize(
        "evaluation",
        [
            {},
            metrics(None, a=0.9),
            metrics(float("nan"), a=0.9),
            metrics(float("inf"), a=0.9),
            metrics(True, a=0.9),
            metrics(0.9),
            metrics(0.9, a=None),
            metrics("0.9", a=0.9),
            {"test": None, "events": {"a": {"iou": 0.9}}},
        ],
    )
    def test_a_missing_figure_refuses(self, evaluation: dict[str, Any]) -> None:
        result = verdict(scored(metrics=evaluation))
        assert not result.passed
        assert any("missing" in check.seen() for check in result.checks if not check.passed)

    @pytest.mark.parametrize("report", [{}, {"passed": False}, {"passed": "yes"}, {"passed": 1}])
    @pytest.mark.parametrize("name", REPORTS)
    def test_a_report_that_did_not_pass_refuses(self, name: str, report: dict[str, Any]) -> None:
        assert failed(verdict(scored(), reports={**REPORTS, name: report})) == [name]

    @pytest.mark.parametrize(("error", "passed"), [(0.2, True), (-0.2, True), (-0.4, False)])
    def test_too_much_and_too_little_area_are_as_bad(self, error: float, passed: bool) -> None:
        params = PARAMS.model_copy(update={"overall": {"area_error": Limit(max=0.3)}})
        evaluation = metrics(0.9, a=0.9)
        evaluation["test"]["area_error"] = error
        assert verdict(scored(metrics=evaluation), params=params).passed is passed

    def test_an_interval_is_shown_with_its_figure(self) -> None:
        evaluation = metrics(0.9, a=0.9)
        evaluation["test"] |= {"iou_low": 0.85, "iou_high": 0.93}
        check = verdict(scored(metrics=evaluation)).checks[2]
        assert check.seen() == "0.9000 (0.8500 to 0.9300)"

    @pytest.mark.parametrize(("accuracy", "passed"), [(0.999, True), (0.98, False), (None, False)])
    def test_a_dry_event_is_judged_by_its_false_alarms(
        self, accuracy: float | None, passed: bool
    ) -> None:
        evaluation = metrics(0.9, a=0.9)
        evaluation["events"]["dry"] = {"iou": None, "wet_share": 0, "accuracy": accuracy}
        assert verdict(scored(metrics=evaluation)).passed is passed

    @pytest.mark.parametrize(
        ("name", "limit", "refuses"),
        [
            ("wet to_50", 0.75, False),
            ("wet to_50", 0.85, True),
            ("wet to_100", 0.1, True),
            ("region Luzon", 0.75, False),
            ("region Mindanao", 0.1, True),
        ],
    )
    def test_a_slice_is_judged_and_one_without_patches_refuses(
        self, name: str, limit: float, refuses: bool
    ) -> None:
        params = PARAMS.model_copy(update={"slices": {name: {"iou": Limit(min=limit)}}})
        assert failed(verdict(scored(), params=params)) == [f"IoU, slice {name}"] * refuses


class TestAgainstTheChampion:
    def test_no_difference_passes_and_says_so(self) -> None:
        result = verdict(scored(), scored(patches(0.8, seed=1)))
        assert result.passed
        check = named(result, "IoU above champion v0.1.0, all test patches")
        assert check.note == "no difference"
        assert check.low is not None
        assert check.high is not None
        assert check.low < 0 < check.high

    def test_surely_better_says_so(self) -> None:
        result = verdict(scored(patches(0.85)), scored())
        assert result.passed
        assert named(result, "IoU above champion v0.1.0, event a").note == "better"

    def test_surely_worse_by_more_than_the_margin_refuses(self) -> None:
        result = verdict(scored(patches(0.77)), scored())
        assert failed(result) == [
            "IoU above champion v0.1.0, all test patches",
            "IoU above champion v0.1.0, event a",
        ]
        assert "worse with 95% confidence" in result.checks[-2].note

    def test_worse_within_the_margin_passes(self) -> None:
        assert verdict(scored(patches(0.795)), scored(patches(0.8))).passed

    def test_what_is_not_sure_does_not_refuse(self) -> None:
        """The same loss on few patches that differ much could be chance."""
        few = patches(0.8, 4)
        few["tp"] = [700, 900, 620, 980]
        worse = few.assign(tp=[900, 900, 580, 600])
        for table in (few, worse):
            table["fn"] = 1000 - table["tp"]
        result = verdict(scored(worse), scored(few))
        assert result.passed
        check = named(result, "IoU above champion v0.1.0, all test patches")
        assert check.observed is not None
        assert check.observed < -0.01
        assert check.note == "no difference"

    def test_worse_on_one_event_refuses_however_good_the_others(self) -> None:
        def both(first: float, second: float) -> pd.DataFrame:
            other = patches(second, 12, "b", 1).assign(block=np.arange(12) // 2 + 100)
            return pd.concat([patches(first), other], ignore_index=True)

        result = verdict(scored(both(0.85, 0.7)), scored(both(0.8, 0.8)))
        assert failed(result) == ["IoU above champion v0.1.0, event b"]

    def test_a_single_block_is_judged_by_the_figure_alone(self) -> None:
        one = patches(0.8, 2)
        lower = one.assign(tp=one["tp"] - 20, fn=one["fn"] + 20)
        assert verdict(scored(one), scored(one)).passed
        result = verdict(scored(lower), scored(one))
        assert not result.passed
        assert "single block" in result.checks[-2].note

    @pytest.mark.parametrize("reason", ["its bands are others", ""])
    def test_a_champion_that_cannot_be_scored_refuses(self, reason: str) -> None:
        result = verdict(scored(), reason)
        assert failed(result) == ["IoU above champion v0.1.0"]
        assert result.checks[-1].note == reason

    def test_other_test_patches_refuse(self) -> None:
        result = verdict(scored(), scored(patches(0.8, 38)))
        assert failed(result) == ["IoU above champion v0.1.0"]

    def test_a_new_event_must_gain(self) -> None:
        """The champion does not know `b`, on which the candidate must surely be better."""

        def both(second: float) -> pd.DataFrame:
            other = patches(second, 12, "b", 1).assign(block=np.arange(12) // 2 + 100)
            return pd.concat([patches(0.8), other], ignore_index=True)

        name = "IoU above champion v0.1.0, new: b"
        old = scored(both(0.5), trained_on="a")
        better = verdict(scored(both(0.7), trained_on="ab"), old)
        assert better.passed
        assert named(better, name).passed
        same = verdict(scored(both(0.5), trained_on="ab"), old)
        assert failed(same) == [name]
        assert "no gain with 95% confidence" in named(same, name).note
        asked = champion_params(min_gain=0.5)
        assert failed(verdict(scored(both(0.7), trained_on="ab"), old, params=asked)) == [name]

    def test_a_new_event_without_test_patches_proves_nothing(self) -> None:
        result = verdict(scored(trained_on="ab"), scored(trained_on="a"))
        assert failed(result) == ["IoU above champion v0.1.0, new: b"]
        assert "no test patch" in named(result, failed(result)[0]).note

    def test_a_dry_new_event_has_nothing_to_gain(self) -> None:
        dry = patches(0.0, 6, "b").assign(tp=0, fn=0, tn=10_000, block=np.arange(6) + 100)
        table = pd.concat([patches(0.8), dry], ignore_index=True)
        assert verdict(scored(table, trained_on="ab"), scored(table, trained_on="a")).passed

    def test_an_event_of_the_champion_must_be_trained_on_unless_stated(self) -> None:
        name = "events of champion v0.1.0 without which it was trained"
        forgot = verdict(scored(trained_on="a"), scored(trained_on="ac"))
        assert failed(forgot) == [name]
        assert named(forgot, name).note == "c"
        changed = replace(scored(), trained_on={"a": "another hash"})
        assert failed(verdict(changed, scored())) == [name]
        stated = champion_params(may_forget=("c",))
        assert verdict(scored(trained_on="a"), scored(trained_on="ac"), params=stated).passed


class TestComparison:
    def shown(self, ours: pd.DataFrame, other: Scored | str | None) -> list[dict[str, Any]]:
        events = {str(name): figures(rows) for name, rows in ours.groupby("event")}
        evaluation = {"test": figures(ours), "events": events}
        found = verdict(scored(ours, "".join(events), metrics=evaluation), other)
        return comparison(found.as_metrics(), evaluation)

    def test_both_stand_side_by_side_on_all_patches_and_on_each_event(self) -> None:
        def both(first: float, second: float) -> pd.DataFrame:
            other = patches(second, 12, "b", 1).assign(block=np.arange(12) // 2 + 100)
            return pd.concat([patches(first), other], ignore_index=True)

        ours, theirs = both(0.85, 0.7), both(0.8, 0.75)
        rows = self.shown(ours, scored(theirs, trained_on="a"))
        assert [row["test patches of"] for row in rows] == [
            "all test patches",
            "event a",
            "event b",
            "new: b",
        ]
        for row, event in zip(rows, ("ab", "a", "b", "b"), strict=True):
            for name, table in (("candidate", ours), ("champion", theirs)):
                expected = figures(table[table["event"].isin(list(event))])["iou"]
                assert row[name] == pytest.approx(expected)
            assert row["difference"] == pytest.approx(row["candidate"] - row["champion"])
        assert [row["verdict"] for row in rows] == ["passed", "passed", "refused", "refused"]
        assert rows[1]["note"] == "better"
        assert rows[2]["surely"] == "-0.0500 to -0.0500"

    def test_of_a_champion_that_could_not_be_scored_the_reason_is_said(self) -> None:
        (row,) = self.shown(patches(0.8), "its bands are others")
        assert (row["champion"], row["note"]) == (None, "its bands are others")

    def test_there_is_none_without_a_champion(self) -> None:
        assert self.shown(patches(0.8), None) == []


class TestBundle:
    def test_one_that_answers_within_the_limits_passes(self) -> None:
        checks = judge_bundle(ANSWERED, SERVING)
        assert len(checks) == 4
        assert all(check.passed for check in checks)

    @pytest.mark.parametrize(
        ("figure", "value"),
        [("ready_s", 11.0), ("patch_s", 2.0), ("memory_gib", 2.0), ("equal_share", 0.99)],
    )
    def test_each_limit_refuses(self, figure: str, value: float) -> None:
        checks = judge_bundle({**ANSWERED, figure: value}, SERVING)
        assert [check.passed for check in checks].count(False) == 1

    def test_one_that_does_not_start_refuses_with_its_reason(self) -> None:
        checks = judge_bundle("no module named torch", SERVING)
        result = Verdict("abc", None, ()).with_checks(*checks)
        assert not result.passed
        assert "no module named torch" in checks[0].sentence()
