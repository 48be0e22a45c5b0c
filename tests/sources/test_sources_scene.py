"""Scenes that are cut into patches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from sarflood.sources.pixels import cut_patches
from sarflood.sources.reader import BadSourceError, RawPatch
from sarflood.sources.readers import recognise

ReadAll = Callable[[Path], list[RawPatch]]
WriteRaster = Callable[..., Path]


def _scene(
    write: WriteRaster, folder: Path, rng: np.random.Generator, shape: tuple[int, int] = (300, 520)
) -> dict[str, np.ndarray]:
    files = {
        "scene.tif": rng.normal(-12, 2, (2, *shape)).astype(np.float32),
        "pre.tif": rng.normal(-10, 2, (2, *shape)).astype(np.float32),
        "mask.tif": rng.choice(np.array([0, 1, 255], np.uint8), shape),
    }
    for name, values in files.items():
        write(folder / name, values, ("VV", "VH") if values.ndim == 3 else None)
    return files


def test_scene_with_mask_and_pre_event_image(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    folder = tmp_path / "Nueva Écija"
    files = _scene(write_raster, folder, rng)
    facts = recognise(folder).facts(folder)
    assert facts.bands == ("vv", "vh", "vv_pre", "vh_pre")
    assert (facts.units, facts.label, facts.origin.name) == ("db", "water", "Nueva Écija")
    patches = read_all(folder)
    assert [(patch.row, patch.col) for patch in patches] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)
    ]  # fmt: skip
    corner = patches[5]
    assert (corner.name, corner.grid) == ("Nueva Écija-1-2", "Nueva Écija")
    np.testing.assert_array_equal(corner.image[:2, :44, :8], files["scene.tif"][:, 256:, 512:])
    np.testing.assert_array_equal(corner.image[2:, :44, :8], files["pre.tif"][:, 256:, 512:])
    assert np.isnan(corner.image[:, 44:]).all()
    assert np.isnan(corner.image[:, :, 8:]).all()
    assert corner.mask is not None
    np.testing.assert_array_equal(corner.mask[:44, :8], files["mask.tif"][256:, 512:])
    assert (corner.mask[44:] == 255).all()
    assert corner.crs == "EPSG:32651"
    assert corner.transform == Affine(10, 0, 305_120, 0, -10, 1_797_440)


def test_label_is_what_the_mask_says(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    _scene(write_raster, tmp_path, rng)
    mask = np.zeros((300, 520), np.uint8)
    write_raster(tmp_path / "mask.tif", mask, tags={"SARFLOOD_LABEL": "flood"})
    assert recognise(tmp_path).facts(tmp_path).label == "flood"
    write_raster(tmp_path / "mask.tif", mask, tags={"SARFLOOD_LABEL": "lava"})
    reader = recognise(tmp_path)
    with pytest.raises(BadSourceError, match=r"mask.tif: tag SARFLOOD_LABEL is 'lava'; allowed"):
        list(reader.read(next(reader.items(tmp_path))))


@pytest.mark.parametrize("name", ["pre.tif", "mask.tif"])
@pytest.mark.parametrize("wrong", ["shape", "place", "crs"])
def test_files_must_share_the_grid(
    tmp_path: Path,
    write_raster: WriteRaster,
    read_all: ReadAll,
    rng: np.random.Generator,
    name: str,
    wrong: str,
) -> None:
    values = _scene(write_raster, tmp_path, rng)[name]
    shifted = Affine(10, 0, 300_005, 0, -10, 1_800_000)
    if wrong == "shape":
        write_raster(tmp_path / name, values[..., :-1])
    elif wrong == "place":
        write_raster(tmp_path / name, values, transform=shifted)
    else:
        write_raster(tmp_path / name, values, crs="EPSG:32650")
    with pytest.raises(BadSourceError, match=rf"{name}: not on the grid of .*scene\.tif"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("values", "units"),
    [
        (np.full((2, 300, 300), -9.0, np.float32), "db"),
        (np.full((2, 300, 300), 0.1, np.float64), "linear"),
        (np.full((2, 300, 300), 90, np.uint8), "uint8"),
        (np.where(np.arange(300) < 200, -99.0, -9.0) * np.ones((2, 300, 1), np.float32), "db"),
        (np.where(np.arange(300) < 200, -9999.0, 0.1) * np.ones((2, 300, 1), np.float32), "linear"),
    ],
)
def test_units_of_a_single_geotiff(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, values: np.ndarray, units: str
) -> None:
    path = write_raster(tmp_path / "my scene.tif", values)
    facts = recognise(path).facts(path)
    assert (facts.units, facts.label, facts.bands) == (units, None, ("vv", "vh"))
    patches = read_all(path)
    assert patches[0].name == "my scene-0-0"
    assert all(patch.mask is None for patch in patches)


def test_a_few_negative_values_do_not_make_power_decibels(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    power = rng.gamma(4.0, 0.02, (2, 300, 300)).astype(np.float32)
    power[:, ::4, ::4][:, :5] = -0.001  # as the removal of thermal noise leaves some
    power[:, 200:] = 0
    path = write_raster(tmp_path / "scene.tif", power, ("VV", "VH"))
    assert recognise(path).facts(path).units == "linear"


def test_a_scene_without_data_is_refused(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll
) -> None:
    path = write_raster(tmp_path / "scene.tif", np.full((2, 300, 300), np.nan, np.float32))
    with pytest.raises(BadSourceError, match=r"scene\.tif: no pixel with data"):
        read_all(path)


def test_the_edge_of_a_swath_that_is_0_in_all_bands_is_no_data(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    files = _scene(write_raster, tmp_path, rng, (256, 256))
    image = files["scene.tif"]
    image[:, :40] = 0
    image[0, 40] = 0  # one band alone may be exactly 0 dB
    write_raster(tmp_path / "scene.tif", image)
    (patch,) = read_all(tmp_path)
    assert np.isnan(patch.image[:2, :40]).all()
    assert np.isfinite(patch.image[:2, 40:]).all()
    np.testing.assert_array_equal(patch.image[2:], files["pre.tif"])


def test_bands_are_told_by_names_as_processors_write_them(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    image = rng.normal(-12, 2, (3, 256, 256)).astype(np.float32)
    names = ("Sigma0_VH_db", "incidence angle", "Sigma0_VV_db")
    path = write_raster(tmp_path / "scene.tif", image, names)
    (patch,) = read_all(path)
    np.testing.assert_array_equal(patch.image, image[[2, 0]])
    write_raster(path, image, ("Sigma0_VV_mst", "Sigma0_VV_slv", "Sigma0_VH_mst"))
    with pytest.raises(BadSourceError, match=r"1 \(Sigma0_VV_mst\) and 2 \(Sigma0_VV_slv\)"):
        read_all(path)
    write_raster(path, image[:2], ("Sigma0_VV_db", "Sigma0_HH_db"))
    with pytest.raises(BadSourceError, match="need one VV and one VH"):
        read_all(path)


def test_other_rasters_in_the_folder_are_refused_and_not_passed_over(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    files = _scene(write_raster, tmp_path, rng)
    (tmp_path / "mask.tif").rename(tmp_path / "Mask.tiff")
    (tmp_path / "notes.txt").touch()
    reader = recognise(tmp_path)
    assert reader.facts(tmp_path).label is None
    scene, stray = reader.items(tmp_path)
    assert [path.name for path in scene.files] == ["scene.tif", "pre.tif"]
    assert len(files) == 3
    with pytest.raises(BadSourceError, match=r"Mask\.tiff: not one of .*mask\.tif.*; rename"):
        list(reader.read(stray))


def test_pre_event_image_in_other_units_is_refused(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    _scene(write_raster, tmp_path, rng)
    write_raster(tmp_path / "pre.tif", np.full((2, 300, 520), 0.1, np.float32))
    with pytest.raises(BadSourceError, match=r"pre\.tif: not in db as .*scene\.tif is"):
        read_all(tmp_path)


def test_bands_that_cannot_be_told_are_refused(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    path = write_raster(tmp_path / "one.tif", rng.normal(-12, 2, (64, 64)).astype(np.float32))
    with pytest.raises(BadSourceError, match=r"1 band\(s\).*need one VV and one VH"):
        read_all(path)
    write_raster(path, np.zeros((2, 64, 64), np.int16))
    with pytest.raises(BadSourceError, match=r"int16 pixels .* neither dB"):
        read_all(path)


def test_damaged_scene_is_listed_and_refused(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    _scene(write_raster, tmp_path, rng)
    (tmp_path / "scene.tif").write_bytes(b"II*\x00 and no more")
    reader = recognise(tmp_path)
    assert reader.facts(tmp_path).bands == ("vv", "vh", "vv_pre", "vh_pre")
    (item,) = reader.items(tmp_path)
    assert [path.name for path in item.files] == ["scene.tif", "pre.tif", "mask.tif"]
    with pytest.raises(BadSourceError, match=r"scene\.tif: not a readable GTiff"):
        list(reader.read(item))


def test_scene_link_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").symlink_to(tmp_path / "gone.tif")
    reader = recognise(tmp_path)
    (item,) = reader.items(tmp_path)
    with pytest.raises(BadSourceError, match=r"scene\.tif: cannot be read: No such file"):
        list(reader.read(item))
    assert reader.facts(tmp_path).label is None


def test_scene_is_read_through_a_link_that_the_user_names(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    _scene(write_raster, tmp_path / "real", rng)
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "file.tif").symlink_to(tmp_path / "real" / "scene.tif")
    assert len(read_all(tmp_path / "folder")) == 6
    assert read_all(tmp_path / "links" / "file.tif")[0].name == "file-0-0"


def test_float_mask_with_nan_is_unknown_there(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    _scene(write_raster, tmp_path, rng)
    mask = np.zeros((300, 520), np.float32)
    mask[0], mask[1] = np.nan, 1
    write_raster(tmp_path / "mask.tif", mask, nodata=np.nan)
    patch = read_all(tmp_path)[0]
    assert patch.mask is not None
    assert patch.mask[:3, 0].tolist() == [255, 1, 0]


sizes = st.integers(1, 600)


@settings(max_examples=15, deadline=None, database=None)
@given(height=sizes, width=sizes, seed=st.integers(0, 99))
def test_patches_put_together_are_the_chip(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, height, width)).astype(np.float32)
    mask = rng.integers(0, 2, (height, width)).astype(np.uint8)
    _assert_whole(list(cut_patches("chip", image, mask)), image, mask)


@settings(max_examples=8, deadline=None, database=None)
@given(height=sizes, width=sizes, seed=st.integers(0, 99))
def test_patches_put_together_are_the_scene(
    write_raster: WriteRaster, read_all: ReadAll, height: int, width: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        files = _scene(write_raster, Path(name), np.random.default_rng(seed), (height, width))
        image = np.concatenate([files["scene.tif"], files["pre.tif"]])
        _assert_whole(read_all(Path(name)), image, files["mask.tif"])


def _assert_whole(patches: list[RawPatch], image: np.ndarray, mask: np.ndarray) -> None:
    rows, cols = -(-image.shape[1] // 256), -(-image.shape[2] // 256)
    whole = np.full((len(image), rows * 256, cols * 256), 7777, np.float32)
    known = np.full(whole.shape[1:], 77, np.uint8)
    for patch in patches:
        at = np.s_[patch.row * 256 : patch.row * 256 + 256, patch.col * 256 : patch.col * 256 + 256]
        assert (known[at] == 77).all()  # no patch twice
        whole[:, *at] = patch.image
        known[at] = patch.mask
    np.testing.assert_array_equal(whole[:, : image.shape[1], : image.shape[2]], image)
    np.testing.assert_array_equal(known[: mask.shape[0], : mask.shape[1]], mask)
    assert np.isnan(whole).sum() == whole.size - image.size
    assert (known == 255).sum() == known.size - (mask != 255).sum()
