"""The whole loop once, on simulated floods, in a throw-away workspace under build/demo.

Run it by `make demo`. Every step is a command that a user would type; it is shown before it runs.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import rasterio
from rich.console import Console
from rich.table import Table

from sarflood.promotion.registry import versions
from sarflood.serving.access import bearer
from sarflood.serving.check import serving_bundle
from sarflood.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "build" / "demo"
WORKSPACE = DEMO / "workspace"
MAPS = DEMO / "map"
REFUSED = 4  # exit code of a retraining whose candidate the gate refused

# A demonstration trains for about a minute, and longer where the machine is busy; `params.yaml` is
# made for real events.
SHORTER = {
    "epochs: 48": "epochs: 5",
    "min_steps: 5400": "min_steps: 500",
}

console = Console(stderr=True)


def main() -> None:
    """Run the loop and say where to look."""
    started = time.monotonic()
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(parents=True)
    sarflood("init", WORKSPACE, cwd=DEMO)
    shorten_training()
    for name, seed, size in (("amihan", 1, 2560), ("bising", 2, 2560), ("crising", 3, 1024)):
        sarflood("simulate", DEMO / name, "--event", name, "--seed", seed, "--size", size, cwd=DEMO)
    sarflood("ingest", DEMO / "amihan", "--event", "amihan")
    verdicts = {"amihan": sarflood("retrain", may_end_with=REFUSED)}
    verdicts["bising"] = sarflood(
        "ingest", DEMO / "bising", "--event", "bising", "--retrain", may_end_with=REFUSED
    )
    sarflood("deploy")
    summary = map_by_bundle(DEMO / "crising")
    sarflood("models")
    conclude(verdicts, summary, time.monotonic() - started)


def sarflood(*arguments: object, cwd: Path = WORKSPACE, may_end_with: int = 0) -> int:
    """Run a `sarflood` command with its output on the screen and return its exit code."""
    words = [str(argument) for argument in arguments]
    shown = [word.replace(f"{ROOT}/", "") for word in words]
    console.rule(f"[bold]sarflood {' '.join(shown)}", align="left")
    command = [str(Path(sys.executable).with_name("sarflood")), *words]
    code = subprocess.run(command, cwd=cwd, check=False).returncode
    if code not in {0, may_end_with}:
        sys.exit(f"`sarflood {' '.join(shown)}` ended with code {code}; the demo stops here")
    return code


def shorten_training() -> None:
    """Fit the throw-away workspace's settings to a demonstration, as a user would edit them."""
    path = WORKSPACE / "params.yaml"
    text = path.read_text(encoding="utf-8")
    for old, new in SHORTER.items():
        if old not in text:
            sys.exit(f"{path}: has no line `{old}`; scripts/demo.py must follow params.yaml")
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    subprocess.run(
        ["git", "commit", "-qam", "Train for a demonstration"], cwd=WORKSPACE, check=True
    )


def map_by_bundle(scene: Path) -> dict[str, Any]:
    """Let the served bundle map a scene that no model has seen; return its summary."""
    console.rule("[bold]the served bundle maps crising", align="left")
    workspace = Workspace(WORKSPACE)
    serving = next(item for item in versions(workspace) if item.production)
    tag = f"flood-unet:{serving.version}"
    log, token = DEMO / "serve.log", secrets.token_urlsafe()
    MAPS.mkdir()
    with serving_bundle(tag, workspace.bentos, token=token, ready_within_s=120, log=log) as url:
        answers = {
            name: predict(url, token, scene, media_type)
            for name, media_type in (
                ("flood.tif", "image/tiff"),
                ("flood.geojson", "application/geo+json"),
                ("summary.json", "application/json"),
            )
        }
    for name, content in answers.items():
        (MAPS / f"served-{name}").write_bytes(content)
    sarflood("map", scene / "scene.tif", "--pre", scene / "pre.tif", "--out", MAPS)
    masks = [read_mask(MAPS / name) for name in ("served-flood.tif", "flood.tif")]
    if not np.array_equal(*masks):
        sys.exit(f"{MAPS}: the bundle's mask and the command line's differ")
    result: dict[str, Any] = json.loads(answers["summary.json"])
    truth = read_mask(scene / "mask.tif")
    known = (truth != 255) & (masks[0] != 255)
    wet, true = (masks[0] == 1) & known, (truth == 1) & known
    return result | {"true_iou": float((wet & true).sum() / (wet | true).sum())}


def predict(url: str, token: str, scene: Path, media_type: str) -> bytes:
    """Post a scene to the service."""
    with (scene / "scene.tif").open("rb") as post, (scene / "pre.tif").open("rb") as pre:
        response = httpx.post(
            f"{url}/predict",
            files={"scene": post, "pre": pre},
            headers={"Accept": media_type, **bearer(token)},
            timeout=300,
        )
    response.raise_for_status()
    return response.content


def read_mask(path: Path) -> Any:
    """Return the first band of a raster."""
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def conclude(verdicts: dict[str, int], summary: dict[str, Any], seconds: float) -> None:
    """Say what serves, how good it is, what the gate said, and which files to open."""
    serving = next(item for item in versions(Workspace(WORKSPACE)) if item.production)
    table = Table(box=None, show_header=False, title="The loop has run", title_justify="left")
    table.add_row("serves", f"flood-unet {serving.version}, test IoU {serving.iou:.3f}")
    for event, code in verdicts.items():
        table.add_row(f"gate after {event}", "refused" if code else "passed, promoted")
    table.add_row(
        "map of crising",
        f"{summary['flooded_km2']:.1f} km² flooded; IoU {summary['true_iou']:.3f} with the truth",
    )
    for name, path in {
        "report": WORKSPACE / "reports" / "report.html",
        "validation docs": WORKSPACE / "reports" / "validation" / "index.html",
        "picture": MAPS / "preview.png",
        "GeoTIFF": MAPS / "served-flood.tif",
        "GeoJSON": MAPS / "served-flood.geojson",
    }.items():
        if not path.is_file():
            sys.exit(f"{path}: was not written")
        table.add_row(name, os.path.relpath(path))
    table.add_row("took", f"{seconds / 60:.1f} min")
    Console().print(table)


if __name__ == "__main__":
    main()
