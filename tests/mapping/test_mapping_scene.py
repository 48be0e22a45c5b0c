from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.enums import Resampling
from rasterio.warp import calculate_default_transform, reproject
from rasterio.windows import Window
from tiny import UTM, mapped, speckle, tiny_model, write_scene

from sarflood.errors import InputError, SarfloodError
from sarflood.mapping import work
from sarflood.mapping.bands import open_scene
from sarflood.mapping.scales import spread_windows
from sarflood.mapping.scene import answer_strips, finished
from sarflood.model.inputs import Scaling
from sarflood.monitoring.sight import Sight


@pytest.mark.parametrize("changes", [{}, {"normalisation": "group", "width": 8}])
def test_tiles_give_what_the_whole_scene_at_once_gives(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model, image = tiny_model(**changes), speckle(2, 1300, 1200)
    found = mapped(model, write_scene(tmp_path / "scene.tif", image))
    whole = model.probabilities(image[None].astype(np.float16))[0]
    assert found.percent.std() > 10  # an answer that seams would show in
    assert np.abs(found.percent - 100 * whole).max() < 0.52
    assert (found.mask == model.masks(whole)).mean() > 0.99999
    assert found.result.flooded_km2 == pytest.approx((found.mask == 1).sum() * 1e-4, rel=1e-3)


def test_the_statistics_of_a_scene_count_each_pixel_once_though_tiles_overlap(
    tmp_path: Path,
) -> None:
    model, image = tiny_model(), speckle(2, 1300, 2000)
    image[:, 600:700, :50] = np.nan
    tiles, whole = Sight(model.manifest), Sight(model.manifest)
    mapped(model, write_scene(tmp_path / "scene.tif", image), sight=tiles)
    stored = image[None].astype(np.float16)
    whole.add(stored, model.probabilities(stored))
    one, other = tiles.seen("v0.1.0"), whole.seen("v0.1.0")
    assert one
    assert other
    assert (one.pixels, one.bands) == (other.pixels, other.bands)
    assert one.wet_share == pytest.approx(other.wet_share, abs=5e-3)
    assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


def test_what_another_engine_has_begun_is_not_gone_on_with(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", speckle(2, 2400, 100))
    model, strips = tiny_model(), list[float]()
    answer_strips(model, scene, None, folder=tmp_path / "work", last=2)
    for engine, expected in (("OpenVINO int8", 3), ("OpenVINO int8", 0)):
        other = replace(model, engine_name=engine)
        answer_strips(other, scene, None, folder=tmp_path / "work", on_progress=strips.append)
        assert len(strips) == expected
        strips.clear()
    assert finished(model, scene, None, folder=tmp_path / "work").engine == "OpenVINO int8"


def test_no_data_in_is_no_data_out_and_empty_tiles_are_not_computed(tmp_path: Path) -> None:
    image = speckle(2, 1200, 2000)
    image[:, :, :1100] = np.nan
    image[1, 600, 1500] = np.nan  # one band is enough
    model = tiny_model()
    seen: list[tuple[int, ...]] = []
    answer = model.probabilities

    def watch(images: Any, scaling: Scaling | None = None) -> Any:
        seen.append(images.shape)
        return answer(images, scaling)

    model.probabilities = watch  # type: ignore[method-assign]
    result = mapped(model, write_scene(tmp_path / "scene.tif", image))
    expected = np.isnan(image).any(axis=0)
    assert np.array_equal(result.mask == 255, expected)
    assert np.array_equal(np.isnan(result.percent), expected)
    assert len(seen) == 2  # of four tiles
    assert result.result.valid_share == pytest.approx(1 - expected.mean())


@pytest.mark.parametrize(
    ("fill", "bands", "nodata"),
    [
        (0.0, [0, 1], None),
        (-99.0, [0, 1], -99.0),
        (-99.0, [0, 1], None),
        (-99.0, [1], None),
        (255.0, [0, 1], None),
    ],
)
def test_the_edge_of_a_swath_is_no_data_as_processors_write_it(
    tmp_path: Path, fill: float, bands: list[int], nodata: float | None
) -> None:
    image = speckle(2, 200, 200)
    image[bands, :40] = fill
    result = mapped(tiny_model(), write_scene(tmp_path / "scene.tif", image, nodata=nodata))
    assert np.array_equal(np.flatnonzero((result.mask == 255).all(axis=1)), np.arange(40))


def test_what_a_mask_band_hides_is_no_data(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", speckle(2, 200, 200), nodata=None)
    hidden = np.zeros((200, 200), bool)
    hidden[30:60, 40:90] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(~hidden)
    assert np.array_equal(mapped(tiny_model(), path).mask == 255, hidden)


def test_linear_power_gives_the_map_of_its_decibels(tmp_path: Path) -> None:
    image = speckle(2, 300, 280)
    image[0, 0, :10] = np.nan
    power = np.nan_to_num(10 ** (image / 10), nan=-1.0)
    in_db = mapped(tiny_model(), write_scene(tmp_path / "db.tif", image))
    linear = mapped(tiny_model(), write_scene(tmp_path / "linear.tif", power))
    assert np.allclose(in_db.percent, linear.percent, atol=1.1, equal_nan=True)
    assert np.isnan(linear.percent[0, :10]).all()


def test_bands_are_found_by_name_in_any_order_among_others(tmp_path: Path) -> None:
    image = speckle(2, 200, 200)
    expected = mapped(tiny_model(), write_scene(tmp_path / "a.tif", image, ("VV", "VH")))
    shuffled = np.stack([np.full_like(image[0], 35.0), image[1], image[0]])
    names = ("incidence angle", "Sigma0_VH_db", "Sigma0_VV_db")
    result = mapped(tiny_model(), write_scene(tmp_path / "b.tif", shuffled, names))
    assert np.array_equal(result.mask, expected.mask)


def test_the_scene_before_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    model = tiny_model(("vv", "vv_pre", "vh"))
    image = speckle(3, 200, 200)
    together = write_scene(tmp_path / "all.tif", image, ("VV", "VV_PRE", "VH"))
    post = write_scene(tmp_path / "post.tif", image[[2, 0]], ("VH", "VV"))
    pre = write_scene(tmp_path / "pre.tif", image[[1]], ("VV",))
    assert np.array_equal(mapped(model, together).mask, mapped(model, post, pre).mask)


def test_grids_that_differ_by_less_than_a_hundredth_of_a_pixel_are_one(tmp_path: Path) -> None:
    post = write_scene(tmp_path / "post.tif", speckle(1, 100, 100))
    nearly = UTM @ Affine.translation(1e-3, 1e-3)
    pre = write_scene(tmp_path / "pre.tif", speckle(1, 100, 100, seed=1), transform=nearly)
    assert (mapped(tiny_model(("vv", "vv_pre")), post, pre).mask != 255).all()


@pytest.mark.parametrize("other", ["EPSG:32650", "EPSG:4326"])
def test_a_scene_from_before_on_another_grid_is_aligned(tmp_path: Path, other: str) -> None:
    row, col = np.mgrid[:400, :400]
    ground = (-12 + 6 * np.sin(row / 30) * np.cos(col / 40))[None].astype(np.float32)
    post = write_scene(tmp_path / "post.tif", ground, ("VV",))
    grid, width, height = calculate_default_transform(
        "EPSG:32651", other, 400, 400, *rasterio.transform.array_bounds(400, 400, UTM)
    )
    moved = np.full((1, height, width), np.nan, np.float32)
    reproject(
        ground[0],
        moved[0],
        src_transform=UTM,
        src_crs="EPSG:32651",
        dst_transform=grid,
        dst_crs=other,
        dst_nodata=np.nan,
        resampling=Resampling.cubic,
    )
    pre = write_scene(tmp_path / "pre.tif", moved, ("VV",), crs=other, transform=grid)
    model = tiny_model(("vv", "vv_pre"))
    with open_scene(model.manifest, post, pre, max_megapixels=1) as bands:
        now, before = bands.read(Window(0, 0, 400, 400))
    inner = (slice(20, -20), slice(20, -20))
    assert np.abs(now - before)[inner].max() < 0.1
    assert (mapped(model, post, pre).mask[inner] != 255).all()


def test_grey_levels_from_before_are_no_data_where_their_other_grid_does_not_reach(
    tmp_path: Path,
) -> None:
    grey = (speckle(1, 200, 200) + 40).clip(1, 255).astype(np.uint8)
    post = write_scene(tmp_path / "post.tif", grey, ("VV",), nodata=None)
    moved = UTM @ Affine.translation(100.5, 0)
    pre = write_scene(tmp_path / "pre.tif", grey, ("VV",), nodata=None, transform=moved)
    mask = mapped(tiny_model(("vv", "vv_pre"), units="uint8"), post, pre).mask
    assert (mask[:, :100] == 255).all()
    assert (mask[:, 102:] != 255).all()


def test_grey_levels_are_mapped_by_a_model_of_grey_levels(tmp_path: Path) -> None:
    image = (speckle(2, 200, 200) + 40).clip(1, 255).astype(np.uint8)
    image[:, :20] = 0
    path = write_scene(tmp_path / "scene.tif", image, nodata=0)
    result = mapped(tiny_model(units="uint8"), path)
    assert (result.mask[:20] == 255).all()
    assert (result.mask[20:] != 255).all()
    with pytest.raises(InputError, match=r"8-bit grey levels .* model needs backscatter in dB"):
        mapped(tiny_model(), path)


def test_a_strip_of_a_few_pixels_is_mapped(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", speckle(2, 3, 700), tiled=False)
    assert (mapped(tiny_model(), path).mask != 255).all()


class TestRefusals:
    """Each refusal names the file, what came, and what is needed."""

    def refused(self, match: str, scene: Path, pre: Path | None = None, **options: Any) -> None:
        with pytest.raises(InputError, match=match):
            mapped(options.pop("model", tiny_model()), scene, pre, **options)

    def test_a_missing_band(self, tmp_path: Path) -> None:
        image = speckle(1, 100, 100)
        self.refused(
            r"vv\.tif: no band vh; it has vv", write_scene(tmp_path / "vv.tif", image, ("VV",))
        )
        self.refused(
            r"x\.tif: 1 band\(s\) without a description; .* exactly vv, vh",
            write_scene(tmp_path / "x.tif", image),
        )

    def test_no_scene_from_before(self, tmp_path: Path) -> None:
        post = write_scene(tmp_path / "post.tif", speckle(2, 100, 100), ("VV", "VH"))
        model = tiny_model(("vv", "vh", "vv_pre", "vh_pre"))
        self.refused(r"no band vv_pre, vh_pre; .* as `pre`", post, model=model)

    def test_a_scene_from_before_that_the_model_does_not_use(self, tmp_path: Path) -> None:
        post = write_scene(tmp_path / "post.tif", speckle(2, 100, 100), ("VV", "VH"))
        self.refused(r"the model uses no scene from before", post, post)

    def test_a_scene_from_before_of_another_place(self, tmp_path: Path) -> None:
        post = write_scene(tmp_path / "post.tif", speckle(1, 100, 100), ("VV",))
        far = UTM @ Affine.translation(200, 0)
        pre = write_scene(tmp_path / "pre.tif", speckle(1, 100, 100), ("VV",), transform=far)
        model = tiny_model(("vv", "vv_pre"))
        self.refused(r"pre\.tif: shows another place than .*post\.tif", post, pre, model=model)

    def test_the_scene_itself_as_the_one_from_before(self, tmp_path: Path) -> None:
        scene = write_scene(tmp_path / "post.tif", speckle(1, 100, 100), ("VV",))
        (tmp_path / "folder").mkdir()
        again = tmp_path / "folder" / ".." / "post.tif"
        model = tiny_model(("vv", "vv_pre"))
        self.refused(r"post\.tif: the scene itself", scene, scene, model=model)
        self.refused(r"post\.tif: the scene itself", scene, again, model=model)

    def test_two_bands_of_one_polarisation(self, tmp_path: Path) -> None:
        names = ("Sigma0_VV_mst", "Sigma0_VH_mst", "Sigma0_VV_slv")
        self.refused(
            r"bands 1 \(Sigma0_VV_mst\) and 3 \(Sigma0_VV_slv\) are both vv",
            write_scene(tmp_path / "stack.tif", speckle(3, 100, 100), names),
        )

    @pytest.mark.parametrize("lacking", [{"crs": None}, {"transform": None}])
    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    def test_no_georeference(self, tmp_path: Path, lacking: dict[str, Any]) -> None:
        scene = write_scene(tmp_path / "scene.tif", speckle(2, 100, 100), **lacking)
        self.refused(r"scene\.tif: no georeference; name its grid", scene)

    def test_a_grid_off_the_earth(self, tmp_path: Path) -> None:
        for grid in (UTM, Affine(1e-4, 0, 500, 0, -1e-4, 10)):
            scene = write_scene(
                tmp_path / "scene.tif", speckle(2, 100, 100), crs="EPSG:4326", transform=grid
            )
            self.refused(r"scene\.tif: its grid .*EPSG:4326.* not lie on the Earth", scene)

    @pytest.mark.parametrize(("width", "height"), [(1e-30, 10), (10, 1e-3), (10, 30_000)])
    def test_pixels_of_no_radar(self, tmp_path: Path, width: float, height: float) -> None:
        grid = Affine(width, 0, 500_000, 0, -height, 1_500_000)
        scene = write_scene(tmp_path / "scene.tif", speckle(2, 100, 100), transform=grid)
        self.refused(r"scene\.tif: its pixels are .* m high, which no radar image has", scene)

    def test_values_that_are_no_backscatter(self, tmp_path: Path) -> None:
        amplitude = 10 ** (speckle(2, 100, 100) / 20) * 1000
        self.refused(
            r"uint16 pixels .*calibrate",
            write_scene(tmp_path / "a.tif", amplitude.astype(np.uint16)),
        )
        self.refused(
            r"float32 pixels .*calibrate",
            write_scene(tmp_path / "b.tif", amplitude.astype(np.float32)),
        )

    def test_no_pixel_with_data(self, tmp_path: Path) -> None:
        empty = np.full((2, 100, 100), np.nan, np.float32)
        self.refused(r"no pixel with data", write_scene(tmp_path / "scene.tif", empty))

    def test_too_many_pixels(self, tmp_path: Path) -> None:
        scene = write_scene(tmp_path / "scene.tif", speckle(2, 1200, 1200))
        self.refused(r"1200×1200 pixels; at most 1 megapixels", scene, max_megapixels=1)

    def test_blocks_that_would_fill_the_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "scene.tif"
        profile = {"driver": "GTiff", "count": 2, "dtype": "float64", "sparse_ok": True}
        with rasterio.open(
            path, "w", height=8192, width=8192, crs="EPSG:32651", transform=UTM, tiled=True,
            blockxsize=8192, blockysize=8192, compress="deflate", **profile,
        ):  # fmt: skip
            pass
        self.refused(r"blocks of 8192×8192 pixels take 1024 MB each", path)

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        scene = write_scene(tmp_path / "scene.tif", speckle(2, 600, 600))
        whole = scene.read_bytes()
        scene.write_bytes(whole[: len(whole) * 3 // 4])
        self.refused(r"scene\.tif: (damaged|not a readable)", scene)


@pytest.mark.realdata
def test_a_published_chip_is_mapped_as_it_comes(real_data: Path) -> None:
    (chip,) = (real_data / "sen1floods11" / "S1").glob("*.tif")
    found = mapped(tiny_model(), chip)
    result = found.result
    assert result.mask.shape == (512, 512)
    assert 20 < result.flooded_km2 / result.flooded_share / result.valid_share < 27  # 5 km × 5 km


@pytest.mark.realdata
def test_a_scene_of_one_polarisation_is_refused(real_data: Path) -> None:
    (crop,) = (real_data / "pyrosar").glob("*.tif")
    with pytest.raises(InputError, match=r"1 band\(s\) without a description"):
        mapped(tiny_model(), crop)


def test_pytorch_leaves_the_cores_to_an_engine(tmp_path: Path) -> None:
    model, threads = tiny_model(), torch.get_num_threads()
    seen: list[int] = []

    def engine(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        answer: torch.Tensor = model.network(inputs)
        return answer

    scene = write_scene(tmp_path / "a.tif", speckle(2, 64, 64))
    torch.set_num_threads(3)
    try:
        mapped(model, scene)
        assert torch.get_num_threads() == 3
        mapped(replace(model, engine=engine), scene)
        assert set(seen) == {1}
    finally:
        torch.set_num_threads(threads)


def test_a_full_disk_is_said_of_each_file_of_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scene = write_scene(tmp_path / "a.tif", speckle(2, 64, 64))
    monkeypatch.setattr(work, "write_json", full)
    with pytest.raises(SarfloodError, match="cannot be written: No space left on device"):
        mapped(tiny_model(), scene)


@pytest.mark.parametrize("shape", [(16_700, 25_000), (20_480, 20_480), (25_600, 15_360)])
def test_the_patches_that_tell_a_scale_lie_all_over_the_scene(shape: tuple[int, int]) -> None:
    windows = spread_windows(*shape)
    assert len(windows) == 300
    for starts, length in zip(
        zip(*((window.row_off, window.col_off) for window in windows), strict=True),
        shape,
        strict=True,
    ):
        assert len(set(starts)) > 0.8 * length / 256
    assert windows == spread_windows(*shape)
    assert len(spread_windows(600, 300)) == 6
