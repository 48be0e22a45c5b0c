from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import write_quick_params
from typer.testing import CliRunner, Result

import sarflood.cli.studies  # noqa: F401  registers the verbs
from sarflood.cli.console import app
from sarflood.errors import InputError
from sarflood.ingest.ingest import Said, ingest_event
from sarflood.params import Params, load_params
from sarflood.patches.store import open_events
from sarflood.sources.simulate import simulate_event
from sarflood.studies.results import markdown
from sarflood.studies.study import (
    Study,
    input_settings,
    loss_settings,
    of_wet_share,
    run_study,
    skip_settings,
)
from sarflood.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One simulated event of 49 patches."""
    folder = tmp_path_factory.mktemp("study")
    root = folder / "workspace"
    root.mkdir()
    write_quick_params(root)
    (root / "dvc.yaml").write_text("stages: {}\n", "utf-8")
    place = Workspace(root)
    simulate_event(folder / "source", seed=1, size=256 * 7)
    ingest_event(place, str(folder / "source"), "bising", Said(), params_of(place).validation)
    return place


def params_of(place: Workspace) -> Params:
    return load_params(place.params)


def skips(place: Workspace, *, wet_share: float | None = None) -> Study:
    return Study("skips", skip_settings(params_of(place)), 1, 1, wet_share)


def run(place: Workspace, *words: str) -> Result:
    return CliRunner().invoke(app, ["study", *words, "--workspace", str(place.root)])


def test_a_study_of_skips_leaves_a_table_and_a_picture(
    workspace: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "here"
    done = run(workspace, "skips", "--seeds", "2", "--epochs", "1", "--out", str(out))
    assert done.exit_code == 0, done.output
    table = (out / "skips.md").read_text("utf-8")
    assert table in done.stdout
    assert "| with skips |" in table
    assert "| without skips |" in table
    assert "2 seeds each" in table
    assert " ± " in table
    picture = (out / "skips.svg").read_text("utf-8")
    assert picture.rstrip().endswith("</svg>")
    assert "without skips" in table


def test_a_study_that_was_ended_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    events = open_events(workspace.events)
    kept = tmp_path / "runs.csv"

    def stop(_setting: str, _seed: int, done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(skips(workspace), events, kept, stop)
    asked: list[str] = []
    runs = run_study(
        skips(workspace),
        events,
        kept,
        lambda name, *_: asked.append(name),
    )
    assert asked == ["without skips"]
    assert list(runs["setting"]) == ["with skips", "without skips"]
    changed = params_of(workspace)
    changed = changed.model_copy(
        update={"train": changed.train.model_copy(update={"learning_rate": 0.01})}
    )
    asked.clear()
    run_study(
        Study("skips", skip_settings(changed), 1, 1),
        events,
        kept,
        lambda name, *_: asked.append(name),
    )
    assert len(asked) == 2, "runs of other settings do not count"


def test_each_loss_is_trained_with_its_own_terms(workspace: Workspace) -> None:
    losses = [params.loss for params in loss_settings(params_of(workspace)).values()]
    assert len({json.dumps(sorted(loss.terms)) for loss in losses}) == len(losses) == 10
    assert all(loss.class_weights == "inverse_frequency" and not loss.auto for loss in losses)


def test_each_normalisation_of_the_input_that_suits_the_units_is_trained(
    workspace: Workspace,
) -> None:
    params = params_of(workspace)
    known = {item.input.normalisation for item in input_settings(params, "db").values()}
    assert known == {"training", "event", "local", "both", "fixed_db"}
    grey = {item.input.normalisation for item in input_settings(params, "uint8").values()}
    assert grey == known - {"fixed_db"}, "no range in dB is known of grey levels"


def test_a_study_has_so_many_passes_whatever_the_settings_say_of_time(
    workspace: Workspace, tmp_path: Path
) -> None:
    params = params_of(workspace)
    short = params.train.model_copy(update={"max_minutes": 1e-6, "epochs": 9, "min_steps": 900})
    settings = {"all": params.model_copy(update={"train": short})}
    study = Study("one", settings, 1, 3)
    runs = run_study(study, open_events(workspace.events), tmp_path / "runs.csv")
    assert list(runs["epochs"]) == [3]


def test_rows_are_in_the_order_of_the_validation_patches(workspace: Workspace) -> None:
    study = skips(workspace)
    figures = dict.fromkeys(("precision", "recall", "boundary_f1", "boundary_distance_px"), 0.5)
    figures |= dict.fromkeys(("minutes", "wet_share", "otsu_iou", "fitted_threshold_iou"), 0.5)
    rows = [
        {"setting": name, "epochs": 1, "val_iou": val, "default_iou": 0.5, "iou": iou, **figures}
        for name, val, iou in (("worse", 0.6, 0.9), ("better", 0.7, 0.8))
    ]
    table = markdown(study, pd.DataFrame(rows), "bising").splitlines()
    assert [line.split(" | ")[:2] for line in table[-2:]] == [
        ["| better", "0.700"],
        ["| worse", "0.600"],
    ]


@pytest.mark.parametrize("wanted", [0.03, 0.3])
def test_patches_are_left_out_until_so_much_is_wet(workspace: Workspace, wanted: float) -> None:
    (event,) = open_events(workspace.events)
    assert event.masks is not None
    assert 0.05 < (event.masks == 1).mean() < 0.25
    fewer = of_wet_share(event, wanted)
    assert fewer.masks is not None
    assert (fewer.masks == 1).mean() == pytest.approx(wanted, rel=0.15)
    assert 10 <= len(fewer.index) == len(fewer.images) == len(fewer.masks) < len(event.index)
    first = event.index["id"].tolist().index(fewer.index["id"].iloc[0])
    np.testing.assert_array_equal(fewer.masks[0], event.masks[first])


def test_a_wet_share_that_is_not_there_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    study = skips(workspace, wet_share=0.8)
    with pytest.raises(InputError, match=r"bising: .* choose another --wet-share"):
        run_study(study, open_events(workspace.events), tmp_path / "runs.csv")


def test_damaged_runs_are_named_with_the_remedy(workspace: Workspace, tmp_path: Path) -> None:
    kept = tmp_path / "runs.csv"
    kept.write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match=r"runs\.csv: not the runs of a study"):
        run_study(skips(workspace), open_events(workspace.events), kept)


def test_the_advice_names_loss_reason_and_figures(workspace: Workspace) -> None:
    told = json.loads(run(workspace, "advice", "--json").stdout)
    assert set(told) == {"terms", "reason", "figures"}
    assert 0 < told["figures"]["wet_share"] < 1
    said = run(workspace, "advice").stdout
    assert told["reason"] in said
    assert "training patches" in said
    assert np.isfinite(told["figures"]["border_share"])


def test_an_unknown_event_is_named_with_those_that_are_there(workspace: Workspace) -> None:
    refusal = run(workspace, "advice", "--event", "manila").exception
    assert isinstance(refusal, InputError)
    assert "--event manila: labelled events are bising" in str(refusal)
