from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_model
from watched import seen, training

from sarflood.ingest.ingest import Said, ingest_event
from sarflood.mapping.patches import map_patches
from sarflood.monitoring.compare import compare
from sarflood.monitoring.reference import Reference, make_reference
from sarflood.monitoring.sight import Sight
from sarflood.params import load_params
from sarflood.patches.split import split_events
from sarflood.patches.store import EventPatches, open_event
from sarflood.workspace import Workspace

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
MONITORING = PARAMS.monitoring


@pytest.fixture(scope="module")
def reference() -> Reference:
    return training(range(4))


def test_new_quiet_scenes_do_not_alarm_alone_or_together(reference: Reference) -> None:
    images = [seen(seed) for seed in range(100, 140)]
    alarms = [bool(compare(reference, [image], MONITORING).reasons) for image in images]
    assert sum(alarms) <= 2, "one in twenty"
    assert compare(reference, images, MONITORING).reasons == []


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_a_calibration_that_is_off_by_one_decibel_is_seen(
    reference: Reference, shift: float
) -> None:
    drift = compare(reference, [seen(seed, shift) for seed in range(200, 220)], MONITORING)
    assert drift.reasons[0].startswith("VV PRE: population stability index is 0.1")
    assert drift.as_json()["drifted"] is True


def test_only_the_last_images_are_compared(reference: Reference) -> None:
    before = [seen(seed, 4.0) for seed in range(5)]
    after = [seen(seed) for seed in range(10, 30)]
    drift = compare(reference, before + after, MONITORING)
    assert (drift.images, drift.first, drift.last) == (20, after[0].time, after[-1].time)
    assert drift.reasons == []


def test_a_model_that_is_less_sure_is_told_and_one_that_is_surer_is_not(
    reference: Reference,
) -> None:
    drift = compare(reference, [seen(s, confidence=0.8) for s in range(100, 110)], MONITORING)
    (reason,) = drift.reasons
    assert reason == "confidence fell by 0.098 (at most 0.050)"
    surer = compare(reference, [seen(s, confidence=0.99) for s in range(100, 110)], MONITORING)
    assert surer.reasons == []


def test_more_images_narrow_the_limits_down_to_the_settings(reference: Reference) -> None:
    images = [seen(seed) for seed in range(100, 120)]
    one, many = (compare(reference, images[:n], MONITORING).figures for n in (1, 20))
    assert all(b.limit <= a.limit for a, b in zip(one, many, strict=True))
    assert all(b.limit < a.limit * 0.7 for a, b in zip(one[:4], many[:4], strict=True))
    loose = MONITORING.model_copy(update={"max_psi": 1.5, "max_ks": 0.9})
    limits = {(item.name, item.limit) for item in compare(reference, images, loose).figures[:4]}
    assert limits == {("psi", 1.5), ("ks", 0.9)}


def test_values_that_training_never_had_are_counted(reference: Reference) -> None:
    quiet, far = (compare(reference, [seen(100, shift)], MONITORING) for shift in (0.0, 20.0))
    assert quiet.outside["vv"] < 0.02
    assert far.outside["vv"] > 0.3


def test_scenes_count_alike_however_many_patches_they_have() -> None:
    """One scene that is 16 times as large as three others does not make those alarm."""
    even = training(range(4))
    few = tuple(item for item in even.train if item.scene != "s0")[::16]
    uneven = even.model_copy(
        update={"train": (*(item for item in even.train if item.scene == "s0"), *few)}
    )
    kept = [item.scene for item in uneven.train]
    assert (kept.count("s0"), len(kept)) == (16, 19)
    repeated = uneven.model_copy(update={"train": uneven.train[:16] * 4 + few})
    window = [seen(seed) for seed in range(100, 105)]
    one, other = (compare(item, window, MONITORING).figures for item in (uneven, repeated))
    assert [item.value for item in one] == pytest.approx([item.value for item in other])


@pytest.mark.realdata
@pytest.mark.slow
class TestRealData:
    """OMBRIA's grey levels against other events', VV alone, which all of them have."""

    def patches(self, source: Path, folder: Path) -> EventPatches:
        ingest_event(Workspace(folder), str(source), "event", Said(), PARAMS.validation)
        return open_event(folder / "data" / "events" / "event")

    def test_alabama_is_no_ombria_and_ombria_is(self, real_data: Path, tmp_path: Path) -> None:
        model = tiny_model(("vv",), "uint8")
        ombria = self.patches(real_data / "ombria" / "train", tmp_path / "training")
        reference = make_reference(model, [ombria], split_events([ombria], PARAMS.split))
        told = {}
        for source in ("ombria/test", "etci2021/northal_20190302t234651"):
            event = self.patches(real_data / source, tmp_path / source.partition("/")[0])
            band = [event.event.bands.index("vv")]
            rows = np.linspace(0, len(event.images) - 1, 20).astype(int)
            window = []
            for row in rows:
                sight = Sight(model.manifest)
                map_patches(model, event.images[row : row + 1, band], sight)
                window.append(sight.seen("v0.1.0"))
            images = [image for image in window if image]
            told[source] = compare(reference, images, MONITORING).reasons
        quiet, alabama = told.values()
        assert quiet == []
        assert any("population stability index" in reason for reason in alabama)
