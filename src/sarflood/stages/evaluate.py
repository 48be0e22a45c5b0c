"""DVC stage `evaluate`: score the candidate and the baselines, and describe its training."""

from __future__ import annotations

import pandas as pd

from sarflood.evaluation.evaluate import evaluate as evaluate_model
from sarflood.evaluation.recorded import write_calibration, write_recorded
from sarflood.files import replacing, write_json
from sarflood.model.package import load_model
from sarflood.monitoring.reference import make_reference, write_reference
from sarflood.patches.store import open_events
from sarflood.stages import run_stage
from sarflood.workspace import Workspace


def evaluate(workspace: Workspace) -> None:
    """Write `metrics/evaluation.json`, plots, answers recorded for the bundle, and the reference.

    The reference, what the training patches look like and how sure the model is, is what the images
    that it maps later are compared with.
    """
    model = load_model(workspace.model)
    events = open_events(workspace.events)
    split = pd.read_parquet(workspace.split)
    evaluation = evaluate_model(model, events, split)
    write_json(workspace.metrics / "evaluation.json", evaluation.metrics)
    for name, table in (
        ("precision_recall", evaluation.precision_recall),
        ("reliability", evaluation.reliability),
        ("test_patches", evaluation.patches),
    ):
        with replacing(workspace.plots / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    write_recorded(workspace.model / "recorded.npz", model, events, evaluation.patches)
    write_calibration(workspace.model / "calibration.npz", model, events, split)
    write_reference(make_reference(model, events, split), workspace.model)


if __name__ == "__main__":
    run_stage(evaluate)
