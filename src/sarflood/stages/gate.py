"""DVC stage `gate`: judge the candidate; the verdict is a file, not an exit code."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from sarflood.errors import InputError, SarfloodError
from sarflood.evaluation.data import DataChecks
from sarflood.evaluation.evaluate import Evaluation, read_patches
from sarflood.evaluation.evaluate import evaluate as evaluate_model
from sarflood.evaluation.examples import WORST
from sarflood.evaluation.pictures import worst_patches
from sarflood.evaluation.report import write_report
from sarflood.files import sha256, write_json, write_text
from sarflood.model import WEIGHTS
from sarflood.model.package import FloodModel, load_model
from sarflood.monitoring.drift import MAX_PSI
from sarflood.params import load_params
from sarflood.patches.store import open_events
from sarflood.promotion.card import model_card
from sarflood.promotion.gate import Champion, Scored, judge, judge_bundle
from sarflood.promotion.registry import Version, fetch_version, production
from sarflood.serving.bundle import build_bundle
from sarflood.serving.check import check_bundle
from sarflood.stages import run_stage
from sarflood.workspace import Workspace


def gate(workspace: Workspace) -> None:
    """Write `metrics/gate.json`, the model card, the report, and pictures of the worst patches.

    The champion is evaluated again, on the same test patches as the candidate. A candidate that
    passes so far is made a bundle, which is started and asked, and thrown away.
    """
    params = load_params(workspace.params)
    events = open_events(workspace.events)
    model = load_model(workspace.model)
    evaluation = Evaluation(
        metrics=_read_json(workspace.metrics / "evaluation.json"),
        patches=read_patches(workspace.plots / "test_patches.csv"),
        precision_recall=pd.read_csv(workspace.plots / "precision_recall.csv"),
        reliability=pd.read_csv(workspace.plots / "reliability.csv"),
    )
    data = DataChecks(
        split=_read_json(workspace.metrics / "split.json"),
        leaks=_read_json(workspace.metrics / "leaks.json"),
        validation=_read_json(workspace.metrics / "validation.json"),
        max_psi=MAX_PSI,
    )
    champion = _champion(workspace)
    verdict = judge(
        candidate=sha256(workspace.model / WEIGHTS),
        scored=_scored(model, evaluation),
        reports={"data validated": data.validation, "no split leak": data.leaks},
        champion=Champion(champion.version, _again(workspace, champion)) if champion else None,
        regions={item.event.id: item.event.region or "" for item in events},
        params=params.gate,
    )
    if verdict.passed:
        answered = _try_bundle(workspace, params.serving.ready_within_s)
        verdict = verdict.with_checks(*judge_bundle(answered, params.serving))
    card = model_card(model.manifest, evaluation, verdict, [item.event for item in events])
    write_text(workspace.model / "card.md", card)
    write_report(
        workspace.reports / "report.html",
        manifest=model.manifest,
        evaluation=evaluation,
        training=pd.read_csv(workspace.plots / "training.csv"),
        events=events,
        model=model,
        data=data,
        gate=[check.row() for check in verdict.checks],
        card=card,
    )
    pictures = worst_patches(evaluation.test_patches, events, model)
    write_text(workspace.reports / WORST, pictures)
    write_json(workspace.metrics / "gate.json", verdict.as_metrics())


def _scored(model: FloodModel, evaluation: Evaluation) -> Scored:
    trained_on = {item.event: item.index_sha256 for item in model.manifest.trained_on}
    return Scored(evaluation.metrics, evaluation.test_patches, trained_on)


def _again(workspace: Workspace, champion: Version) -> Scored | str:
    """Score the champion on today's test patches; or say why it cannot be."""
    model = load_model(fetch_version(workspace, champion))
    split = pd.read_parquet(workspace.split)
    try:
        return _scored(model, evaluate_model(model, open_events(workspace.events), split))
    except InputError as error:
        return str(error)


def _try_bundle(workspace: Workspace, ready_within_s: float) -> dict[str, Any] | str:
    """Build a bundle of the candidate, start it and ask it; or say why it does not answer."""
    with tempfile.TemporaryDirectory(prefix="sarflood-candidate-") as folder:
        store, recorded = Path(folder), workspace.model / "recorded.npz"
        try:
            tag = build_bundle(workspace.root, workspace.model, "candidate", store)
            return check_bundle(tag, store, recorded, ready_within_s)
        except SarfloodError as error:
            return str(error)


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


if __name__ == "__main__":
    run_stage(gate)
