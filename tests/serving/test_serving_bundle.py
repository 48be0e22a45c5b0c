from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import rasterio
import yaml
from tiny import speckle, tiny_model, write_package, write_scene

from sarflood.errors import InputError, SarfloodError
from sarflood.mapping.scene import map_scene
from sarflood.monitoring.journal import read_journal
from sarflood.process import child_environment
from sarflood.serving.bundle import (
    build_bundle,
    bundle_folder,
    check_bundle,
    serve_command,
    serving_bundle,
    stored_tag,
)
from sarflood.serving.recorded import read_recorded
from sarflood.serving.server import free_port, server, wait_until_ready

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 120.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of a tag, which differs from the installed code in the name it gives itself."""
    folder = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bentofile.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    app = folder / "src" / "sarflood" / "serving" / "app.py"
    text = app.read_text().replace('"application/octet-stream"', '"application/x-tagged-code"')
    app.write_text(text)
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, code: Path, package: Path) -> Path:
    """A store with the bundle `flood-unet:v0.1.0`."""
    folder = tmp_path_factory.mktemp("store")
    assert build_bundle(code, package, "v0.1.0", folder) == "flood-unet:v0.1.0"
    return folder


def processes_of(store: Path) -> list[str]:
    return [
        " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline"])
        if any(str(store) in part for part in process.info["cmdline"] or ())
    ]


def test_a_served_bundle_answers_with_its_own_code_and_leaves_nothing(
    store: Path, package: Path, tmp_path: Path
) -> None:
    image = speckle(2, 300, 300)
    image[:, :20] = np.nan
    scene = write_scene(tmp_path / "scene.tif", image)
    log = tmp_path / "serve.log"
    with (
        serving_bundle("flood-unet:v0.1.0", store, ready_within_s=READY_WITHIN_S, log=log) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        assert client.get("/readyz").status_code == client.get("/livez").status_code == 200
        assert client.get("/model").json()["version"] == "v0.1.0"
        with scene.open("rb") as file:
            answer = client.post(
                "/predict", files={"scene": file}, headers={"Accept": "image/tiff"}
            )
        with rasterio.MemoryFile(answer.content) as memory, memory.open() as mask:
            assert np.array_equal(mask.read(1), map_scene(tiny_model(), scene).mask)
        patches = tmp_path / "patches.npy"
        np.save(patches, read_recorded(package / "recorded.npz")[0])
        answer = client.post("/predict/patches", content=patches.read_bytes())
        assert answer.headers["content-type"] == "application/x-tagged-code"
        refused = client.post("/predict", files={"scene": (None, "http://127.0.0.1:9/a.tif")})
        assert refused.status_code == 422
        assert client.get("/predict").json() == {"error": "GET /predict: Method Not Allowed"}
        metrics = client.get("/metrics").text
        assert 'endpoint="/predict",http_response_code="200"' in metrics
        assert processes_of(store)
    assert not processes_of(store)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_served_bundle_keeps_what_it_has_seen_where_it_is_told_to(
    store: Path, package: Path, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "serve.log"
    command = serve_command(str(bundle_folder("flood-unet:v0.1.0", store)), port)
    images, _ = read_recorded(package / "recorded.npz")
    body = io.BytesIO()
    np.save(body, images)
    with server(command, tmp_path, log, tmp_path / "served") as process:
        wait_until_ready(
            process, port, ready_within_s=READY_WITHIN_S, tag="flood-unet:v0.1.0", log=log
        )
        url = f"http://127.0.0.1:{port}/predict/patches"
        assert httpx.post(url, content=body.getvalue(), timeout=60).status_code == 200
    (seen,) = read_journal(tmp_path / "served", "v0.1.0")
    assert seen.pixels == np.isfinite(images[..., ::8, ::8]).all(axis=1).sum()


def test_only_what_serves_is_in_the_bundle(store: Path) -> None:
    source = store / "bentos" / "flood-unet" / "v0.1.0" / "src"
    rooms = {path.name for path in (source / "sarflood").iterdir() if path.is_dir()}
    assert rooms == {"raster", "model", "mapping", "monitoring", "serving"}
    assert not list(source.rglob("__pycache__"))
    code = (
        "import pkgutil, sys, sarflood\n"
        "for module in pkgutil.walk_packages(sarflood.__path__, 'sarflood.'):\n"
        "    __import__(module.name)\n"
        "print(sarflood.__file__, *(name for name in sys.argv[1:] if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "dvc", "lightning", "matplotlib", "pandas", "prefect"],
        env=child_environment({"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}),
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [str(source / "sarflood" / "__init__.py")], done.stderr
    recipe = yaml.safe_load((source / "bentofile.yaml").read_text())
    assert all("==" in requirement for requirement in recipe["python"]["packages"])


def test_a_bundle_is_built_once(store: Path, package: Path, tmp_path: Path) -> None:
    assert build_bundle(tmp_path / "no code", package, "v0.1.0", store) == "flood-unet:v0.1.0"
    with pytest.raises(InputError, match="not the code of a version"):
        build_bundle(tmp_path / "no code", package, "v0.2.0", store)
    with pytest.raises(InputError, match=r"no bundle flood-unet:v0\.2\.0; build it"):
        stored_tag("v0.2.0", store)


def test_the_check_of_a_bundle_compares_its_answers(
    store: Path, package: Path, tmp_path: Path
) -> None:
    recorded = package / "recorded.npz"
    report = check_bundle("flood-unet:v0.1.0", store, recorded, READY_WITHIN_S)
    assert (report["patches"], report["equal_share"]) == (4, 1.0)
    images, masks = read_recorded(recorded)
    np.savez(tmp_path / "other.npz", images=images[::-1], masks=masks)
    with pytest.raises(SarfloodError, match=r"flood-unet:v0\.1\.0: .*% of the pixels are not as"):
        check_bundle("flood-unet:v0.1.0", store, tmp_path / "other.npz", READY_WITHIN_S)


def test_a_bundle_with_other_weights_refuses_to_serve(
    code: Path, package: Path, tmp_path: Path
) -> None:
    spoiled = tmp_path / "package"
    shutil.copytree(package, spoiled)
    images, masks = read_recorded(package / "recorded.npz")
    np.savez(spoiled / "recorded.npz", images=images[::-1], masks=masks)
    store, log = tmp_path / "store", tmp_path / "serve.log"
    tag = build_bundle(code, spoiled, "v0.1.0", store)
    with (
        pytest.raises(SarfloodError, match=r"refuses to serve: .*% of the pixels are not as rec"),
        serving_bundle(tag, store, ready_within_s=READY_WITHIN_S, log=log),
    ):
        pytest.fail("a bundle that answers wrongly became ready")
    assert not processes_of(store)
