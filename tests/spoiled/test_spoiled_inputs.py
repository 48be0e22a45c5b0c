from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from corpus import CASES, Case, table

from sarflood.errors import DataRefusedError, InputError, SarfloodError
from sarflood.ingest.ingest import Ingested, ingest_event
from sarflood.params import load_params
from sarflood.patches.store import open_event
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml").validation
EVENT = "spoiled"


def contents(folder: Path) -> dict[str, str]:
    """The hashes of all regular files below a folder, by their path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def notes(workspace: Workspace) -> list[dict[str, Any]]:
    path = workspace.quarantine / EVENT / "reasons.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def run(case: Case, source: Path, workspace: Workspace) -> tuple[Ingested | None, str]:
    refusals: dict[str, tuple[type[SarfloodError], ...]] = {
        "event": (DataRefusedError,),
        "input": (InputError, DataRefusedError),
    }
    refusal = refusals.get(case.outcome)
    if refusal is None:
        done = ingest_event(workspace, str(source), EVENT, case.said, PARAMS)
        return done, "\n".join(done.warnings)
    with pytest.raises(refusal) as caught:
        ingest_event(workspace, str(source), EVENT, case.said, PARAMS)
    return None, str(caught.value)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_spoiled_input(case: Case, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = case.make(tmp_path / "in")
    before = contents(tmp_path / "in")
    workspace = Workspace(tmp_path / "workspace")
    workspace.root.mkdir()
    done, said = run(case, source, workspace)
    assert contents(tmp_path / "in") == before, "the source is left as it came"
    kept = contents(workspace.quarantine / EVENT)
    if done is None:
        assert re.search(case.rule, said), said
        assert not workspace.events.exists()
        if case.outcome == "event":
            assert set(before.values()) <= set(kept.values()), "all that came is in quarantine"
        return
    assert (done.accepted, len(open_event(workspace.events / EVENT).index)) == (case.accepted,) * 2
    if case.outcome in ("handled", "warning"):
        assert re.search(case.rule, said), said
        assert case.outcome == "warning" or not said
        assert done.refused == 0
        return
    reasons = notes(workspace)
    found = [note for note in reasons if re.search(case.rule, " ".join(note["reasons"]))]
    assert found, reasons
    assert {kept[name] for note in found for name in note["files"]} <= set(before.values())
    items = set(open_event(workspace.events / EVENT).index["item"])
    lost = [
        name
        for name, digest in before.items()
        if digest not in kept.values() and not any(item in name for item in items)
    ]
    assert not lost, "each file is accepted, or in quarantine as it came"


def test_the_page_is_what_the_tests_say() -> None:
    assert (ROOT / "docs" / "spoiled-inputs.md").read_text("utf-8") == table()
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
