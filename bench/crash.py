"""A promotion killed at any write: what stands then, and whether the next run ends well.

A champion serves, a second event was trained on; `sarflood retrain` judges, pushes, commits, tags,
bundles and promotes. One run is watched, and its writes are counted: files in the workspace and its
remote, and programs started. Then it is killed (SIGKILL to all its processes, at once) before the
write chosen, again and again, at points spread over all of them. After each:

- `sarflood status` names the old champion or the new one, the one that the tags name;
- the bundle of that one is whole, and answers its recorded patches as when it was evaluated;
- the remote has each file that a version's commit names, whole;
- `sarflood retrain`, run again, ends with the new one in production and nothing left to do.

`--table FILE` writes what was seen as Markdown.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from bench.claims import Claim, parser, report
from sarflood.files import sha256, write_text
from sarflood.model import WEIGHTS
from sarflood.process import child_environment, dvc, git
from sarflood.promotion.registry import fetch_version, find_version, versions
from sarflood.serving.bundle import bundle_folder, is_built
from sarflood.serving.check import check_bundle
from sarflood.workspace import MODEL_NAME, Workspace

HOOK = Path(__file__).parent / "crashing"
RECORD = 160  # bytes of a line of the log
# Small and quick, and a gate that any candidate passes.
SETTINGS = {
    "width: 8": "width: 2",
    "depth: 4": "depth: 1",
    "epochs: 48": "epochs: 1",
    "engine: auto": "engine: float32",
    "min_steps: 5400": "min_steps: 1",
    "crop: 128": "crop: 64",
    "learning_rate: 0.002": "learning_rate: 0.01",
    "    iou: {min: 0.7}": "    iou: {min: 0.0}",
    "f1: {min: 0.8}": "f1: {min: 0.0}",
    "recall: {min: 0.7}": "recall: {min: 0.0}",
    "boundary_distance_px: {max: 8.0}": "boundary_distance_px: {max: 1000.0}",
    "area_error: {max: 0.3}": "area_error: {max: 1000.0}",
    "ece: {max: 0.05}": "ece: {max: 1.0}",
    "margin: 0.01": "margin: 1.0",
    "min_gain: 0.0": "min_gain: -1.0",
}


@dataclass(frozen=True)
class Seen:
    """What stood after a kill before write `at`, and after the run that followed."""

    at: int
    before: str
    served: str
    wrong: tuple[str, ...]


class Harness:
    """A workspace that can be put back to the moment before the gate, and killed in a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live = folder / "live"
        self.workspace = Workspace(self.live / "workspace")
        self.remote = self.live / "workspace-remote"
        self.log = folder / "writes.log"

    def make(self) -> None:
        """Make the workspace, small and quick."""
        root = self.workspace.root
        self.live.mkdir()
        self.run("init", str(root), cwd=self.live)
        text = self.workspace.params.read_text("utf-8")
        for old, new in SETTINGS.items():
            if old not in text:
                raise ValueError(f"params.yaml has no {old!r}")
            text = text.replace(old, new)
        self.workspace.params.write_text(text, "utf-8")
        git(root, "commit", "--quiet", "-am", "Small and quick")

    def prepare(self) -> None:
        """Make a champion of one event, and train on a second one."""
        self.make()
        root = self.workspace.root
        for event, seed in (("one", 1), ("two", 2)):
            source = self.folder / event
            named = ("--event", event)
            self.run(
                "simulate", str(source), *named, "--seed", str(seed), "--size", "1536", cwd=root
            )
            self.run("ingest", str(source), *named)
            if event == "one":
                self.run("retrain")
        self.run("evaluate")
        shutil.move(self.live, self.folder / "kept")

    def restore(self) -> None:
        """Put all back to the moment before the gate."""
        shutil.rmtree(self.live, ignore_errors=True)
        shutil.copytree(self.folder / "kept", self.live, symlinks=True)
        self.log.unlink(missing_ok=True)

    def run(self, *arguments: str, cwd: Path | None = None, **environment: str) -> str:
        """Run `sarflood` and return what it printed."""
        done = self.start(*arguments, cwd=cwd, **environment)
        if done.returncode:
            raise RuntimeError(f"sarflood {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def start(
        self, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `sarflood` to its end, whatever that is."""
        return subprocess.run(
            [sys.executable, "-m", "sarflood.cli", *arguments],
            cwd=cwd or self.workspace.root,
            env=child_environment(environment),
            capture_output=True,
            text=True,
            check=False,
        )

    def watched(self, at: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run `sarflood retrain` with its writes noted, and killed before write `at`."""
        path = os.pathsep.join(filter(None, (str(HOOK), os.environ.get("PYTHONPATH"))))
        return self.start(
            "retrain",
            PYTHONPATH=path,
            CRASH_LOG=str(self.log),
            CRASH_ROOT=str(self.live),
            CRASH_AT=str(at or ""),
        )

    def writes(self) -> list[str]:
        """Return what was noted, in its order."""
        text = self.log.read_bytes()
        lines = (text[start : start + RECORD] for start in range(0, len(text), RECORD))
        return [line.decode(errors="replace").strip() for line in lines]

    def crash(self, at: int, *, serve: bool) -> Seen:
        """Kill a run before write `at`, look, run again, and look again."""
        self.restore()
        died = self.watched(at)
        written = self.writes()
        before = written[at - 1] if len(written) >= at else "(ended before)"
        wrong = [] if died.returncode == -signal.SIGKILL else ["was not killed"]
        served, found = self.look(serve=serve)
        wrong += found
        again = self.start("retrain")
        if again.returncode:
            wrong.append(f"the next run ended with {again.returncode}: {again.stderr[-300:]}")
        last, found = self.look(serve=False)
        wrong += [f"after the next run: {item}" for item in found]
        if last != "v0.2.0" or len(versions(self.workspace)) != 2:
            wrong.append(f"the next run left {last} and {len(versions(self.workspace))} versions")
        root = self.workspace.root
        if git(root, "status", "--porcelain").strip() or dvc(root, "status", "--json") != "{}\n":
            wrong.append("the next run left something to do")
        return Seen(at, before, served, tuple(wrong))

    def look(self, *, serve: bool) -> tuple[str, list[str]]:
        """Return the version in production, and what is wrong."""
        said = self.start("status", "--json")
        if said.returncode:
            return "–", [f"status failed: {said.stderr[-300:]}"]
        live: dict[str, Any] = json.loads(said.stdout)["production"] or {}
        name = str(live.get("version"))
        wrong = [] if name in {"v0.1.0", "v0.2.0"} else [f"{name} is in production"]
        if wrong:
            return name, wrong
        version = find_version(self.workspace, None)
        if version.version != name or not version.gate_passed:
            wrong.append(f"status says {name}, the tags {version.version}")
        tag, store = f"{MODEL_NAME}:{name}", self.workspace.bentos
        weights = bundle_folder(tag, store) / "src" / "package" / WEIGHTS
        if not is_built(tag, store) or sha256(weights) != version.weights:
            wrong.append(f"{tag} is not whole")
        elif serve:
            recorded = fetch_version(self.workspace, version) / "recorded.npz"
            check_bundle(tag, store, recorded, 120)
        return name, wrong + self.missing()

    def missing(self) -> list[str]:
        """Name the files of versions that the remote does not have, or not whole."""
        wrong = []
        for version in versions(self.workspace):
            for name, digest in _files(self.workspace, version.tag):
                path = self.remote / "files" / "md5" / digest[:2] / digest[2:]
                if not path.is_file():
                    wrong.append(f"{version.version}: {name} is not in the remote")
                    continue
                content = path.read_bytes()
                found = hashlib.md5(content, usedforsecurity=False).hexdigest()
                if found != digest.removesuffix(".dir"):
                    wrong.append(f"{version.version}: {name} is damaged in the remote")
        return wrong


def _files(workspace: Workspace, tag: str) -> Iterator[tuple[str, str]]:
    """Give the name and hash of each file that a commit leaves to DVC."""
    lock = yaml.safe_load(git(workspace.root, "show", f"{tag}:dvc.lock"))["stages"]
    stages = yaml.safe_load(git(workspace.root, "show", f"{tag}:dvc.yaml"))["stages"]
    for name, stage in stages.items():
        kept = {item for item in stage.get("outs", ()) if isinstance(item, str)}
        for out in lock[name].get("outs", ()):
            if out["path"] in kept:
                yield out["path"], out["md5"]
    for path in git(workspace.root, "ls-tree", "-r", "--name-only", tag, "data").split():
        if path.endswith(".dvc"):
            (out,) = yaml.safe_load(git(workspace.root, "show", f"{tag}:{path}"))["outs"]
            yield path, out["md5"]


@contextmanager
def harness() -> Iterator[Harness]:
    """Give a prepared one, and take all of it away at the end."""
    with tempfile.TemporaryDirectory(prefix="sarflood-crash-") as folder:
        made = Harness(Path(folder))
        made.prepare()
        yield made


def spread(writes: Sequence[str], number: int) -> list[int]:
    """Choose points: the first write of each kind and place, and the rest spread evenly."""
    seen: dict[str, int] = {}
    for place, write in enumerate(writes, start=1):
        seen.setdefault("/".join(write.split("/")[:3]), place)
    firsts = list(seen.values())
    step = max(len(firsts) / number, 1)
    chosen = {firsts[int(place * step)] for place in range(min(number, len(firsts)))}
    place = 0
    while len(chosen) < min(number, len(writes)):
        place += 1
        chosen.add(1 + (place * 7919) % len(writes))
    return sorted(chosen)


def main() -> int:
    """Kill at each point and report."""
    command = parser(__doc__ or "")
    command.add_argument("--points", type=int, default=48)
    command.add_argument("--at", type=int, action="append", help="a write; may be repeated")
    command.add_argument("--serve-each", type=int, default=4, help="start the bundle every so many")
    command.add_argument("--table", type=Path, help="write what was seen as Markdown")
    options = command.parse_args()
    console = Console(stderr=True)
    with harness() as made:
        made.restore()
        whole = made.watched()
        if whole.returncode:
            raise RuntimeError(whole.stderr)
        writes = made.writes()
        console.print(f"{len(writes)} writes")
        seen = []
        for number, at in enumerate(options.at or spread(writes, options.points)):
            seen.append(made.crash(at, serve=number % options.serve_each == 0))
            console.print(seen[-1], markup=False, highlight=False)
    if options.table:
        rows = [
            f"| {item.at} | `{item.before}` | {item.served} | {'; '.join(item.wrong) or 'v0.2.0'} |"
            for item in seen
        ]
        header = [
            "| write | killed before | served then | after the next run |",
            "|---|---|---|---|",
        ]
        write_text(options.table, "\n".join([*header, *rows, ""]))
    bad = sum(1 for item in seen if item.wrong)
    how = f"of {len(seen)} points among {len(writes)} writes of a promotion"
    return report([Claim("crash: points that ended wrong", bad, 0, how)], options.json)


if __name__ == "__main__":
    sys.exit(main())
