from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from fastapi.testclient import TestClient
from tiny import speckle, tiny_model, write_scene

from sarflood.mapping.patches import map_patches
from sarflood.mapping.scene import map_scene
from sarflood.monitoring.journal import Journal, read_journal
from sarflood.params import ServingParams
from sarflood.serving.app import create_api
from sarflood.serving.served import BundleInfo, Served

LIMITS = ServingParams(
    max_megabytes=16, max_megapixels=1, ready_within_s=60, patch_within_s=5, max_memory_gib=4
)


@pytest.fixture
def served() -> Served:
    return Served(tiny_model(), BundleInfo(version="v0.1.0", serving=LIMITS))


@pytest.fixture
def client(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client that sees server errors as answers, and that no temporary file is left behind."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(uploads))
    with TestClient(create_api(lambda: served), raise_server_exceptions=False) as client:
        yield client
    assert list(uploads.iterdir()) == []


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    image = speckle(2, 320, 300)
    image[:, :40] = np.nan
    return write_scene(tmp_path / "flood.tif", image)


def post(client: TestClient, content: Any, accept: str = "*/*", **fields: Any) -> httpx.Response:
    files = {"scene": ("any name.tif", content), **fields}
    response: httpx.Response = client.post("/predict", files=files, headers={"Accept": accept})
    return response


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    body = io.BytesIO()
    np.save(body, array, **options)
    return body.getvalue()


def assert_refused(response: httpx.Response, status: int, message: str) -> None:
    assert response.status_code == status, response.text
    (sentence,) = response.json().values()
    assert message in sentence
    assert "Traceback" not in sentence
    assert tempfile.gettempdir() not in sentence


class TestPredict:
    """The three answers are those of `map_scene`, as `sarflood map` writes them."""

    def test_figures_are_the_default(self, client: TestClient, served: Served, scene: Path) -> None:
        answer = post(client, scene.read_bytes())
        assert answer.headers["content-type"] == "application/json"
        expected = map_scene(served.model, scene)
        assert answer.json()["flooded_km2"] == pytest.approx(expected.flooded_km2, abs=1e-6)
        assert answer.json()["version"] == "v0.1.0"

    def test_mask_as_geotiff(self, client: TestClient, served: Served, scene: Path) -> None:
        answer = post(client, scene.read_bytes(), "image/tiff")
        assert answer.headers["content-type"] == "image/tiff"
        with rasterio.MemoryFile(answer.content) as file, file.open() as mask:
            expected = map_scene(served.model, scene)
            assert (mask.crs, mask.transform) == (expected.crs, expected.transform)
            assert np.array_equal(mask.read(1), expected.mask)

    def test_polygons_as_geojson(self, client: TestClient, served: Served, scene: Path) -> None:
        answer = post(client, scene.read_bytes(), "text/html, application/geo+json;q=0.9")
        assert answer.headers["content-type"] == "application/geo+json"
        areas = [item["properties"]["area_km2"] for item in answer.json()["features"]]
        expected = map_scene(served.model, scene).flooded_km2
        assert sum(areas) == pytest.approx(expected, rel=1e-3)

    def test_with_the_scene_before(self, served: Served, tmp_path: Path) -> None:
        model, image = tiny_model(("vv", "vv_pre")), speckle(2, 100, 100)
        post_event = write_scene(tmp_path / "a.tif", image[:1], ("VV",))
        pre_event = write_scene(tmp_path / "b.tif", image[1:], ("VV",))
        with TestClient(create_api(lambda: Served(model, served.info))) as client:
            before = ("b.tif", pre_event.read_bytes())
            answer = post(client, post_event.read_bytes(), "image/tiff", pre=before)
        with rasterio.MemoryFile(answer.content) as file, file.open() as mask:
            assert np.array_equal(mask.read(1), map_scene(model, post_event, pre_event).mask)


class TestRefusedScenes:
    def test_too_large_as_announced(self, client: TestClient) -> None:
        assert_refused(post(client, b"II*\0" + bytes(16_100_000)), 413, "more than 16 MB")

    def test_too_large_whatever_was_announced(self, client: TestClient) -> None:
        def body() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="scene"; filename="a"\r\n\r\nII*\0'
            for _ in range(20):
                yield bytes(1_000_000)

        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = client.post("/predict", content=body(), headers=kind)
        assert_refused(answer, 413, "more than 16 MB")

    @pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"not a tiff", b"<VRTDataset/>"])
    def test_another_format(self, client: TestClient, content: bytes) -> None:
        assert_refused(post(client, content), 415, "scene: not a GeoTIFF")

    def test_no_form(self, client: TestClient, scene: Path) -> None:
        answer = client.post("/predict", content=scene.read_bytes())
        assert_refused(answer, 415, "send a multipart form")

    @pytest.mark.parametrize("text", ["http://127.0.0.1:9/scene.tif", "/etc/passwd", "x"])
    def test_text_where_a_file_is_meant(self, client: TestClient, text: str) -> None:
        answer = client.post("/predict", files={"scene": (None, text)})
        assert_refused(answer, 422, "scene: text; send the file itself")

    def test_no_scene(self, client: TestClient, scene: Path) -> None:
        answer = client.post("/predict", files={"pre": ("a.tif", scene.read_bytes())})
        assert_refused(answer, 422, "scene: missing")

    def test_an_unknown_field(self, client: TestClient, scene: Path) -> None:
        answer = post(client, scene.read_bytes(), post=("a.tif", scene.read_bytes()))
        assert_refused(answer, 422, "post: unknown")

    def test_a_field_twice(self, client: TestClient, scene: Path) -> None:
        twice = [("scene", ("a.tif", scene.read_bytes()))] * 2
        assert_refused(client.post("/predict", files=twice), 422, "scene: twice")

    # The form's parser leaves the unfinished file to the garbage collector.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_cut_off_form(self, client: TestClient) -> None:
        body = b'--x\r\nContent-Disposition: form-data; name="scene"; filename="a"\r\n\r\nII*\0'
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert_refused(client.post("/predict", content=body, headers=kind), 422, "scene: missing")

    def test_a_form_without_its_boundary(self, client: TestClient) -> None:
        kind = {"Content-Type": "multipart/form-data"}
        answer = client.post("/predict", content=b"abc", headers=kind)
        assert_refused(answer, 422, "not a whole multipart form")

    def test_wrong_bands(self, client: TestClient, tmp_path: Path) -> None:
        one = write_scene(tmp_path / "vv.tif", speckle(1, 100, 100), ("VV",))
        assert_refused(post(client, one.read_bytes()), 422, "scene.tif: no band vh; it has vv")

    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    def test_no_georeference(self, client: TestClient, tmp_path: Path) -> None:
        path = write_scene(tmp_path / "a.tif", speckle(2, 100, 100), crs=None, transform=None)
        assert_refused(post(client, path.read_bytes()), 422, "scene.tif: no georeference")

    def test_more_pixels_than_served(self, client: TestClient, tmp_path: Path) -> None:
        zeros = np.zeros((2, 1100, 1100), np.float32)
        path = write_scene(tmp_path / "large.tif", zeros)
        assert_refused(post(client, path.read_bytes()), 422, "at most 1 megapixels")

    @pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
    def test_a_damaged_file(self, client: TestClient, scene: Path, kept: float) -> None:
        content = scene.read_bytes()
        answer = post(client, content[: int(len(content) * kept)])
        assert_refused(answer, 422, "scene.tif: ")

    def test_a_description_that_is_no_text(self, client: TestClient, tmp_path: Path) -> None:
        scene = write_scene(tmp_path / "named.tif", speckle(2, 100, 100), ("VV", "VH"))
        spoiled = scene.read_bytes().replace(b">VV<", b">\xff\xfe<")
        assert_refused(post(client, spoiled), 422, "scene.tif: a band's description")

    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    @pytest.mark.parametrize("part", [slice(4, 1500), slice(-1500, None)], ids=["start", "end"])
    def test_flipped_bytes_never_break_the_service(
        self, client: TestClient, tmp_path: Path, part: slice
    ) -> None:
        scene = write_scene(tmp_path / "named.tif", speckle(2, 320, 300), ("VV", "VH"))
        content = bytearray(scene.read_bytes())
        places = np.arange(len(content))[part]
        generator = np.random.default_rng(5)
        for _ in range(40):
            spoiled = content.copy()
            for position in generator.choice(places, 6):
                spoiled[position] = generator.integers(256)
            answer = post(client, bytes(spoiled), "application/geo+json")
            assert answer.status_code in {200, 422}, answer.text


class TestPatches:
    def test_masks_are_those_of_the_model(self, client: TestClient, served: Served) -> None:
        patches = np.stack([speckle(2, 256, 256, seed) for seed in range(2)])
        patches[0, 0, :9] = np.nan
        for array in (patches, patches.astype(np.float16)):
            answer = client.post("/predict/patches", content=npy(array))
            masks = np.load(io.BytesIO(answer.content), allow_pickle=False)
            assert masks.dtype == np.uint8
            assert np.array_equal(masks, map_patches(served.model, array))

    def test_no_patches_are_no_masks(self, client: TestClient) -> None:
        answer = client.post("/predict/patches", content=npy(np.empty((0, 2, 256, 256), "f4")))
        assert np.load(io.BytesIO(answer.content)).shape == (0, 256, 256)

    def test_too_large(self, client: TestClient) -> None:
        body = npy(np.zeros((32, 2, 256, 256), np.float32))
        assert_refused(client.post("/predict/patches", content=body), 413, "more than 16 MB")

    @pytest.mark.parametrize("body", [b"", b"[[1, 2]]", b"PK\x03\x04"])
    def test_another_format(self, client: TestClient, body: bytes) -> None:
        assert_refused(client.post("/predict/patches", content=body), 415, "not an .npy file")

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((1, 3, 256, 256), np.float32), "send (N, 2, 256, 256)"),
            (np.zeros((2, 256, 256), np.float32), "send (N, 2, 256, 256)"),
            (np.zeros((1, 2, 64, 64), np.float32), "send (N, 2, 256, 256)"),
            (np.zeros((1, 2, 256, 256), np.uint8), "send float16 or float32"),
            (np.array([{"a": 1}], dtype=object), "damaged .npy"),
        ],
    )
    def test_wrong_arrays(
        self, client: TestClient, array: np.ndarray[Any, Any], message: str
    ) -> None:
        body = npy(array, allow_pickle=True)
        assert_refused(client.post("/predict/patches", content=body), 422, message)

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999, 2, 256, 256)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 2, 256, 256)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': oops}",
            "{'descr': '<f4', (",
            "(((",
            "'''",
            "  1\n 2",
            "-" * 9000,
        ],
    )
    def test_a_header_that_lies(self, client: TestClient, header: str) -> None:
        header = header.ljust(117) + "\n"
        body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        answer = client.post("/predict/patches", content=body + bytes(100))
        assert_refused(answer, 422, "damaged .npy")


class TestJournal:
    """What is mapped leaves a line of statistics, and nothing that the client sent."""

    @pytest.fixture
    def client(self, served: Served, tmp_path: Path) -> Iterator[TestClient]:
        with TestClient(create_api(lambda: served, Journal(tmp_path / "served"))) as client:
            yield client

    def test_each_scene_and_each_request_is_a_line(
        self, client: TestClient, scene: Path, tmp_path: Path
    ) -> None:
        summary = post(client, scene.read_bytes()).json()
        post(client, scene.read_bytes(), "image/tiff")
        patches = npy(np.stack([speckle(2, 256, 256, seed) for seed in range(2)]))
        assert client.post("/predict/patches", content=patches).status_code == 200
        one, two, three = read_journal(tmp_path / "served", "v0.1.0")
        assert one.bands == two.bands
        assert (one.pixels, three.pixels) == ((40 - 5) * 38, 2 * 32 * 32)
        assert one.wet_share == pytest.approx(summary["flooded_share"], abs=0.05)
        assert 0.5 <= one.confidence <= 1.0
        (written,) = (tmp_path / "served").iterdir()
        assert "any name" not in written.read_text("utf-8")
        assert written.stat().st_size < 10_000

    def test_what_is_refused_or_empty_leaves_none(self, client: TestClient, tmp_path: Path) -> None:
        assert client.post("/predict/patches", content=b"no").status_code == 415
        empty = npy(np.full((1, 2, 256, 256), np.nan, np.float32))
        assert client.post("/predict/patches", content=empty).status_code == 200
        assert not (tmp_path / "served").exists()

    def test_a_journal_that_cannot_be_written_fails_no_request(
        self, client: TestClient, scene: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "served").write_text("in the way")
        assert post(client, scene.read_bytes()).status_code == 200


def test_more_areas_than_an_answer_may_hold(
    client: TestClient, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sarflood.serving.app.MAX_POLYGONS", 0)
    answer = post(client, scene.read_bytes(), "application/geo+json")
    assert_refused(answer, 422, "wet areas, at most 0 are outlined; ask for image/tiff")
    assert post(client, scene.read_bytes(), "image/tiff").status_code == 200


def test_another_method_is_refused_as_all_else_is(client: TestClient) -> None:
    wrong = client.get("/predict")
    assert_refused(wrong, 405, "GET /predict: Method Not Allowed")
    assert wrong.headers["allow"] == "POST"


def test_the_model_says_what_it_is(client: TestClient) -> None:
    answer = client.get("/model").json()
    assert answer["version"] == "v0.1.0"
    assert answer["model"]["bands"] == ["vv", "vh"]
    assert answer["serving"]["max_megabytes"] == 16
