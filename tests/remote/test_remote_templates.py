"""The job templates for containers: no engine runs here, so they are held against Prefect's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import prefect
import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
KNOWN = "server/api/collections_data/views/aggregate-worker-metadata.json"


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_a_template_is_prefects_own_with_our_defaults(kind: str) -> None:
    ours = json.loads((DEPLOY / f"{kind}.json").read_text("utf-8"))
    known = json.loads((Path(prefect.__file__).parent / KNOWN).read_text("utf-8"))
    own = known[f"prefect-{kind}"][kind]["default_base_job_configuration"]
    assert _within(own["job_configuration"], ours["job_configuration"])
    variables = ours["variables"]["properties"]
    for name, variable in own["variables"]["properties"].items():
        assert variables[name] == {**variable, **_default(variables[name])}, name
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(ours["job_configuration"])))
    assert used <= set(variables), "each placeholder is a variable"
    assert set(variables) - set(own["variables"]["properties"]) <= used


def _default(variable: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in variable.items() if key == "default"}


def _within(part: Any, whole: Any) -> bool:
    """Say whether all of `part` stands in `whole`, which may have more keys."""
    if isinstance(part, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return all(_within(*pair) for pair in zip(part, whole, strict=True))
    return bool(part == whole)


def test_containers_see_the_workspace_under_the_same_path() -> None:
    docker, kubernetes = (
        json.loads((DEPLOY / f"{kind}.json").read_text("utf-8"))["variables"]["properties"]
        for kind in ("docker", "kubernetes")
    )
    mount = kubernetes["mount"]["default"]
    assert docker["volumes"]["default"] == [f"{mount}:{mount}"]
    for variables in (docker, kubernetes):
        assert variables["env"]["default"]["PYTHONPATH"] == f"{mount}/src:{mount}"
