"""Sen1Floods11 and STAC Overflow: GeoTIFF chips in dB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from sarflood.sources.reader import BadSourceError, RawPatch
from sarflood.sources.readers import recognise

ReadAll = Callable[[Path], list[RawPatch]]
WriteRaster = Callable[..., Path]


def _db(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(-12, 2, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("images", "labels"), [("S1", "Labels"), ("", ""), ("S1Hand", "LabelHand")]
)
def test_sen1floods11_chip_is_cut_with_its_mask(
    tmp_path: Path,
    write_raster: WriteRaster,
    read_all: ReadAll,
    rng: np.random.Generator,
    images: str,
    labels: str,
) -> None:
    image, mask = _db(rng, 2, 512, 512), rng.integers(-1, 2, (512, 512)).astype(np.int16)
    image[:, :5] = np.nan
    write_raster(tmp_path / images / "São Tomé_7_S1Hand.tif", image, ("VV", "VH"))
    write_raster(tmp_path / labels / "São Tomé_7_LabelHand.tif", mask)
    facts = recognise(tmp_path).facts(tmp_path)
    assert (facts.bands, facts.units, facts.label) == (("vv", "vh"), "db", "water")
    patches = read_all(tmp_path)
    assert [(patch.name, patch.row, patch.col) for patch in patches] == [
        ("São Tomé_7-0-0", 0, 0),
        ("São Tomé_7-0-1", 0, 1),
        ("São Tomé_7-1-0", 1, 0),
        ("São Tomé_7-1-1", 1, 1),
    ]
    assert {patch.grid for patch in patches} == {"São Tomé_7"}
    last = patches[3]
    np.testing.assert_array_equal(last.image, image[:, 256:, 256:])
    np.testing.assert_array_equal(last.mask, mask[256:, 256:].astype(np.uint8))  # −1 becomes 255
    assert np.isnan(patches[0].image[:, :5]).all()
    assert last.crs == "EPSG:32651"
    assert last.transform == Affine(10, 0, 302_560, 0, -10, 1_797_440)


def test_bands_are_told_by_description(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    image = _db(rng, 2, 256, 256)
    write_raster(tmp_path / "A_1_S1Hand.tif", image, ("VH", "VV"))
    (patch,) = read_all(tmp_path)
    np.testing.assert_array_equal(patch.image, image[::-1])


def test_small_chip_is_padded_and_has_no_grid(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    write_raster(tmp_path / "A_1_S1Hand.tif", _db(rng, 2, 224, 200))
    write_raster(tmp_path / "A_1_LabelHand.tif", np.ones((224, 200), np.int16))
    (patch,) = read_all(tmp_path)
    assert patch.grid is None
    assert np.isfinite(patch.image[:, :224, :200]).all()
    assert np.isnan(patch.image[:, 224:]).all()
    assert np.isnan(patch.image[:, :, 200:]).all()
    assert patch.mask is not None
    assert patch.mask[:224, :200].all()
    assert (patch.mask[224:] == 255).all()
    assert (patch.mask[:, 200:] == 255).all()


def test_stac_overflow_zero_in_both_bands_is_no_data(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    bands = _db(rng, 2, 256, 256)
    bands[:, 0] = 0
    bands[0, 1] = 0  # one band alone may be exactly 0 dB
    mask = np.zeros((256, 256), np.uint8)
    mask[:, 3], mask[:, 4] = 1, 255
    write_raster(tmp_path / "ab c_vv.tif", bands[0])
    write_raster(tmp_path / "ab c_vh.tif", bands[1])
    write_raster(tmp_path / "ab c.tif", mask, nodata=255)
    assert recognise(tmp_path).layout == "stac-overflow"
    (patch,) = read_all(tmp_path)
    assert patch.name == "ab c"
    assert np.isnan(patch.image[:, 0]).all()
    assert np.isfinite(patch.image[:, 1:]).all()
    np.testing.assert_array_equal(patch.mask, mask)


def test_chips_without_any_mask_are_unlabelled(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    write_raster(tmp_path / "a_vv.tif", _db(rng, 256, 256))
    write_raster(tmp_path / "a_vh.tif", _db(rng, 256, 256))
    assert recognise(tmp_path).facts(tmp_path).label is None
    (patch,) = read_all(tmp_path)
    assert patch.mask is None


def test_every_file_is_in_one_item_and_the_incomplete_are_refused(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    for name in ("whole_vv", "whole_vh", "lone_vh", "pair_vv", "pair_vh"):
        write_raster(tmp_path / f"{name}.tif", _db(rng, 8, 8))
    for name in ("whole", "mask"):
        write_raster(tmp_path / f"{name}.tif", np.zeros((8, 8), np.uint8))
    write_raster(tmp_path / "stray.png", np.zeros((8, 8), np.uint8))
    (tmp_path / ".hidden_vv.tif").write_bytes(b"")
    reader = recognise(tmp_path)
    items = list(reader.items(tmp_path))
    assert sorted(path.name for item in items for path in item.files) == sorted(
        path.name for path in tmp_path.iterdir() if path.name != ".hidden_vv.tif"
    )
    outcome: dict[str, int | str] = {}
    for item in items:
        try:
            outcome[item.name] = len(list(reader.read(item)))
        except BadSourceError as error:
            outcome[item.name] = str(error)
    assert outcome["whole"] == 1
    assert "<id>_vv.tif and <id>.tif of it missing" in str(outcome["lone"])
    assert "<id>.tif of it missing" in str(outcome["pair"])
    assert "<id>_vv.tif and <id>_vh.tif of it missing" in str(outcome["mask"])
    assert "no name of this layout" in str(outcome["stray.png"])


def _spoil_text(path: Path, write: WriteRaster) -> None:
    path.write_text("not a raster")


def _spoil_cut(path: Path, write: WriteRaster) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _spoil_type(path: Path, write: WriteRaster) -> None:
    write(path, np.zeros((64, 64), np.uint16))


def _spoil_size(path: Path, write: WriteRaster) -> None:
    write(path, np.zeros((64, 60), np.float32))


def _spoil_place(path: Path, write: WriteRaster) -> None:
    write(path, np.zeros((64, 64), np.float32), transform=Affine(10, 0, 0, 0, -10, 0))


def _spoil_bands(path: Path, write: WriteRaster) -> None:
    write(path, np.zeros((3, 64, 64), np.float32))


def _spoil_folder(path: Path, write: WriteRaster) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_spoil_text, "neither GeoTIFF nor PNG"),
        (_spoil_cut, "damaged or truncated|not a readable GTiff"),
        (_spoil_type, "pixels of type uint16; this layout has float32 or float64"),
        (_spoil_size, "64×60 against 64×64 pixels"),
        (_spoil_place, "not on the grid of .*: transform"),
        (_spoil_bands, r"3 band\(s\) where 1 belong"),
        (_spoil_folder, "not a regular file"),
    ],
)
def test_bad_file_is_refused_by_name_and_the_next_chip_is_read(
    tmp_path: Path,
    write_raster: WriteRaster,
    rng: np.random.Generator,
    spoil: Callable[[Path, WriteRaster], None],
    says: str,
) -> None:
    for chip in ("a", "b"):
        write_raster(tmp_path / f"{chip}_vv.tif", _db(rng, 64, 64))
        write_raster(tmp_path / f"{chip}_vh.tif", _db(rng, 64, 64))
    spoil(tmp_path / "a_vh.tif", write_raster)
    reader = recognise(tmp_path)
    bad, good = reader.items(tmp_path)
    with pytest.raises(BadSourceError, match=says) as refused:
        list(reader.read(bad))
    assert "a_vh.tif" in str(refused.value)
    assert len(list(reader.read(good))) == 1


def test_mask_with_other_values_is_refused_with_the_allowed_ones(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, rng: np.random.Generator
) -> None:
    write_raster(tmp_path / "A_1_S1Hand.tif", _db(rng, 2, 16, 16))
    label = write_raster(tmp_path / "A_1_LabelHand.tif", np.full((16, 16), 2, np.int16))
    with pytest.raises(BadSourceError, match="mask values 2; allowed are -1, 0, 1"):
        read_all(tmp_path)
    write_raster(label, np.zeros((16, 16), np.int16), nodata=0)
    with pytest.raises(BadSourceError, match="nodata tag 0 hides a class"):
        read_all(tmp_path)


def test_link_that_leaves_the_source_is_refused_unread(
    tmp_path: Path, write_raster: WriteRaster, rng: np.random.Generator
) -> None:
    outside = write_raster(tmp_path / "secret" / "x.tif", _db(rng, 16, 16))
    source = tmp_path / "source"
    write_raster(source / "a_vv.tif", _db(rng, 16, 16))
    (source / "a_vh.tif").symlink_to(outside)
    write_raster(source / "kept" / "real.tif", _db(rng, 16, 16))
    write_raster(source / "b_vv.tif", _db(rng, 16, 16))
    (source / "b_vh.tif").symlink_to(source / "kept" / "real.tif")
    reader = recognise(source)
    escaping, inside = reader.items(source)
    with pytest.raises(BadSourceError, match="link that leaves the source folder"):
        list(reader.read(escaping))
    assert len(list(reader.read(inside))) == 1
