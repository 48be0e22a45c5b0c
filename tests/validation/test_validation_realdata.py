"""Real Sentinel-1 patches must pass: a false alarm keeps good data from the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from validation_tables import PARAMS

from sarflood.patches.store import PatchWriter
from sarflood.sources.event import Event
from sarflood.sources.readers import recognise
from sarflood.validation.checkpoint import validate_table
from sarflood.validation.verdict import Verdict

pytestmark = pytest.mark.realdata


def judge(source: Path, folder: Path, *, inverted: bool = False) -> Verdict:
    """Judge the patches of a source, stored in `folder`, as ingest does."""
    reader = recognise(source)
    facts = reader.facts(source)
    event = Event(
        id="event",
        name="Event",
        bands=facts.bands,
        units=facts.units,
        label=facts.label,
        source=facts.origin,
    )
    with PatchWriter(folder, event) as writer:
        for item in reader.items(source):
            for patch in reader.read(item):
                assert patch.mask is not None
                swapped = patch.mask ^ (patch.mask < 2)  # 255 stays
                writer.add(replace(patch, mask=swapped) if inverted else patch, item.name)
    table = pd.read_parquet(folder / "index.parquet")
    return validate_table(table, bands=event.bands, units=event.units, params=PARAMS)


@pytest.mark.parametrize(
    ("source", "patches"),
    [
        ("etci2021/northal_20190302t234651", 233),
        ("stac-overflow", 8),
        ("sen1floods11", 4),
        ("ombria/train", 624),
        ("ombria/test", 70),
        ("ombria-2021/FRANCE", 88),
        ("ombria-2021/GUYANA", 30),
    ],
)
def test_real_patches_pass(real_data: Path, tmp_path: Path, source: str, patches: int) -> None:
    verdict = judge(real_data / source, tmp_path)
    assert verdict.patches == patches
    assert verdict.reasons == {}
    assert verdict.event_reasons == []
    assert verdict.warnings == []


def test_inverted_real_masks_are_refused(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "etci2021" / "northal_20190302t234651"
    verdict = judge(source, tmp_path, inverted=True)
    assert not verdict.passed
    assert "the masks look inverted" in verdict.event_reasons[0]
