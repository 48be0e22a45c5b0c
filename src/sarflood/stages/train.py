"""DVC stage `train`: fit the U-Net on the training patches, save the model package."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from contextlib import ExitStack

import pandas as pd
from dvclive.live import Live

from sarflood import __version__
from sarflood.files import replacing, sha256, write_json
from sarflood.model.inputs import check_input
from sarflood.model.package import TrainedOn, load_model, save_model
from sarflood.params import EncoderFile, load_params
from sarflood.patches.loader import LabelledPatches, take
from sarflood.patches.store import open_events
from sarflood.promotion.registry import fetch_version, find_version
from sarflood.stages import run_stage
from sarflood.training.checkpoint import Checkpoint
from sarflood.training.curve import Epoch
from sarflood.training.fit import fit, local_rank
from sarflood.training.start import Start
from sarflood.workspace import Workspace


def train(workspace: Workspace) -> None:
    """Write `models/flood-unet/`, `metrics/training.json`, and curves that grow as it trains."""
    params = load_params(workspace.params)
    events = open_events(workspace.events)
    split = pd.read_parquet(workspace.split)
    used = set(split.loc[split["split"].isin(["train", "val"]), "event"])
    first = next((item.event for item in events if item.event.id in used), events[0].event)
    check_input(params.input, first.bands, first.units)
    parts = {
        part: take(events, split, part, params.input, workspace.cache) for part in ("train", "val")
    }

    start = _start(workspace, params.train.start_from)
    key = _key(workspace, parts.values())
    checkpoint = Checkpoint(workspace.cache / "training.safetensors", key)
    found = checkpoint.load()
    if found and not local_rank():
        line = f"a training that did not end goes on after its epoch {len(found[1])}"
        print(line, file=sys.stderr, flush=True)
    with ExitStack() as stack:
        folder = str(workspace.plots / "training")
        live = None
        if not local_rank():
            live = stack.enter_context(Live(folder, report=None, save_dvc_exp=False, dvcyaml=None))

        def report(epoch: Epoch) -> None:
            if live is None:
                return
            print(_line(epoch), file=sys.stderr, flush=True)
            for name in ("train_loss", "val_iou", "learning_rate"):
                live.log_metric(name, getattr(epoch, name))
            live.next_step()

        fitted = fit(parts["train"], parts["val"], first.bands, params, report, checkpoint, start)
    if live is None:
        return  # the process that started this one writes what came out
    model = fitted.model(
        first,
        params,
        trained_on=tuple(
            TrainedOn(event=name, index_sha256=sha256(workspace.events / name / "index.parquet"))
            for name in sorted(used)
        ),
        params_sha256=sha256(workspace.params),
        commit=workspace.commit(),
    )
    save_model(model, workspace.model)
    best = fitted.epochs.sort_values("val_iou", kind="stable").iloc[-1]
    write_json(
        workspace.metrics / "training.json",
        {
            "val_iou": float(best["val_iou"]),
            "best_epoch": int(best["epoch"]),
            "epochs": len(fitted.epochs),
            "seconds": float(fitted.epochs["seconds"].iloc[-1]),
            "temperature": fitted.temperature,
            "threshold": fitted.threshold,
            "train_patches": len(parts["train"]),
            "val_patches": len(parts["val"]),
        },
    )
    with replacing(workspace.plots / "training.csv") as temporary:
        fitted.epochs.to_csv(temporary, index=False)
    checkpoint.remove()


def _start(workspace: Workspace, named: str | EncoderFile | None) -> Start | None:
    """Return what `train.start_from` names: a version, or an encoder's file."""
    if named is None:
        return None
    if isinstance(named, EncoderFile):
        return Start.of_encoder(named, workspace.root)
    folder = fetch_version(workspace, find_version(workspace, named))
    return Start.of_model(named, load_model(folder))


def _line(epoch: Epoch) -> str:
    """Return a line of the table of epochs."""
    width = len(f"epoch {epoch.planned}/{epoch.planned}")
    left = epoch.seconds_an_epoch * (epoch.planned - epoch.epoch)
    return (
        f"{f'epoch {epoch.epoch}/{epoch.planned}':{width}}  loss {epoch.train_loss:.4f}  "
        f"validation IoU {epoch.val_iou:.4f} at {epoch.threshold:.2f}  "
        f"about {left / 60:4.1f} min left"
    )


def _key(workspace: Workspace, parts: Iterable[LabelledPatches]) -> str:
    """Name a training by all that it is made of: what a checkpoint has to fit."""
    settings = load_params(workspace.params).model_dump_json(
        include={"input", "model", "train", "augment", "loss"}
    )
    patches = [value for part in parts for value in (*part.classes, *part.hashes, "")]
    told = "\n".join([workspace.commit(), __version__, settings, *patches]).encode()
    return hashlib.sha256(told).hexdigest()


if __name__ == "__main__":
    run_stage(train)
