"""DVC stage `leaks`: check that nothing scored is known from training, before training begins."""

from __future__ import annotations

import pandas as pd

from sarflood.errors import DataRefusedError
from sarflood.files import write_json
from sarflood.params import load_params
from sarflood.patches.store import open_events
from sarflood.stages import run_stage
from sarflood.validation.leaks import SCORED, check_leaks
from sarflood.workspace import Workspace


def leaks(workspace: Workspace) -> None:
    """Write `metrics/leaks.json`; refuse a split that leaks.

    Raises:
        DataRefusedError: A scored patch is, or continues, a training patch.
    """
    params = load_params(workspace.params)
    split = pd.read_parquet(workspace.split)
    counts = {"train": int((split["split"] == "train").sum())}
    counts |= {part: int((split["split"] == part).sum()) for part in SCORED}
    if not counts["train"] or not sum(counts[part] for part in SCORED):
        write_json(workspace.metrics / "leaks.json", {"passed": True, **counts})
        return
    verdict = check_leaks(open_events(workspace.events), split, params.split.guard_patches)
    found = {item.name.replace(" ", "_"): item.unexpected_count for item in verdict.expectations}
    write_json(
        workspace.metrics / "leaks.json",
        {"passed": verdict.passed, **counts, "leaking": len(verdict.reasons), **found},
    )
    if not verdict.passed:
        named = [f"{patch}: {why[0]}" for patch, why in list(verdict.reasons.items())[:5]]
        raise DataRefusedError(
            f"{workspace.split}: {len(verdict.reasons)} scored patches are known from training: "
            f"{'; '.join(named)}; see metrics/leaks.json; `dvc repro --force split` splits anew"
        )


if __name__ == "__main__":
    run_stage(leaks)
