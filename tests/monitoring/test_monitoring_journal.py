from __future__ import annotations

import json
import logging
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from tiny import full_disk, tiny_model
from watched import seen

from sarflood.model.package import FloodModel
from sarflood.monitoring.histograms import bin_edges
from sarflood.monitoring.journal import FILE_BYTES, FILES, Journal, read_journal
from sarflood.monitoring.sight import Seen, Sight


@pytest.fixture(scope="module")
def one() -> Seen:
    return seen()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def test_what_was_noted_is_read_back_by_version_and_in_order(tmp_path: Path) -> None:
    journal, images = Journal(tmp_path / "served"), [seen(2), seen(1), seen(3, version="v0.2.0")]
    for image in images:
        journal.note(image)
    assert read_journal(tmp_path / "served", "v0.1.0") == [images[1], images[0]]
    assert read_journal(tmp_path / "served", "v0.2.0") == [images[2]]
    assert read_journal(tmp_path / "none", "v0.1.0") == []


def test_it_does_not_grow_without_end_and_the_oldest_go_first(tmp_path: Path, one: Seen) -> None:
    # A line as long as a sixth of a file, whatever it holds.
    long = one.model_copy(update={"version": "v" * (FILE_BYTES // 6)})
    journal = Journal(tmp_path)
    for _ in range(5 * (FILES + 2)):
        journal.note(long)
    assert [path.name for path in files(tmp_path)][:: FILES - 1] == ["000003.jsonl", "000010.jsonl"]
    assert all(path.stat().st_size <= FILE_BYTES for path in files(tmp_path))
    assert journal.lost == 0


def _note_many(folder: Path, number: int) -> None:
    image = seen(number)
    journal = Journal(folder)
    for _ in range(200):
        journal.note(image)


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_note_many, args=(tmp_path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_journal(tmp_path, "v0.1.0")) == 600


def test_a_full_disk_is_said_once_and_counted_and_later_lines_are_whole(
    tmp_path: Path, one: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    journal.note(one)
    (path,) = files(tmp_path)
    line = path.stat().st_size
    with path.open("ab") as file:
        file.write(b" " * (100_000 - line - 100))  # `full_disk` ends at 100 kB
    with full_disk(), caplog.at_level(logging.WARNING):
        journal.note(one)  # in part
        journal.note(one)  # not at all
    assert journal.lost == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: the journal cannot be written: it was written in part; is the disk full?"
    ]
    journal.note(one)
    assert caplog.records[-1].getMessage() == f"{tmp_path}: can be written again; 2 images lack"
    assert read_journal(tmp_path, "v0.1.0") == [one, one]


def test_a_folder_that_cannot_be_made_fails_nothing(
    tmp_path: Path, one: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    Journal(tmp_path / "file" / "served").note(one)
    assert "cannot be written: Not a directory" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"scene": "secret.tif"},
        {"wet_share": 1.2},
        {"pixels": 0},
        {"units": "linear"},
        {"bands": {"vv": {"first": 350, "counts": [1] * 11}}},
        {"bands": {"vv": {"first": 0, "counts": [0]}}},
        {"bands": {"vv": {"first": -1, "counts": [1]}}},
    ],
)
def test_damaged_lines_are_passed_over(
    tmp_path: Path, one: Seen, change: dict[str, object]
) -> None:
    spoiled = json.dumps(json.loads(one.model_dump_json()) | change)
    (tmp_path / "000001.jsonl").write_text(f"{spoiled}\n{{\n\n{one.model_dump_json()}", "utf-8")
    assert read_journal(tmp_path, "v0.1.0") == [one]


@pytest.fixture(scope="module")
def model() -> FloodModel:
    return tiny_model()


class TestSight:
    def test_figures_are_of_every_eighth_pixel_with_data(
        self, model: FloodModel, rng: np.random.Generator
    ) -> None:
        images = rng.normal(-12, 4, (2, 2, 256, 256)).astype(np.float32)
        images[0, :, :128] = np.nan
        images[1, 1, :, 0] = 99.0
        probabilities = model.probabilities(images)
        sight = Sight(model.manifest)
        for part in range(2):
            sight.add(images[part : part + 1], probabilities[part : part + 1])
        told = sight.seen("v0.1.0")
        assert told
        known = probabilities[:, ::8, ::8][np.isfinite(probabilities[:, ::8, ::8])]
        assert told.pixels == known.size == 32 * 32 * 3 // 2
        assert told.wet_share == pytest.approx((known >= 0.5).mean())
        assert told.confidence == pytest.approx(np.maximum(known, 1 - known).mean(), abs=1e-6)
        values = np.clip(images[:, 1, ::8, ::8], -60, 30)
        expected = np.histogram(values[np.isfinite(values)], bin_edges("db"))[0]
        np.testing.assert_allclose(
            told.bands["vh"].shares("db"), expected / expected.sum(), atol=1e-12
        )

    def test_an_image_without_data_is_nothing_to_keep(self, model: FloodModel) -> None:
        empty = np.full((1, 2, 256, 256), np.nan, np.float32)
        sight = Sight(model.manifest)
        sight.add(empty, model.probabilities(empty))
        assert sight.seen("v0.1.0") is None
