"""DVC stage `gate`: judge the candidate; the verdict is a file, not an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sarflood.errors import InputError
from sarflood.evaluation.data import DataChecks
from sarflood.evaluation.evaluate import Evaluation, read_patches
from sarflood.evaluation.evaluate import evaluate as evaluate_model
from sarflood.evaluation.report import write_report
from sarflood.files import sha256, write_json, write_text
from sarflood.model.package import WEIGHTS, FloodModel, load_model
from sarflood.monitoring.drift import MAX_PSI
from sarflood.params import load_params
from sarflood.patches.store import open_events
from sarflood.promotion.card import model_card
from sarflood.promotion.gate import judge
from sarflood.promotion.registry import Version, fetch_version, production
from sarflood.stages import run_stage
from sarflood.workspace import Workspace


def gate(workspace: Workspace) -> None:
    """Write `metrics/gate.json`, the model card and the report.

    The champion is evaluated again, on the same test patches as the candidate.
    """
    params = load_params(workspace.params)
    evaluation = _read_json(workspace.metrics / "evaluation.json")
    champion = _champion(workspace)
    verdict = judge(
        candidate=sha256(workspace.model / WEIGHTS),
        evaluation=evaluation,
        validation=_read_json(workspace.metrics / "validation.json"),
        champion=champion.version if champion else None,
        champion_evaluation=_evaluate(workspace, champion) if champion else None,
        params=params.gate,
    )
    model = load_model(workspace.model)
    write_text(workspace.model / "card.md", model_card(model.manifest, evaluation, verdict))
    _report(workspace, model, evaluation, verdict.as_metrics())
    write_json(workspace.metrics / "gate.json", verdict.as_metrics())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro`") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object; run `dvc repro --force evaluate`")
    return content


def _champion(workspace: Workspace) -> Version | None:
    """Return the champion by the tags; a `models/champion.json` that disagrees is refused."""
    champion = production(workspace)
    noted = _read_json(workspace.champion).get("version")
    if noted != (champion.version if champion else None):
        raise InputError(
            f"{workspace.champion}: says {noted}, but in production is "
            f"{champion.version if champion else 'none'}; run `sarflood gate`, which notes it anew"
        )
    return champion


def _evaluate(workspace: Workspace, champion: Version) -> dict[str, Any]:
    model = load_model(fetch_version(workspace, champion))
    split = pd.read_parquet(workspace.split)
    return evaluate_model(model, open_events(workspace.events), split).metrics


def _report(
    workspace: Workspace, model: FloodModel, metrics: dict[str, Any], verdict: dict[str, Any]
) -> None:
    """Write the report from what the earlier stages left, and the verdict."""
    write_report(
        workspace.reports / "report.html",
        manifest=model.manifest,
        evaluation=Evaluation(
            metrics=metrics,
            patches=read_patches(workspace.plots / "test_patches.csv"),
            precision_recall=pd.read_csv(workspace.plots / "precision_recall.csv"),
            reliability=pd.read_csv(workspace.plots / "reliability.csv"),
        ),
        training=pd.read_csv(workspace.plots / "training.csv"),
        events=open_events(workspace.events),
        model=model,
        data=DataChecks(
            split=_read_json(workspace.metrics / "split.json"),
            leaks=_read_json(workspace.metrics / "leaks.json"),
            validation=_read_json(workspace.metrics / "validation.json"),
            max_psi=MAX_PSI,
        ),
        gate=verdict,
    )


if __name__ == "__main__":
    run_stage(gate)
