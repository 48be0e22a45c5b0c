from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_events import make_events, make_split, random_model
from PIL import Image

from sarflood.evaluation import figures
from sarflood.evaluation.data import DataChecks, data_section
from sarflood.evaluation.evaluate import Evaluation, evaluate
from sarflood.evaluation.examples import best_median_worst
from sarflood.evaluation.pictures import worst_patches
from sarflood.evaluation.report import write_report
from sarflood.model.package import FloodModel
from sarflood.model.unet import UNet
from sarflood.patches.store import EventPatches

TRAINING = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "seconds": [30.0, 60.0, 90.0],
        "train_loss": [1.2, 0.8, 0.6],
        "val_iou": [0.3, 0.7, 0.6],
        "learning_rate": [0.001, 0.002, 0.0001],
    }
)
GATE = [
    {"check": "IoU & all", "observed": "0.812", "needed": "at least 0.7", "verdict": "passed"},
    {"check": "IoU <west>", "observed": "missing", "needed": "at least 0.7", "verdict": "refused"},
]
CARD = """# flood-unet

| event | source |
|---|---|
| west | [maker](https://example.org/a) [bad](javascript:alert(1)) |

<script>alert(2)</script> ![picture](https://example.org/b.png)
"""
DATA = DataChecks(
    split={
        "east": {
            "train": {"patches": 60, "wet_share": 0.25},
            "guard": {"patches": 7, "wet_share": 0.1},
            "test": {"patches": 1200, "wet_share": 0.201},
        },
        "<west>": {
            "train": {"patches": 20, "wet_share": 0.05},
            "unlabelled": {"patches": 4, "wet_share": None},
        },
    },
    leaks={"passed": True, "train": 80, "test": 1200, "val": 0, "held_out": 0, "leaking": 3},
    validation={
        "expectations": 52,
        "patches": 1291,
        "failed": 0,
        "warnings": 2,
        "near_duplicates": 5,
        "drift": {
            "east": {},
            "<west>": {
                "vv": {"psi": 0.2512, "ks": 0.1, "pixels": 9, "reference_pixels": 9},
                "vh_pre": {"psi": 0.25, "ks": 0.3, "pixels": 9, "reference_pixels": 9},
            },
        },
    },
    max_psi=0.25,
)


@pytest.fixture(scope="module")
def model() -> FloodModel:
    return random_model()


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[EventPatches]:
    return make_events(tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="module")
def evaluation(model: FloodModel, events: list[EventPatches]) -> Evaluation:
    return evaluate(model, events, make_split(events))


class Page(HTMLParser):
    """What a page loads, its tags, and the text that a reader sees."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        loading = {"src", "srcset", "data", "action", *(["href"] if tag != "a" else [])}
        self.loads += [value or "" for name, value in attrs if name in loading]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] != "style":
            self.text.append(data)


Write = Callable[[list[dict[str, str]] | None], str]


@pytest.fixture(scope="module")
def write(
    model: FloodModel,
    events: list[EventPatches],
    evaluation: Evaluation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Write:
    def write(gate: list[dict[str, str]] | None) -> str:
        path = tmp_path_factory.mktemp("report") / "report.html"
        write_report(
            path,
            manifest=model.manifest,
            evaluation=evaluation,
            training=TRAINING,
            events=events,
            model=model,
            data=DATA,
            gate=gate,
            card=CARD,
        )
        return path.read_text(encoding="utf-8")

    return write


@pytest.fixture(scope="module")
def report(write: Write) -> str:
    return write(GATE)


def test_the_report_loads_nothing(report: str) -> None:
    page = Page(report)
    assert page.loads
    assert all(link.startswith("data:image/") for link in page.loads)
    assert "url(" not in report
    assert "@import" not in report
    assert not {"script", "link", "iframe"} & set(page.tags)
    for svg in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", report):
        assert not re.search(rb'href="(?!#)', base64.b64decode(svg))


def test_the_report_names_the_figures_of_the_model_and_of_both_baselines(
    report: str, evaluation: Evaluation
) -> None:
    text = "\n".join(Page(report).text)
    for figures_of in (evaluation.metrics["test"], *evaluation.metrics["events"].values()):
        for key in ("iou", "f1", "precision", "recall", "otsu_iou", "fitted_threshold_iou"):
            assert f"{figures_of[key]:.3f}" in text, key
    assert f"{int(evaluation.patches['fn'].sum()):,} (" in text
    assert "3 epochs in 1.5 minutes" in text


def test_the_report_has_each_picture_and_each_kind_of_patch(
    report: str, evaluation: Evaluation
) -> None:
    shown = set(re.findall(r'<img src="data:image/[^"]+" alt="([^"]+)"', report))
    for picture in (
        "Training loss and validation IoU by epoch",
        "Precision over recall, test pixels",
        "Share of wet pixels, test patches",
        "radar",
        "truth",
        "prediction",
    ):
        assert any(picture in alt for alt in shown), picture
    text = "\n".join(Page(report).text)
    for place in ("best: ", "median: ", "worst: "):
        assert place in text
    assert "Confusion matrix" in text
    assert f"{evaluation.metrics['test']['accuracy']:.3f}" in text
    dry = evaluation.metrics["wet_shares"]["0"]
    assert f"Accuracy on {dry['patches']} dry patches" in text
    wetter = evaluation.metrics["wet_shares"]["to_20"]
    iou, low, high = (f"{wetter[name]:.3f}" for name in ("iou", "iou_low", "iou_high"))
    assert f"{iou} ({low} to {high})" in text


def test_a_held_out_event_is_marked_and_no_test_patch(
    model: FloodModel, events: list[EventPatches], tmp_path: Path
) -> None:
    split = make_split(events)
    split["split"] = split["split"].mask(split["event"] == "west", "held_out")
    found = evaluate(model, events, split)
    path = tmp_path / "report.html"
    write_report(
        path, manifest=model.manifest, evaluation=found, training=TRAINING, events=events,
        model=model, data=DATA, gate=None,
    )  # fmt: skip
    text = Page(path.read_text(encoding="utf-8")).text
    row = next(n for n, words in enumerate(text) if words.startswith("west (Flood of west"))
    assert text[row].endswith(", held out")
    assert text[row + 3] == f"{found.metrics['held_out']['west']['iou']:.3f}"
    assert any(f"{int(found.test_patches['fn'].sum()):,} (" in words for words in text)
    assert not any("west/p" in words for words in text)


def test_the_report_says_what_the_model_was_made_of(report: str, model: FloodModel) -> None:
    text = "\n".join(Page(report).text)
    assert model.manifest.commit in text
    assert model.manifest.trained_on[0].index_sha256 in text
    assert "U-Net of width 2 and depth 1, batch normalisation" in text


def test_a_model_of_two_normalisations_names_all_channels(
    events: list[EventPatches], evaluation: Evaluation, tmp_path: Path
) -> None:
    model = random_model()
    both = model.manifest.input.model_copy(update={"normalisation": "both"})
    changed = {"input": both, "mean": (-10.0, -16.0, 0.0, 0.0), "std": (4.0, 4.0, 1.0, 1.0)}
    model = FloodModel(
        model.manifest.model_copy(update=changed), UNet(4, model.manifest.network).eval()
    )
    path = tmp_path / "report.html"
    write_report(
        path, manifest=model.manifest, evaluation=evaluation, training=TRAINING, events=events,
        model=model, data=DATA, gate=None,
    )  # fmt: skip
    text = "\n".join(Page(path.read_text(encoding="utf-8")).text)
    assert "vh -16.00 ± 4.00, vv local 0.00 ± 1.00" in text


def test_the_report_has_a_table_of_classes_where_there_are_several(
    report: str, model: FloodModel, events: list[EventPatches], evaluation: Evaluation,
    tmp_path: Path,
) -> None:  # fmt: skip
    assert "Kinds of ground" not in Page(report).text
    classes = {"other": 0.91234, "water": None, "mean": 0.45}
    found = replace(evaluation, metrics=evaluation.metrics | {"classes": classes})
    path = tmp_path / "report.html"
    write_report(
        path, manifest=model.manifest, evaluation=found, training=TRAINING, events=events,
        model=model, data=DATA, gate=None,
    )  # fmt: skip
    text = Page(path.read_text(encoding="utf-8")).text
    start = text.index("Kinds of ground")
    assert text[start + 1 : start + 9] == [
        "Class", "IoU", "other", "0.912", "water", "–", "mean", "0.450"
    ]  # fmt: skip


def test_names_from_outside_are_text_and_never_markup(report: str) -> None:
    page = Page(report)
    assert "<script>" not in report
    assert any("<script>alert(1)</script>" in text for text in page.text)
    assert "IoU <west>" in page.text


def test_the_card_is_shown_and_markup_in_it_is_text(report: str) -> None:
    page = Page(report)
    assert "Model card" in page.text
    assert '<a href="https://example.org/a">maker</a>' in report
    assert "<td>west</td>" in report
    assert not [link for link in re.findall(r'href="([^"]*)"', report) if "script" in link]
    assert "&lt;script&gt;alert(2)" in report
    assert "b.png" not in "".join(page.loads)


def test_gate_checks_are_shown_when_there_are_some(report: str, write: Write) -> None:
    assert not any(text.startswith("Gate") for text in Page(write(None)).text)
    page = Page(report)
    assert "Gate: refused" in page.text
    start = page.text.index("IoU & all")
    assert page.text[start + 1 : start + 4] == ["0.812", "at least 0.7", "passed"]


def test_the_same_evaluation_gives_the_same_report(report: str, write: Write) -> None:
    assert write(GATE) == report


def test_the_report_says_how_the_data_are_split_and_what_was_found_in_them(report: str) -> None:
    text = Page(report).text
    east = text.index("60 (25.0 % wet)")
    assert text[east - 1 : east + 5] == [
        "east",
        "60 (25.0 % wet)",
        "–",
        "1,200 (20.1 % wet)",
        "–",
        "7",
    ]
    everything = text.index("All events")
    assert text[everything + 1] == "80 (20.0 % wet)"
    assert "3 of 1,200" in text
    assert "0 failed, 2 warn" in text
    vv, vh = text.index("0.251"), text.index("0.250")
    assert text[vv - 2 : vv + 3] == ["<west>", "VV", "0.251", "0.100", "drifted"]
    assert text[vh - 1 : vh + 2] == ["VH PRE", "0.250", "0.300"]


def test_one_event_has_no_drift_and_no_total() -> None:
    split = {"east": DATA.split["east"]}
    alone = replace(DATA, split=split, validation={**DATA.validation, "drift": {"east": {}}})
    text = Page(data_section(alone)).text
    assert "All events" not in text
    assert any("no earlier event" in words for words in text)


def patches_with(ious: list[float], wet: int = 500) -> pd.DataFrame:
    table = pd.DataFrame({"id": [f"e/p{n}" for n in range(len(ious))], "iou": ious})
    return table.assign(tp=wet, fp=0, fn=0, tn=10_000)


def test_best_median_and_worst_patches_are_chosen_by_iou() -> None:
    chosen = best_median_worst(patches_with([0.5, 0.1, 0.9, np.nan, 0.8, 0.4, 0.2, 0.6, 0.0]))
    assert list(zip(chosen["place"], chosen["iou"], strict=True)) == [
        ("best", 0.9),
        ("best", 0.8),
        ("median", 0.5),
        ("median", 0.4),
        ("worst", 0.1),
        ("worst", 0.0),
    ]


@pytest.mark.parametrize(
    ("number", "places"),
    [
        (0, []),
        (1, ["best"]),
        (2, ["best", "best"]),
        (3, ["best", "best", "worst"]),
        (5, ["best", "best", "median", "worst", "worst"]),
    ],
)
def test_few_patches_are_shown_once_each(number: int, places: list[str]) -> None:
    chosen = best_median_worst(patches_with([0.1 * n for n in range(number)]))
    assert list(chosen["id"]) == [f"e/p{n}" for n in reversed(range(number))]
    assert list(chosen["place"]) == places


def test_patches_with_next_to_no_water_are_shown_only_where_there_are_no_others() -> None:
    puddles, lake = patches_with([0.0, 0.1], wet=3), patches_with([0.7])
    chosen = best_median_worst(pd.concat([puddles, lake], ignore_index=True))
    assert list(chosen["iou"]) == [0.7]
    assert list(best_median_worst(puddles)["iou"]) == [0.1, 0.0]


def test_the_worst_patches_are_shown_in_markdown_that_loads_nothing(
    evaluation: Evaluation, events: list[EventPatches], model: FloodModel
) -> None:
    patches = evaluation.test_patches
    text = worst_patches(patches, events, model)
    shown = re.findall(r"^### (.*)$", text, re.MULTILINE)
    share = patches[["tp", "fp", "fn"]].sum(axis=1) / patches[["tp", "fp", "fn", "tn"]].sum(axis=1)
    ranked = patches[patches["iou"].notna() & (share >= 0.01)].sort_values(["iou", "id"])
    assert [name.replace("\\", "") for name in shown] == list(ranked["id"][:3])
    images = re.findall(r"!\[(.*?)\]\((.*?)\)", text)
    assert [title for title, _ in images] == 3 * ["radar, VV", "truth", "prediction"]
    assert all(pixels(uri).shape[:2] == (256, 256) for _, uri in images)
    assert len(text) < 400_000
    assert f"IoU {ranked['iou'].iloc[0]:.3f}; {ranked['tp'].iloc[0]:,} hits" in text


def pixels(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_a_verdict_has_a_colour_for_each_kind_of_pixel() -> None:
    truth = np.array([[1, 0, 1, 0, 255, 1]], np.uint8)
    predicted = np.array([[1, 1, 0, 0, 1, 255]], np.uint8)
    shown = [
        "#" + bytes(pixel).hex().upper()
        for pixel in pixels(figures.verdict_image(predicted, truth))[0]
    ]
    names = ["hit", "false alarm", "miss", "dry", "unknown", "unknown"]
    assert shown == [figures.COLOURS[name] for name in names]


def test_radar_is_stretched_without_its_outliers_and_no_data_is_mid_grey() -> None:
    vv = np.linspace(-20, -10, 1000).reshape(10, 100).astype(np.float16)
    vv[0, 0], vv[9, 99], vv[5, 5] = -90, 30, np.nan
    shown = pixels(figures.radar_image(vv))
    assert shown[0, 0] == 0
    assert shown[9, 99] == 255
    assert shown[5, 5] == round(255 * figures.NO_DATA_GREY)
    assert 100 < shown[4, 99] < 155
    assert (pixels(figures.radar_image(np.full((3, 3), np.nan))) == shown[5, 5]).all()
