from __future__ import annotations

from pathlib import Path

import pytest

from sarflood.errors import InputError
from sarflood.params import load_params

PARAMS = Path(__file__).parents[2] / "params.yaml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = PARAMS.read_text("utf-8")
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    return path


def test_the_committed_settings_are_valid() -> None:
    params = load_params(PARAMS)
    assert params.gate.overall["iou"].min == 0.7
    assert params.gate.event["iou"].min == 0.7


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("width: 8", "width: 0", ["model.width = 0", "2 to 128"]),
        ("width: 8", "width: 8.5", ["model.width = 8.5", "a whole number, 2 to 128"]),
        (
            "width: 8",
            "wdith: 8",
            ["model.wdith: unknown key", "width, depth", "model.width: missing"],
        ),
        ("margin: 0.01", "margin: 1.2", ["gate.champion.margin = 1.2", "0.0 to 1.0"]),
        ("margin: 0.01", "margin: high", ["champion.margin = 'high'", "a number, 0.0 to 1.0"]),
        ("margin: 0.01", "margin: .nan", ["gate.champion.margin = nan", "0.0 to 1.0"]),
        ("    iou: {min: 0.7}", "    iou: {}", ["gate.overall.iou: neither min nor max"]),
        ("    iou: {min: 0.7}", "    iou: {min: high}", ["gate.overall.iou.min = 'high'"]),
        ("    iou: {min: 0.7}", "    iou: {least: 0.7}", ["gate.overall.iou.least: unknown key"]),
        ("    iou: {min: 0.7}", "    ious: {min: 0.7}", ["gate.overall.ious: unknown", "iou, f1"]),
        ("slices: {}", "slices: {wet to_7: {iou: {min: 0.5}}}", ["'wet to_7' is none", "to_20"]),
        ("slices: {}", "slices: {region: {iou: {min: 0.5}}}", ["'region' is none", "to_20"]),
        ("    dice: 1.0", "    dicee: 1.0", ["loss.terms.dicee", "cross_entropy", "tversky"]),
        ("    dice: 1.0", "    dice: -1.0", ["loss.terms.dice = -1.0", "a weight from 0 to 100"]),
        ("    dice: 1.0", "    dice: [0.1, 200]", ["loss.terms.dice = 200", "or [first, last]"]),
        ("    dice: 1.0", "    dice: [0.1]", ["loss.terms.dice", "or [first, last]"]),
        ("    dice: 1.0", "    dice: much", ["loss.terms.dice = 'much'", "a weight from 0"]),
        ("[1.0, 4.0]", "[1.0, -4.0]", ["loss.class_weights: [1.0, -4.0]", "inverse_frequency"]),
        ("[1.0, 4.0]", "[4.0]", ["loss.class_weights: [4.0]", "inverse_frequency"]),
        ("[1.0, 4.0]", "frequency", ["loss.class_weights: 'frequency'", "inverse_frequency"]),
        (
            "reduction: batch",
            "reduction: pixel",
            ["loss.reduction = 'pixel'", "'batch' or 'image'"],
        ),
        (
            "learning_rate: 0.002",
            "learning_rate: 0.0",
            ["train.learning_rate = 0.0", "above 0.0 to 1.0"],
        ),
        ("split:", "splits:", ["splits: unknown key", "validation, split"]),
        (
            "[-45.0, 15.0]",
            "[15.0, -45.0]",
            ["validation: db_range [15.0, -45.0]", "low comes first"],
        ),
        ("[-45.0, 15.0]", "[-45.0]", ["validation.db_range", "two numbers"]),
        ("[-45.0, 15.0]", "[-45.0, null]", ["validation.db_range = None", "two numbers"]),
        ("test_share: 0.2", "test_share: 0.4", ["split: val_share and test_share", "half"]),
        ("window: 20", "window: 0", ["monitoring.window = 0", "a whole number, 1 to 1000"]),
        ("max_ks: 0.05", "max_ks: 2", ["monitoring.max_ks = 2", "0.0 to 1.0"]),
        ("dask: null", "dask: 10.0.0.5:8786", ["run.dask: '10.0.0.5:8786' is no", "tcp://10."]),
        ("dask: null", "dask: tcp://10.0.0.5:65536", ["run.dask: 'tcp://10.0.0.5:65536' is no"]),
        ("dask: null", "dask: 8786", ["run.dask: 8786 is no address", "null"]),
        ("start_from: null", "#", ["train.start_from: missing; allowed: null, a version"]),
        ("start_from: null", "start_from: 0.2.0", ["train.start_from: '0.2.0' is none", "v0.2.0"]),
        ("start_from: null", "start_from: up.safetensors", ["start_from: 'up.safe", "sha256sum"]),
        (
            "start_from: null",
            "start_from: {file: up.safetensors, sha256: abc}",
            [
                "1 setting(s)",
                "train.start_from: {'file': 'up.safetensors', 'sha256': 'abc'} is none",
            ],
        ),
        (
            "start_from: null",
            "start_from: {file: up.safetensors}",
            ["1 setting(s)", "start_from: {'file': 'up.safetensors'} is none", "sha256sum"],
        ),
        ("seed: 0", "seed: true", ["train.seed = True", "a whole number"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_range(
    tmp_path: Path, old: str, new: str, said: list[str]
) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(InputError) as caught:
        load_params(path)
    for part in [str(path), *said]:
        assert part in str(caught.value)


@pytest.mark.parametrize("address", ["tcp://10.0.0.5:8786", "tls://dask.local:80", "tcp://[::1]:1"])
def test_dask_is_named_by_its_schedulers_address(tmp_path: Path, address: str) -> None:
    assert load_params(changed(tmp_path, "dask: null", f"dask: {address}")).run.dask == address


def test_a_weight_is_a_number_or_one_that_changes(tmp_path: Path) -> None:
    path = changed(tmp_path, "    dice: 1.0", "    dice: 1\n    boundary: [0, 0.05]")
    assert load_params(path).loss.terms == {
        "cross_entropy": (1.0, 1.0),
        "dice": (1.0, 1.0),
        "boundary": (0.0, 0.05),
    }
    path = changed(tmp_path, "[1.0, 4.0]", "inverse_frequency")
    assert load_params(path).loss.class_weights == "inverse_frequency"


def test_a_loss_is_left_to_the_masks_by_one_word(tmp_path: Path) -> None:
    text = PARAMS.read_text("utf-8")
    start, end = text.index("loss:  "), text.index("gate:  ")
    path = tmp_path / "params.yaml"
    path.write_text(f"{text[:start]}loss: auto\n\n{text[end:]}", "utf-8")
    loss = load_params(path).loss
    assert loss.auto
    assert loss.class_weights == "inverse_frequency"
    assert not load_params(PARAMS).loss.auto


def test_a_loss_has_a_sentence(tmp_path: Path) -> None:
    path = changed(tmp_path, "    dice: 1.0", "    dice: 2\n    boundary: [0, 0.05]")
    said = load_params(path).loss.sentence()
    assert said == "1 cross entropy + 2 dice + 0 to 0.05 boundary"


def test_a_loss_without_weight_is_refused(tmp_path: Path) -> None:
    text = PARAMS.read_text("utf-8")
    text = text.replace("cross_entropy: 1.0", "cross_entropy: 0.0").replace(
        "dice: 1.0", "dice: 0.0"
    )
    path = tmp_path / "params.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match="at least one term needs a weight"):
        load_params(path)


def test_a_crop_too_small_for_the_network_is_refused(tmp_path: Path) -> None:
    text = (
        PARAMS.read_text("utf-8").replace("crop: 128", "crop: 64").replace("depth: 4", "depth: 6")
    )
    path = tmp_path / "params.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"train\.crop 64 is too small for model\.depth 6.*128"):
        load_params(path)


@pytest.mark.parametrize("content", ["", "just text", "a: [1", "- 1\n- 2"])
def test_what_is_no_mapping_is_an_input_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(InputError, match=r"params\.yaml"):
        load_params(path)


AREA = """poll:
  - name: manila
    url: https://stac.example.org/v1
    collections: [sentinel-1-rtc]
    bbox: [120.4, 14, 121.4, 15.4]
"""


def test_an_area_may_cross_the_antimeridian(tmp_path: Path) -> None:
    box = (120.4, 14.0, 121.4, 15.4)
    (area,) = load_params(changed(tmp_path, "poll: []", AREA)).poll
    assert (area.bbox, area.boxes()) == (box, (box,))
    assert (area.max_items, area.since_days) == (10, 30)
    for bbox, boxes in (
        ([177.0, -19.0, -178.0, -16.0], ((177, -19, 180, -16), (-180, -19, -178, -16))),
        ([180.0, -19.0, -178.0, -16.0], ((-180, -19, -178, -16),)),
    ):
        text = AREA.replace("[120.4, 14, 121.4, 15.4]", str(bbox))
        (fiji,) = load_params(changed(tmp_path, "poll: []", text)).poll
        assert fiji.boxes() == boxes


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("15.4]", "13]", ["poll: bbox [120.4, 14.0, 121.4, 13.0]", "south below north"]),
        ("120.4", "121.4", ["poll: bbox [121.4, 14.0, 121.4, 15.4]", "antimeridian"]),
        ("15.4]", "95]", ["poll.bbox = 95", "west, south, east, north in degrees"]),
        (", 15.4]", "]", ["poll.bbox: missing", "west, south, east, north in degrees"]),
        ("manila", "../manila", ["poll.name = '../manila'", "1 to 20 of a–z, 0–9 and -"]),
        ("https:", "file:", ["poll.url = 'file://", "an address of http"]),
        ("[sentinel-1-rtc]", "[]", ["poll.collections = []", "a list of names"]),
        ("    bbox", "    max_items: 0\n    bbox", ["poll.max_items = 0", "1 to 1000"]),
        ("    bbox", "    since: 0\n    bbox", ["poll.since: unknown key", "since_days"]),
        (AREA, AREA + AREA.removeprefix("poll:\n"), ["poll: a name stands twice in manila"]),
        (AREA, "poll: manila", ["poll = 'manila'", "name, url, collections and bbox"]),
    ],
)
def test_a_wrong_area_is_named(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    path = changed(tmp_path, "poll: []", AREA.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_params(path)
    for part in [str(path), *said]:
        assert part in str(caught.value)
