"""DVC stage `split`: training, validation and test patches that stand apart in space."""

from __future__ import annotations

import pandas as pd

from sarflood.files import replacing, write_json
from sarflood.params import load_params
from sarflood.patches.split import split_events
from sarflood.patches.store import open_events
from sarflood.stages import run_stage, warn
from sarflood.workspace import Workspace


def split(workspace: Workspace) -> None:
    """Write `data/split.parquet` (see `split_events`) and `metrics/split.json`."""
    params = load_params(workspace.params)
    events, counts = open_events(workspace.events), {}
    table = split_events(events, params.split)
    for item in events:
        parts = table.loc[table["event"] == item.event.id, "split"].set_axis(item.index.index)
        counts[item.event.id] = {
            str(part): {"patches": len(wet), "wet_share": _mean(wet)}
            for part, wet in item.index["wet_share"].groupby(parts)
        }
        if set(parts) == {"train"} and not params.split.leave_out:
            warn(f"event {item.event.id} cannot be split: it trains, but is not tested")
    with replacing(workspace.split) as temporary:
        table.to_parquet(temporary, index=False)
    write_json(workspace.metrics / "split.json", counts)


def _mean(wet: pd.Series) -> float | None:
    return round(float(wet.mean()), 4) if wet.notna().any() else None


if __name__ == "__main__":
    run_stage(split)
