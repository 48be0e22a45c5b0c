"""The manifests for Kubernetes: no cluster runs here, so they are held against its own types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient

from sarflood.serving.guard import OPEN

MANIFESTS = Path(__file__).parents[2] / "deploy" / "serve.yaml"
TYPES = {
    "Deployment": "V1Deployment",
    "NetworkPolicy": "V1NetworkPolicy",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
    "Service": "V1Service",
}


def manifests() -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in yaml.safe_load_all(MANIFESTS.read_text("utf-8"))}


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_a_manifest_has_what_kubernetes_needs_and_nothing_that_it_does_not_know(kind: str) -> None:
    manifest = manifests()[kind]
    api: Any = ApiClient()
    read = api.deserialize(json.dumps(manifest), TYPES[kind], "application/json")
    # A field that is unknown is lost on the way, and one that lacks raises.
    assert api.sanitize_for_serialization(read) == manifest


def test_all_speak_of_the_same_pods() -> None:
    found = manifests()
    assert found.keys() == TYPES.keys()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
    ):
        assert selector == labels
    assert found["NetworkPolicy"]["spec"]["egress"] == []


def test_pods_answer_where_they_are_asked_and_end_in_their_time() -> None:
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = container["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in OPEN, "the kubelet has no token"
        assert asked["port"] == port["name"]
    (service,) = manifests()["Service"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    _, wait = container["lifecycle"]["preStop"]["exec"]["command"]
    graceful = container["args"][container["args"].index("--timeout-graceful-shutdown") + 1]
    assert int(wait) + int(graceful) < pod["terminationGracePeriodSeconds"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounted = [volume["mountPath"] for volume in container["volumeMounts"]]
    (home,) = [item["value"] for item in container["env"] if item["name"] == "BENTOML_HOME"]
    assert home.startswith(tuple(mounted))
