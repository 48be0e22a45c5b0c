"""How much a random split flatters: the same model under a random split and under ours.

Both splits have as many training, validation and test patches. Training, network and seed are those
of `params.yaml`; each training ends after `--minutes` at the latest.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.claims import Claim, parser, report
from sarflood.evaluation.evaluate import evaluate
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.params import Params, load_params
from sarflood.patches.loader import take
from sarflood.patches.split import split_events
from sarflood.patches.store import EventPatches, open_events
from sarflood.training.fit import fit
from sarflood.validation.leaks import check_leaks
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[1]
SOURCES = {"alabama": "etci2021/northal_20190302t234651", "ombria": "ombria"}


def main() -> int:
    """Train both ways on each event and report."""
    command = parser(__doc__ or "")
    command.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    command.add_argument("--minutes", type=float, default=2.0, help="of each training, at most")
    command.add_argument("--event", choices=[*SOURCES, "both"], default="both")
    options = command.parse_args()
    params = load_params(ROOT / "params.yaml")
    train = params.train.model_copy(update={"max_minutes": options.minutes})
    params = params.model_copy(update={"train": train})
    names = list(SOURCES) if options.event == "both" else [options.event]
    table = Table("event", "split", "train", "val", "test", "leaking", "epochs", "IoU", "F1")
    claims = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            events = _ingested(Path(folder), str(options.data / SOURCES[name]), name, params)
            ours = split_events(events, params.split)
            for kind, split in (("ours", ours), ("random", _shuffled(ours, params.train.seed))):
                leaking = len(check_leaks(events, split, params.split.guard_patches).reasons)
                iou, f1, epochs = _score(events, split, params)
                counts = [str((split["split"] == part).sum()) for part in ("train", "val", "test")]
                figures = [str(epochs), f"{iou:.3f}", f"{f1:.3f}"]
                table.add_row(name, kind, *counts, str(leaking), *figures)
                if kind == "ours":
                    how = "test and validation patches known from training, by the leak check"
                    claims.append(Claim(f"{name}: leaking patches", leaking, 0, how))
    Console().print(table)
    return report(claims, options.json)


def _ingested(folder: Path, source: str, name: str, params: Params) -> list[EventPatches]:
    workspace = Workspace(folder)
    ingest_event(workspace, source, name, Said(), params.validation)
    return open_events(workspace.events)


def _shuffled(split: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Deal the same parts out to patches at random."""
    random = np.random.default_rng(seed)
    return split.assign(split=random.permutation(split["split"].to_numpy()))


def _score(
    events: Sequence[EventPatches], split: pd.DataFrame, params: Params
) -> tuple[float, float, int]:
    """Train and return IoU and F1 on the test patches, and the epochs that there was time for."""
    parts = {part: take(list(events), split, part, params.input) for part in ("train", "val")}
    fitted = fit(
        parts["train"],
        parts["val"],
        events[0].event.bands,
        params,
        lambda epoch: print(f"epoch {epoch.epoch}: {epoch.val_iou:.3f}", file=sys.stderr),
    )
    model = fitted.model(events[0].event, params)
    test = evaluate(model, list(events), split).metrics["test"]
    return float(test["iou"]), float(test["f1"]), len(fitted.epochs)


if __name__ == "__main__":
    sys.exit(main())
