from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from tiny import speckle, write_package, write_scene
from typer.testing import CliRunner, Result

from sarflood.cli.console import app
from sarflood.errors import GateRefusedError, InputError
from sarflood.files import sha256, write_json, write_text
from sarflood.model import WEIGHTS
from sarflood.process import git
from sarflood.promotion.registry import assign_production, production, register
from sarflood.workspace import Workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with v0.1.0 in production and fetched, and v0.2.0 that the gate refused."""
    place = Workspace(tmp_path / "workspace")
    place.root.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, place.root)
    git(place.root, "init", "--quiet", "--initial-branch", "main")
    git(place.root, "config", "user.name", "test")
    git(place.root, "config", "user.email", "test@localhost")
    write_text(place.root / ".gitignore", "/.sarflood\n")
    (place.cache / "versions").mkdir(parents=True)
    package = write_package(place.cache / "versions" / "v0.1.0")
    digest = sha256(package / WEIGHTS)
    for iou, passed in ((0.8, True), (0.6, False)):
        write_json(place.metrics / "evaluation.json", {"test": {"iou": iou}})
        write_json(
            place.metrics / "gate.json",
            {"passed": passed, "candidate": digest, "checks": [{"name": "IoU"}]},
        )
        write_text(place.model / "card.md", f"# A model of IoU {iou}\n\n| {'long ' * 40}|\n")
        git(place.root, "add", "-A")
        git(place.root, "commit", "--quiet", "-m", f"candidate {iou}")
        register(place, "candidate")
    assign_production(place, "v0.1.0", "first")
    return place


def run(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--workspace", str(workspace.root)])


def test_the_card_of_a_version_is_that_of_its_tag(workspace: Workspace) -> None:
    card = run(workspace, "models", "show", "v0.2.0").stdout  # whose package was not fetched
    assert card == f"# A model of IoU 0.6\n\n| {'long ' * 40}|\n\n## In production\n\nnever\n"
    first = run(workspace, "models", "show", "v0.1.0").stdout
    assert re.search(r"\n- 20\d\d-.* UTC, by test: first\n$", first)


def test_a_version_as_json_has_its_row_of_the_list_and_all_figures(workspace: Workspace) -> None:
    rows = json.loads(run(workspace, "models", "--json").stdout)
    one = json.loads(run(workspace, "models", "show", "v0.1.0", "--json").stdout)
    row = next(row for row in rows if row["version"] == "v0.1.0")
    assert one["commit"].startswith(row.pop("commit"))
    assert {name: one[name] for name in row} == row
    assert one["evaluation"] == {"test": {"iou": 0.8}}
    assert one["checks"] == [{"name": "IoU"}]
    assert [item["why"] for item in one["promotions"]] == ["first"]


def test_an_option_before_the_verb_is_refused_and_not_passed_over(workspace: Workspace) -> None:
    asked = ["models", "--workspace", str(workspace.root), "show", "v0.1.0"]
    refusal = CliRunner().invoke(app, asked).exception
    assert isinstance(refusal, InputError)
    assert "come after the verb" in str(refusal)


def test_status_is_said_in_lines_and_as_json(workspace: Workspace) -> None:
    lines = run(workspace, "status").stdout
    assert re.search(r"v0\.1\.0 is in production since 20\d\d-.* \(by test\)\n  first\n", lines)
    assert "its bundle is not built" in lines
    assert json.loads(run(workspace, "status", "--json").stdout)["production"]["why"] == "first"


def test_an_override_needs_a_reason(workspace: Workspace) -> None:
    refusal = run(workspace, "promote", "v0.2.0", "--override").exception
    assert isinstance(refusal, InputError)
    assert "needs a --reason" in str(refusal)


def test_a_rollback_to_what_serves_changes_nothing(workspace: Workspace) -> None:
    ran = run(workspace, "rollback", "--to", "v0.1.0")
    assert "v0.1.0 is in production" in ran.stdout
    now = production(workspace)
    assert now
    assert len(now.promotions) == 1


@pytest.mark.parametrize("verb", [["promote"], ["rollback", "--to"]])
def test_a_refused_version_is_refused_before_a_bundle_is_built(
    workspace: Workspace, verb: list[str]
) -> None:
    refusal = run(workspace, *verb, "v0.2.0").exception
    assert isinstance(refusal, GateRefusedError), refusal
    assert not workspace.bentos.exists()
    now = production(workspace)
    assert now
    assert now.version == "v0.1.0"


def test_a_taken_port_is_refused(workspace: Workspace) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refusal = run(workspace, "serve", "--port", str(other.getsockname()[1])).exception
    assert isinstance(refusal, InputError)
    assert "name another with --port" in str(refusal)


class TestMap:
    @pytest.fixture(autouse=True)
    def _stand_outside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand beside the workspace, with a scene."""
        write_scene(tmp_path / "scene.tif", speckle(2, 300, 200), ("VV", "VH"))
        monkeypatch.chdir(tmp_path)

    def test_it_tells_the_figures_and_where_the_files_are_from_here(
        self, workspace: Workspace, tmp_path: Path
    ) -> None:
        ran = run(workspace, "map", "scene.tif", "--out", str(tmp_path / "maps"))
        assert ran.exit_code == 0, ran.exception
        files = json.loads(ran.stdout)
        assert files["mask"] == "maps/flood.tif"
        assert all(Path(path).is_file() for path in files.values())
        summary = json.loads(Path(files["summary"]).read_text("utf-8"))
        (line,) = ran.stderr.strip().splitlines()
        assert f"v0.1.0: flood on {summary['flooded_km2']:.6g} km²" in line

    def test_a_bad_folder_is_refused_before_the_scene_is_read(self, workspace: Workspace) -> None:
        refusal = run(workspace, "map", "no.tif", "--out", "scene.tif/maps").exception
        assert isinstance(refusal, InputError)
        assert "cannot be written: Not a directory" in str(refusal)

    def test_a_folder_is_a_scene_and_one_is_before_it(self, workspace: Workspace) -> None:
        Path("north").mkdir()
        Path("scene.tif").rename("north/scene.tif")
        ran = run(workspace, "map", "north", "--out", "maps")
        assert ran.exit_code == 0, ran.exception
        summary = json.loads(Path("maps/summary.json").read_text("utf-8"))
        assert summary["inputs"] == {"scene": sha256(Path("north/scene.tif"))}

    def test_what_is_wanted_of_the_files_is_in_them(self, workspace: Workspace) -> None:
        image = speckle(2, 300, 200)
        write_scene(Path("rivers.tif"), np.ones((1, 300, 100), np.uint8))
        write_scene(Path("dem.tif"), image[:1])
        town = {
            "type": "Polygon",
            "coordinates": [[[122, 13], [124, 13], [124, 15], [122, 15], [122, 13]]],
        }
        feature = {"type": "Feature", "properties": {"id": "1", "town": "Beira"}, "geometry": town}
        content = {"type": "FeatureCollection", "features": [feature]}
        Path("towns.geojson").write_text(json.dumps(content), "utf-8")
        words = "map scene.tif --out maps --min-area 0 --simplify 15 --zones towns.geojson"
        words += " --zone-field town --permanent-water rivers.tif --dem dem.tif --orbit descending"
        ran = run(workspace, *words.split())
        assert ran.exit_code == 0, ran.exception
        summary = json.loads(Path("maps/summary.json").read_text("utf-8"))
        assert [zone["name"] for zone in summary["zones"]] == ["Beira"]
        assert summary["permanent_water_km2"] == pytest.approx(3.0, rel=1e-2)
        assert summary["slivers"]["count"] == 0
        assert summary["excluded"]["radar_shadow_share"] is not None
        assert summary["wanted"]["simplify_m"] == 15
        assert run(workspace, *words.split()).stderr.strip().endswith("it was mapped before")

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            ("--dem dem.tif --orbit west", "--orbit west: ascending or descending"),
            ("--orbit ascending", "--orbit goes with --dem"),
            ("--zone-field town", "--zone-field goes with --zones"),
            ("--series", "--series needs two scenes or more"),
            ("--zones no.gpkg", "no.gpkg: cannot be read: No such file"),
        ],
    )
    def test_options_that_lack_something_are_refused(
        self, workspace: Workspace, words: str, why: str
    ) -> None:
        refusal = run(workspace, "map", "scene.tif", "--out", "maps", *words.split()).exception
        assert isinstance(refusal, InputError)
        assert why in str(refusal)

    def test_the_scene_before_the_flood_goes_with_one_scene(self, workspace: Workspace) -> None:
        words = ("map", "scene.tif", "other.tif", "--pre", "pre.tif", "--out", "maps")
        refusal = run(workspace, *words).exception
        assert isinstance(refusal, InputError)
        assert "--pre goes with one scene" in str(refusal)
        assert not Path("maps").exists()
