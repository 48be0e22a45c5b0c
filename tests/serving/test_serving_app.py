from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from fastapi.testclient import TestClient
from scipy.ndimage import label
from tiny import (
    LIMITS,
    UTM,
    by_torch,
    full_disk,
    mapped,
    naming_a_grid,
    speckle,
    tiny_model,
    write_scene,
)

from sarflood.mapping.patches import map_patches
from sarflood.monitoring.journal import Journal, read_journal
from sarflood.serving.app import create_api
from sarflood.serving.served import BundleInfo, Served


@pytest.fixture
def served() -> Served:
    return Served(by_torch(tiny_model()), BundleInfo(version="v0.1.0", serving=LIMITS))


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
    """The answers are those of `map_scene`, as `sarflood map` writes them."""

    def test_figures_are_the_default(self, client: TestClient, served: Served, scene: Path) -> None:
        answer = post(client, scene.read_bytes())
        assert answer.headers["content-type"] == "application/json"
        expected, found = mapped(served.model, scene), answer.json()
        assert found["flooded_km2"] == pytest.approx(expected.result.flooded_km2, abs=1e-6)
        assert found["version"] == "v0.1.0"
        assert found["polygons"] == label(expected.mask == 1)[1] > 1
        sure = np.nanmean(np.maximum(expected.percent, 100 - expected.percent)) / 100
        assert found["confidence"] == pytest.approx(sure, abs=0.02)
        assert found["outside_training_range"] is None
        assert {"upload", "waiting for a turn", "all", "network"} <= found["seconds"].keys()

    def test_what_lies_beyond_the_training_is_told(self, served: Served, tmp_path: Path) -> None:
        image = speckle(2, 256, 256)
        image[0, :64], image[1, -64:] = 10.0, -50.0
        image[:, 64:128] = np.nan
        known = replace(served, ranges={"vv": (-40.0, 5.0), "vh": (-40.0, 5.0)})
        with TestClient(create_api(lambda: known)) as client:
            figures = post(client, write_scene(tmp_path / "a.tif", image).read_bytes()).json()
        assert figures["outside_training_range"] == pytest.approx(2 / 3, abs=0.01)

    def test_mask_as_geotiff(self, client: TestClient, served: Served, scene: Path) -> None:
        answer = post(client, scene.read_bytes(), "image/tiff")
        assert answer.headers["content-type"] == "image/tiff"
        with rasterio.MemoryFile(answer.content) as file, file.open() as mask:
            expected = mapped(served.model, scene)
            assert (mask.crs, mask.transform) == (expected.result.crs, expected.result.transform)
            assert np.array_equal(mask.read(1), expected.mask)

    def test_polygons_as_geojson(self, client: TestClient, served: Served, scene: Path) -> None:
        answer = post(client, scene.read_bytes(), "text/html, application/geo+json;q=0.9")
        assert answer.headers["content-type"] == "application/geo+json"
        areas = [item["properties"]["area_km2"] for item in answer.json()["features"]]
        expected = mapped(served.model, scene).result.flooded_km2
        assert sum(areas) == pytest.approx(expected, rel=1e-3)

    def test_probability_as_geotiff(self, client: TestClient, served: Served, scene: Path) -> None:
        answer = post(client, scene.read_bytes(), "image/tiff; product=probability")
        assert answer.headers["content-type"] == "image/tiff; product=probability"
        with rasterio.MemoryFile(answer.content) as file, file.open() as percent:
            expected = mapped(served.model, scene).percent
            known = percent.read(1) != 255
            assert np.array_equal(known, np.isfinite(expected))
            assert np.array_equal(percent.read(1)[known], expected[known])
            assert percent.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"

    def test_a_file_for_each_polarisation(
        self, client: TestClient, served: Served, scene: Path, tmp_path: Path
    ) -> None:
        with rasterio.open(scene) as both:
            image = both.read()
        image[0, 100, 100] = 0.0  # both bands are 0 dB where a swath has ended, one alone may be
        files = {
            f"scene_{name}": write_scene(tmp_path / f"{name}.tif", band[None]).read_bytes()
            for name, band in zip(("vv", "vh"), image, strict=True)
        }
        answer = client.post("/predict", files=files, headers={"Accept": "image/tiff"})
        with rasterio.MemoryFile(answer.content) as file, file.open() as mask:
            whole = write_scene(tmp_path / "whole.tif", image)
            assert np.array_equal(mask.read(1), mapped(served.model, whole).mask)

    def test_a_file_for_each_polarisation_of_each_date(
        self, served: Served, tmp_path: Path
    ) -> None:
        model, image = tiny_model(("vv", "vh", "vv_pre", "vh_pre")), speckle(4, 100, 100)
        names = ("scene_vv", "scene_vh", "pre_vv", "pre_vh")
        files = {
            name: write_scene(tmp_path / f"{name}.tif", band[None]).read_bytes()
            for name, band in zip(names, image, strict=True)
        }
        with TestClient(create_api(lambda: Served(by_torch(model), served.info))) as client:
            answer = client.post("/predict", files=files, headers={"Accept": "image/tiff"})
            del files["pre_vh"]
            lacks = client.post("/predict", files=files)
        with rasterio.MemoryFile(answer.content) as file, file.open() as mask:
            whole = write_scene(tmp_path / "whole.tif", image)
            assert np.array_equal(mask.read(1), mapped(model, whole).mask)
        assert_refused(lacks, 422, "pre_vv.tif: no file for the band vh_pre")

    def test_with_the_scene_before(self, served: Served, tmp_path: Path) -> None:
        model, image = tiny_model(("vv", "vv_pre")), speckle(2, 100, 100)
        post_event = write_scene(tmp_path / "a.tif", image[:1], ("VV",))
        pre_event = write_scene(tmp_path / "b.tif", image[1:], ("VV",))
        with TestClient(create_api(lambda: Served(by_torch(model), served.info))) as client:
            before = ("b.tif", pre_event.read_bytes())
            answer = post(client, post_event.read_bytes(), "image/tiff", pre=before)
        with rasterio.MemoryFile(answer.content) as file, file.open() as mask:
            assert np.array_equal(mask.read(1), mapped(model, post_event, pre_event).mask)


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

    def test_two_forms_of_one_date(self, client: TestClient, scene: Path) -> None:
        both = post(client, scene.read_bytes(), scene_vh=("a.tif", scene.read_bytes()))
        assert_refused(both, 422, "scene.tif, scene_vh.tif: the same date twice")

    def test_a_polarisation_alone(self, client: TestClient, tmp_path: Path) -> None:
        vh = write_scene(tmp_path / "vh.tif", speckle(1, 100, 100)).read_bytes()
        alone = client.post("/predict", files={"scene_vh": ("a.tif", vh)})
        assert_refused(alone, 422, "scene_vh.tif: no file for the band vv")

    def test_no_answer_that_the_client_can_read(self, client: TestClient, scene: Path) -> None:
        assert_refused(post(client, scene.read_bytes(), "text/html"), 406, "answers are")

    def test_an_unknown_field(self, client: TestClient, scene: Path) -> None:
        answer = post(client, scene.read_bytes(), post=("a.tif", scene.read_bytes()))
        assert_refused(answer, 422, "'post': unknown")

    def test_a_field_twice(self, client: TestClient, scene: Path) -> None:
        twice = [("scene", ("a.tif", scene.read_bytes()))] * 2
        assert_refused(client.post("/predict", files=twice), 422, "'scene': twice")

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
        assert_refused(post(client, path.read_bytes()), 413, "at most 1 megapixels")

    def test_wider_than_served(self, client: TestClient, tmp_path: Path) -> None:
        path = write_scene(tmp_path / "wide.tif", np.full((2, 1, 50_001), -9, np.float32))
        assert_refused(post(client, path.read_bytes()), 413, "50001 pixels wide; at most 50,000")

    def test_packed_to_do_harm(self, served: Served, tmp_path: Path) -> None:
        path = tmp_path / "sparse.tif"
        shape = {"height": 9000, "width": 9000, "count": 2, "dtype": "float32"}
        with rasterio.open(
            path, "w", driver="GTiff", crs="EPSG:32651", transform=UTM, sparse_ok=True, **shape
        ):
            pass
        assert path.stat().st_size < 200_000
        roomy = served.info.serving.model_copy(update={"max_megapixels": 100})
        info = served.info.model_copy(update={"serving": roomy})
        with TestClient(create_api(lambda: replace(served, info=info))) as client:
            assert_refused(post(client, path.read_bytes()), 413, "times as large when it is unpa")

    def test_a_grid_that_names_a_file_on_this_machine(
        self, client: TestClient, tmp_path: Path
    ) -> None:
        canary = tmp_path / "grid.gsb"
        canary.write_bytes(bytes(1000))
        os.utime(canary, (0, 0))
        named = naming_a_grid(tmp_path / "named.tif", canary)
        assert_refused(post(client, named), 422, "scene.tif: its CRS names a file")
        assert canary.stat().st_atime == 0

    @pytest.mark.parametrize("charset", ["undefined", "idna", "utf-16", "unicode_escape", "zlib"])
    def test_a_form_in_an_odd_code(self, client: TestClient, charset: str) -> None:
        body = (
            b'--x\r\nContent-Disposition: form-data; name="\xe9\\ud800"; filename=a\r\n\r\n'
            b"II*\0\r\n--x--\r\n"
        )
        kind = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
        assert_refused(client.post("/predict", content=body, headers=kind), 422, "")

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

    def test_nothing_else_is_taken_for_an_array(self, client: TestClient) -> None:
        body = npy(np.zeros((1, 2, 256, 256), np.float32))
        for kind in ("application/vnd.bentoml+pickle", "application/json", "image/tiff"):
            answer = client.post("/predict/patches", content=body, headers={"Content-Type": kind})
            assert_refused(answer, 415, f"of type '{kind}'; send what numpy.save writes")

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
    monkeypatch.setattr("sarflood.serving.answers.MAX_POLYGONS", 0)
    answer = post(client, scene.read_bytes(), "application/geo+json")
    assert_refused(answer, 422, "more than 0 wet areas, which are not outlined; ask for image/tiff")
    assert post(client, scene.read_bytes(), "image/tiff").status_code == 200


def test_another_method_is_refused_as_all_else_is(client: TestClient) -> None:
    wrong = client.get("/predict")
    assert_refused(wrong, 405, "GET /predict: Method Not Allowed")
    assert wrong.headers["allow"] == "POST"


def test_the_model_says_what_it_is(client: TestClient) -> None:
    answer = client.get("/model").json()
    assert answer["version"] == "v0.1.0"
    assert answer["bands"] == answer["model"]["bands"] == ["vv", "vh"]
    assert answer["threshold"] == 0.5
    assert answer["stage"] is None
    assert answer["serving"]["max_megabytes"] == 16
    assert answer["lineage"]["tag"] == "flood-unet@v0.1.0"
    assert answer["lineage"]["trained_on"] == []


class TestLimits:
    """Time, places and the disk end; the service says so and goes on."""

    def within(self, served: Served, max_seconds: float) -> Served:
        limits = served.info.serving.model_copy(update={"max_seconds": max_seconds})
        return replace(served, info=served.info.model_copy(update={"serving": limits}))

    def test_a_scene_that_takes_too_long(self, served: Served, scene: Path) -> None:
        late = served.model.probabilities

        def slow(*arguments: Any) -> Any:
            time.sleep(1.1)
            return late(*arguments)

        served.model.probabilities = slow  # type: ignore[method-assign, assignment]
        with TestClient(create_api(lambda: self.within(served, 1.0))) as client:
            assert_refused(post(client, scene.read_bytes()), 413, "not mapped within 1 s")

    def test_a_full_disk(self, client: TestClient, tmp_path: Path) -> None:
        scene = write_scene(tmp_path / "a.tif", speckle(2, 320, 300)).read_bytes()
        assert len(scene) > 100_000
        with full_disk():
            answer = post(client, scene)
        assert_refused(answer, 503, "the service: ")
        assert post(client, scene).status_code == 200


def test_answers_are_counted(client: TestClient, scene: Path) -> None:
    def counted(name: str) -> float:
        page = client.get("/metrics").text
        lines = (line.split() for line in page.splitlines() if line.startswith(f"{name} "))
        return sum(float(value) for _, value in lines)

    before = counted("sarflood_images_total")
    assert post(client, scene.read_bytes()).status_code == 200
    assert counted("sarflood_images_total") == before + 1
    assert counted("sarflood_wet_share_count") >= 1
