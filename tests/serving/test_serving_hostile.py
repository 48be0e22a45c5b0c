"""A served bundle against what is sent to do harm, and against what it says of itself."""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import requests
import schemathesis
from hostile import arrays, scenes
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tiny import speckle, write_package, write_scene

from bench.mutations import Spoiler, good_scenes
from sarflood.serving.access import bearer
from sarflood.serving.app import create_api
from sarflood.serving.bundle import build_bundle
from sarflood.serving.check import serving_bundle
from sarflood.serving.served import Served

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-tests"
UPLOADS = 400

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bundle of this code, served."""
    folder = tmp_path_factory.mktemp("hostile")
    package = write_package(folder / "package")
    store, log = folder / "store", folder / "serve.log"
    tag = build_bundle(ROOT, package, "v0.1.0", store)
    with serving_bundle(tag, store, token=TOKEN, ready_within_s=120, log=log) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=bearer(TOKEN), timeout=120, trust_env=False) as client:
        yield client


def _no_model() -> Served:
    raise RuntimeError("the page is made without a model")


# The page is made without a model; that the bundle serves this one is a test of its own.
PAGE = create_api(_no_model).openapi()
API = schemathesis.openapi.from_dict(PAGE)


def test_the_page_is_for_everyone_to_read(url: str) -> None:
    assert httpx.get(f"{url}/openapi.json", trust_env=False).json() == json.loads(json.dumps(PAGE))


@API.parametrize()
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_what_is_made_up_from_the_page_is_answered_as_it_says(
    case: schemathesis.Case[Any], url: str
) -> None:
    # A string of bytes is seldom a GeoTIFF: that such are refused is no fault.
    case.call_and_validate(
        base_url=url,
        headers=bearer(TOKEN),
        timeout=120,
        excluded_checks=[positive_data_acceptance],
    )


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/geo+json",
        "image/tiff",
        "image/tiff; product=probability",
        "multipart/form-data",
    ],
)
def test_a_scene_is_answered_as_the_page_says(url: str, tmp_path: Path, accept: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", speckle(2, 300, 300))
    with scene.open("rb") as file:
        answer = requests.post(
            f"{url}/predict",
            files={"scene": file},
            headers={"Accept": accept, **bearer(TOKEN)},
            timeout=120,
        )
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition("; boundary=")[0] == accept
    API["/predict"]["POST"].validate_response(answer)


def test_patches_model_and_metrics_are_as_the_page_says(url: str) -> None:
    body = io.BytesIO()
    np.save(body, speckle(2, 256, 256)[None])
    patches = requests.post(
        f"{url}/predict/patches", data=body.getvalue(), headers=bearer(TOKEN), timeout=120
    )
    assert patches.status_code == 200
    API["/predict/patches"]["POST"].validate_response(patches)
    for path in ("/model", "/metrics"):
        answer = requests.get(f"{url}{path}", headers=bearer(TOKEN), timeout=120)
        assert answer.status_code == 200
        API[path]["GET"].validate_response(answer)


def test_addresses_that_are_not_there_leave_no_trace(client: httpx.Client) -> None:
    def counted() -> list[str]:
        return [line.rpartition(" ")[0] for line in client.get("/metrics").text.splitlines()]

    assert client.get("/somewhere/else").status_code == 404
    lines = counted()
    for number in range(20):
        assert client.get(f"/somewhere/else/{number}").status_code == 404
    assert counted() == lines
    assert 'sarflood_model_info{version="v0.1.0"}' in lines


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_was_made_to_do_harm_is_refused_in_one_sentence(
    client: httpx.Client, tmp_path: Path
) -> None:
    """`docs/security.md` lists what was tried."""
    listed = (ROOT / "docs" / "security.md").read_text("utf-8")
    for name, content, statuses in scenes(tmp_path):
        started = time.monotonic()
        answer = client.post("/predict", files={"scene": ("a.tif", content)})
        assert answer.status_code in statuses, (name, answer.text)
        assert time.monotonic() - started < 60, name
        assert name in listed
    for name, content, statuses in arrays():
        answer = client.post("/predict/patches", content=content)
        assert answer.status_code in statuses, (name, answer.text)
        assert name in listed


def test_no_name_in_a_form_leads_anywhere(client: httpx.Client, tmp_path: Path) -> None:
    good = write_scene(tmp_path / "good.tif", speckle(2, 100, 100)).read_bytes()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(0)
        address = f"http://127.0.0.1:{other.getsockname()[1]}/a.tif"
        for name in (address, f"/vsicurl/{address}", "/etc/passwd", "../../etc/passwd", "file:a"):
            text = client.post("/predict", files={"scene": (None, name)})
            assert text.status_code == 422
            assert "addresses are not fetched" in text.json()["error"]
            assert client.post("/predict", files={"scene": (name, good)}).status_code == 200
            vrt = f"<VRTDataset><SourceFilename>{name}</SourceFilename></VRTDataset>"
            assert client.post("/predict", files={"scene": ("a.tif", vrt)}).status_code == 415
        with pytest.raises(BlockingIOError):
            other.accept()


def test_spoiled_uploads_are_refused_and_nothing_breaks(url: str, client: httpx.Client) -> None:
    port = int(url.rpartition(":")[2])
    listening = next(
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", 0) == port
    )
    process = psutil.Process(listening)
    before = {process.pid, *(child.pid for child in process.children(recursive=True))}
    uploads = Spoiler(good_scenes()).uploads()
    answered = set()
    for _ in range(UPLOADS):
        upload = next(uploads)
        answer = client.post(upload.path, content=upload.body, headers=upload.headers)
        answered.add(answer.status_code)
        assert answer.status_code in {200, 406, 413, 415, 422}, (upload.what, answer.text)
        if answer.status_code != 200:
            assert answer.content.startswith(b'{"error":'), upload.what
    assert {200, 415, 422} <= answered
    assert {process.pid, *(child.pid for child in process.children(recursive=True))} == before
    assert not list(Path(process.environ()["TMPDIR"]).glob("sarflood-upload-*"))
