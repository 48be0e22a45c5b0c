from __future__ import annotations

import http.client
import io
import shutil
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib import metadata
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import rasterio
import yaml
from tiny import change_recorded, lake_model, mapped, speckle, write_package, write_scene

from sarflood.errors import InputError, SarfloodError
from sarflood.mapping.recorded import read_recorded
from sarflood.monitoring.journal import JOURNAL, read_journal
from sarflood.process import child_environment
from sarflood.serving.access import NO_TOKEN, bearer
from sarflood.serving.answers import WRITERS
from sarflood.serving.bundle import build_bundle, bundle_folder, content_hash, stored_tag
from sarflood.serving.check import check_bundle, serving_bundle
from sarflood.serving.server import HOST, BundleServer, bind, get

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 120.0
TOKEN = "a-token-of-tests"

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
    return write_package(tmp_path_factory.mktemp("model") / "package", lake_model())


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
        serving_bundle(
            "flood-unet:v0.1.0", store, token=TOKEN, ready_within_s=READY_WITHIN_S, log=log
        ) as url,
        httpx.Client(base_url=url, headers=bearer(TOKEN), timeout=60, trust_env=False) as client,
    ):
        # BentoML's own addresses too: only what holds nothing is answered without the token.
        for path in (
            "/model",
            "/metrics",
            "/schema.json",
            "/docs.json",
            "/healthz",
            "/predict",
            "/model/card",
        ):
            asked = httpx.get(f"{url}{path}", headers=bearer("another"), trust_env=False)
            assert asked.status_code == 401, path
        page = ("/", "/page/page.js", "/page/leaflet/leaflet.js")
        for path in ("/livez", "/readyz", "/openapi.json", *page):
            assert httpx.get(f"{url}{path}", trust_env=False).status_code == 200, path
        assert client.get("/readyz").status_code == client.get("/livez").status_code == 200
        assert client.get("/model").json()["version"] == "v0.1.0"
        assert client.get("/model/card").text == "<h1>A tiny model</h1>\n"
        with scene.open("rb") as file:
            answer = client.post(
                "/predict", files={"scene": file}, headers={"Accept": "image/tiff"}
            )
        with rasterio.MemoryFile(answer.content) as memory, memory.open() as mask:
            assert (mask.read(1) == mapped(lake_model(), scene).mask).mean() > 0.99
        patches = tmp_path / "patches.npy"
        np.save(patches, read_recorded(package / "recorded.npz").images)
        answer = client.post("/predict/patches", content=patches.read_bytes())
        assert answer.headers["content-type"] == "application/x-tagged-code"
        refused = client.post("/predict", files={"scene": (None, "http://127.0.0.1:9/a.tif")})
        assert refused.status_code == 422
        assert client.get("/predict").json() == {"error": "GET /predict: Method Not Allowed"}
        metrics = client.get("/metrics").text
        assert 'sarflood_requests_total{path="/predict",status="200"} 1.0' in metrics
        assert processes_of(store)
    assert not processes_of(store)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_served_bundle_keeps_what_it_has_seen_where_it_is_told_to(
    store: Path, package: Path, tmp_path: Path
) -> None:
    images = read_recorded(package / "recorded.npz").images
    body = io.BytesIO()
    np.save(body, images)
    bundle = bundle_folder("flood-unet:v0.1.0", store)
    kept = {JOURNAL: str(tmp_path / "served")}
    with closing(BundleServer(bundle, tmp_path / "serve.log", "", environment=kept)) as server:
        server.wait_until_ready(READY_WITHIN_S)
        url = f"http://127.0.0.1:{server.port}/predict/patches"
        assert httpx.post(url, content=body.getvalue(), timeout=60).status_code == 200
    (seen,) = read_journal(tmp_path / "served", "v0.1.0")
    assert seen.pixels == np.isfinite(images[..., ::8, ::8]).all(axis=1).sum()


def test_who_connects_while_the_server_is_told_to_drain_is_answered(
    store: Path, tmp_path: Path
) -> None:
    bundle = bundle_folder("flood-unet:v0.1.0", store)
    with (
        bind() as public,
        closing(BundleServer(bundle, tmp_path / "serve.log", TOKEN, public=public)) as server,
    ):
        server.wait_until_ready(READY_WITHIN_S)
        public.listen()
        server.accept()
        port = public.getsockname()[1]
        assert get(port, "/livez") is not None
        process = psutil.Process(server.process.pid)
        process.suspend()  # so that it finds the word and the client at once
        while process.status() != psutil.STATUS_STOPPED:
            pass
        server.drain()
        with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as client:
            client.request("GET", "/livez")
            process.resume()
            answer = client.getresponse()
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            answer.read()
        assert server.process.wait(60) == 0


def test_no_thread_keeps_the_memory_of_its_largest_request(store: Path, tmp_path: Path) -> None:
    sizes = np.random.default_rng(0).integers(40, 700, (40, 2))
    scenes = [
        write_scene(tmp_path / f"{number}.tif", speckle(2, *size)).read_bytes()
        for number, size in enumerate(sizes)
    ]
    bundle = bundle_folder("flood-unet:v0.1.0", store)
    with closing(BundleServer(bundle, tmp_path / "serve.log", "")) as server:
        server.wait_until_ready(READY_WITHIN_S)
        url = f"http://{HOST}:{server.port}/predict"

        def ask(number: int) -> int:
            accept = {"Accept": list(WRITERS)[number % len(WRITERS)]}
            files = {"scene": scenes[number * 7 % len(scenes)]}
            return httpx.post(
                url, files=files, headers=accept, timeout=120, trust_env=False
            ).status_code

        def memory_mib() -> float:
            return float(psutil.Process(server.process.pid).memory_info().rss / 2**20)

        assert ask(0) == 200
        before = memory_mib()
        with ThreadPoolExecutor(4) as clients:
            assert set(clients.map(ask, range(160))) == {200}
        assert memory_mib() - before < 250


def test_only_what_serves_is_in_the_bundle(store: Path) -> None:
    source = bundle_folder("flood-unet:v0.1.0", store) / "src"
    rooms = {path.name for path in (source / "sarflood").iterdir() if path.is_dir()}
    assert rooms == {"raster", "model", "mapping", "monitoring", "serving"}
    assert not list(source.rglob("__pycache__"))
    code = (
        "import pkgutil, sys, sarflood\n"
        "for module in pkgutil.walk_packages(sarflood.__path__, 'sarflood.'):\n"
        "    __import__(module.name)\n"
        "print(sarflood.__file__, *(name for name in sys.argv[1:] if name in sys.modules))"
    )
    heavy = ("dvc", "great_expectations", "lightning", "matplotlib", "pandas", "prefect")
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy],
        env=child_environment({"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}),
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [str(source / "sarflood" / "__init__.py")], done.stderr
    files = {path.name for path in (source / "package").rglob("*") if path.is_file()}
    assert files == {
        *("bundle.json", "card.md", "model.json", "recorded.npz", "weights.safetensors"),
        *("float32.bin", "float32.xml", "float32.sha256"),
        *("int8.bin", "int8.xml", "int8.sha256"),
    }


def test_a_bundle_is_built_again_from_its_tag_with_the_same_content(
    code: Path, package: Path, store: Path, tmp_path: Path
) -> None:
    tag, folder = "flood-unet:v0.1.0", bundle_folder("flood-unet:v0.1.0", store)
    assert build_bundle(code, package, "v0.1.0", tmp_path) == tag
    assert content_hash(tag, tmp_path) == content_hash(tag, store)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    summed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - summed == {"SHA256SUMS", "bento.yaml"}, "which has the time of the build"
    served = {"weights.safetensors", "model.json", "card.md", "recorded.npz", "bundle.json"}
    assert {f"src/package/{name}" for name in served} <= summed


def test_a_bundle_is_built_once_and_again_where_it_was_damaged(
    code: Path, package: Path, store: Path, tmp_path: Path
) -> None:
    assert build_bundle(tmp_path / "no code", package, "v0.1.0", store) == "flood-unet:v0.1.0"
    with pytest.raises(InputError, match="not the code of a version"):
        build_bundle(tmp_path / "no code", package, "v0.2.0", store)
    with pytest.raises(InputError, match=r"no bundle flood-unet:v0\.2\.0; build it"):
        stored_tag("v0.2.0", store)
    weights = bundle_folder("flood-unet:v0.1.0", store) / "src/package/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    build_bundle(code, package, "v0.1.0", store)
    assert weights.read_bytes() == (package / "weights.safetensors").read_bytes()


def test_the_image_is_made_of_what_is_locked_and_has_no_compiler(store: Path) -> None:
    folder = bundle_folder("flood-unet:v0.1.0", store)
    steps = (folder / "env/docker/Dockerfile").read_text().splitlines()
    apt, uv, packages = [step for step in steps if "apt-get" in step or "pip install" in step]
    assert apt.endswith("apt-get install --yes --no-install-recommends libexpat1")
    assert uv == "RUN command -v uv >/dev/null || pip install uv"
    assert packages.endswith(" pip install -r $BENTO_PATH/env/python/requirements.txt")
    assert any(r"'[pip]\nno-deps = true\n' > /etc/uv/uv.toml" in step for step in steps)
    last = [step for step in steps if step.split(" ")[0] in {"USER", "ENTRYPOINT", "CMD"}]
    assert last[0] == "USER bentoml"
    assert last[1:] == ['ENTRYPOINT [ "/home/bentoml/bento/env/docker/entrypoint.sh" ]']
    assert "ENV BENTOML_DO_NOT_TRACK=$BENTOML_DO_NOT_TRACK" in steps


@pytest.fixture(scope="module")
def alone(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the packages which the bundle locks, and no others."""
    root = tmp_path_factory.mktemp("alone")
    venv.create(root, symlinks=True)
    (site,) = root.glob("lib/python*/site-packages")
    locked = bundle_folder("flood-unet:v0.1.0", store) / "env" / "python" / "requirements.txt"
    for line in locked.read_text().splitlines():
        name, version = line.split("==")
        found = metadata.distribution(name)
        assert found.version.partition("+")[0] == version
        base = Path(str(found.locate_file("")))
        for entry in {_entry(base, Path(file)) for file in found.files or ()}:
            if entry.parts[0] != ".." and not (site / entry).exists():
                (site / entry).parent.mkdir(parents=True, exist_ok=True)
                (site / entry).symlink_to(base / entry)
    return root / "bin" / "python"


def _entry(base: Path, file: Path) -> Path:
    """Return the package or folder of a package's file that it does not share with another's."""
    for parent in reversed(file.parents[:-1]):
        if parent.suffix in {".dist-info", ".libs"} or (base / parent / "__init__.py").exists():
            return parent
    return file


WITHOUT_NETWORK = ("unshare", "--map-root-user", "--net")
LOOPBACK = ("ip", "link", "set", "lo", "up")
ASK = """
import http.client, os, subprocess, sys, time
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = subprocess.Popen(sys.argv[1:])
deadline = time.monotonic() + 300
try:
    while server.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", 3000, timeout=60)
        try:
            connection.request("GET", "/model")
            print(connection.getresponse().read().decode())
            break
        except OSError:
            time.sleep(0.2)
finally:
    server.terminate()
    server.wait()
"""


def test_it_starts_bentomls_way_with_what_is_locked_alone_and_no_network(
    store: Path, alone: Path, tmp_path: Path
) -> None:
    try:
        subprocess.run([*WITHOUT_NETWORK, *LOOPBACK], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"network namespaces are not permitted here: {said.strip()}")
    pod = next(yaml.safe_load_all((ROOT / "deploy/serve.yaml").read_text("utf-8")))["spec"]
    (container,) = pod["template"]["spec"]["containers"]
    bundle = bundle_folder("flood-unet:v0.1.0", store)
    serve = [alone, "-m", "bentoml", "serve", bundle, *container["args"], "--host", "127.0.0.1"]
    home = {"BENTOML_HOME": str(tmp_path / "bentoml"), NO_TOKEN: "1"}
    environment = child_environment({**home, "PYTHONDONTWRITEBYTECODE": "1"})
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [*WITHOUT_NETWORK, sys.executable, "-c", ASK, *map(str, serve)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert '"version":"v0.1.0"' in done.stdout, done.stdout + done.stderr
    for module in ("dvc", "great_expectations", "lightning", "pip", "prefect", "setuptools", "uv"):
        there = subprocess.run([alone, "-c", f"import {module}"], capture_output=True, check=False)
        assert there.returncode, f"{module} is installed"


def test_the_check_of_a_bundle_compares_its_answers(
    store: Path, package: Path, tmp_path: Path
) -> None:
    recorded = package / "recorded.npz"
    report = check_bundle("flood-unet:v0.1.0", store, recorded, READY_WITHIN_S)
    assert (report["patches"], report["engine"]) == (4, "OpenVINO int8")
    assert 0.99 <= report["equal_share"] < 1
    assert 0 < abs(report["iou_change"]) <= 0.005
    shutil.copy(recorded, tmp_path / "other.npz")
    change_recorded(tmp_path / "other.npz", images=read_recorded(recorded).images[::-1])
    with pytest.raises(SarfloodError, match=r"flood-unet:v0\.1\.0: .*% of the pixels are not as"):
        check_bundle("flood-unet:v0.1.0", store, tmp_path / "other.npz", READY_WITHIN_S)


def test_a_bundle_with_other_weights_refuses_to_serve(
    code: Path, package: Path, tmp_path: Path
) -> None:
    spoiled = tmp_path / "package"
    shutil.copytree(package, spoiled)
    recorded = spoiled / "recorded.npz"
    change_recorded(recorded, images=read_recorded(recorded).images[::-1])
    store, log = tmp_path / "store", tmp_path / "serve.log"
    tag = build_bundle(code, spoiled, "v0.1.0", store)
    with (
        pytest.raises(SarfloodError, match=r"refuses to serve: .*% of the pixels are not as rec"),
        serving_bundle(tag, store, token=TOKEN, ready_within_s=READY_WITHIN_S, log=log),
    ):
        pytest.fail("a bundle that answers wrongly became ready")
    assert not processes_of(store)


def test_a_bundle_that_is_told_of_no_token_refuses_to_serve(store: Path, tmp_path: Path) -> None:
    bundle = bundle_folder("flood-unet:v0.1.0", store)
    none = {NO_TOKEN: ""}
    with (
        closing(BundleServer(bundle, tmp_path / "serve.log", "", environment=none)) as server,
        pytest.raises(SarfloodError, match="refuses to serve: no token: set SARFLOOD_TOKEN"),
    ):
        server.wait_until_ready(READY_WITHIN_S)
