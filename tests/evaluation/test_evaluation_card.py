"""The model card, of figures as an evaluation gives them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evaluation_events import make_events, make_split, random_model

from sarflood.evaluation.evaluate import Evaluation, evaluate
from sarflood.patches.store import EventPatches
from sarflood.promotion.card import model_card
from sarflood.promotion.gate import Check, Verdict
from sarflood.sources.event import Event, Origin

VERDICT = Verdict(
    "abcdef0123456789",
    "v0.3.0",
    (Check("IoU, all test patches", 0.1, False, min=0.7, low=0.05, high=0.2, note="poor"),),
)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[EventPatches]:
    return make_events(tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="module")
def evaluation(events: list[EventPatches]) -> Evaluation:
    return evaluate(random_model(), events, make_split(events))


def card(evaluation: Evaluation, events: list[EventPatches], **changed: str) -> str:
    manifest = random_model().manifest.model_copy(update=changed)
    return model_card(manifest, evaluation, VERDICT, [item.event for item in events])


def test_it_says_what_a_person_asks(evaluation: Evaluation, events: list[EventPatches]) -> None:
    text = card(evaluation, events, started_from="v0.2.0", advice="much is dry")
    test = evaluation.metrics["test"]
    for part in (
        "not for single buildings",
        f"| all test patches | {test['iou']:.3f} ({test['iou_low']:.3f} to {test['iou_high']:.3f})",
        f"calibration error on the test patches {test['ece']:.3f}",
        "| IoU, all test patches | 0.1000 (0.0500 to 0.2000) | at least 0.7 | refused | poor |",
        "## Gate: refused",
        "judged against v0.3.0",
        "weights abcdef012345",
        "began with the weights of v0.2.0",
        "why this loss: much is dry",
        "| east | 2024-05-06 | Luzon | synthetic | unknown | abababababab |",
    ):
        assert part in text


def test_it_names_the_worst_and_where_a_threshold_is_better(
    evaluation: Evaluation, events: list[EventPatches]
) -> None:
    text = card(evaluation, events)
    by_event = {name: row["iou"] for name, row in evaluation.metrics["events"].items()}
    worst = min(by_event, key=lambda name: by_event[name])
    assert f"- worst event: {worst}, IoU {by_event[worst]:.3f}" in text
    otsu = evaluation.metrics["test"]["otsu_iou"]
    assert otsu > evaluation.metrics["test"]["iou"], "its weights are random"
    assert f"- Otsu's threshold is better on all test patches: {otsu:.3f}" in text
    tested = evaluation.test_patches
    patch = tested[tested["wet_share"] > 0].nsmallest(1, "iou").iloc[0]
    assert f"worst patches: {patch['id']} ({patch['iou']:.3f})" in text


def test_it_names_the_classes(evaluation: Evaluation, events: list[EventPatches]) -> None:
    assert "IoU of each class" not in card(evaluation, events)
    found = {"other": 0.91234, "water": None, "mean": 0.5}
    with_classes = replace(evaluation, metrics=evaluation.metrics | {"classes": found})
    said = card(with_classes, events)
    assert "IoU of each class: other 0.912, water missing, mean 0.500" in said


def test_what_comes_from_outside_stays_in_its_cell(
    evaluation: Evaluation, events: list[EventPatches]
) -> None:
    event = Event(
        id="east", name="e", bands=("vv",), units="db", label="water",
        region="a | b\n\n# Gate: passed", source=Origin(name="me", licence="CC | BY"),
    )  # fmt: skip
    text = model_card(random_model().manifest, evaluation, VERDICT, [event])
    (row,) = (line for line in text.splitlines() if line.startswith("| east | unknown"))
    assert row.endswith(r"| a \| b # Gate: passed | me | CC \| BY | abababababab |")
