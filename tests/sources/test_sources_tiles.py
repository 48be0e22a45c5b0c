"""OMBRIA and ETCI 2021: 8-bit PNG tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sarflood.sources.reader import BadSourceError, RawPatch
from sarflood.sources.readers import recognise

ReadAll = Callable[[Path], list[RawPatch]]
WriteRaster = Callable[..., Path]
PUBLISHED = ("S1_after_{:04d}", "S1_before_{:04d}", "S1_mask_{:04d}")
LATER = ("imafter_{}", "imbefore_{}", "gt_{}")
SCENE = "north al_20190302t234651"


def _ombria(
    write: WriteRaster, part: Path, numbers: list[int], names: tuple[str, str, str] = PUBLISHED
) -> None:
    for number in numbers:
        for role, name in zip(("AFTER", "BEFORE", "MASK"), names, strict=True):
            tile = np.full((256, 256), 20 if role == "AFTER" else 90, np.uint8)
            if role == "MASK":
                tile[:] = 0
                tile[:, :64] = 255
            write(part / role / f"{name.format(number)}.png", tile)


def _etci(write: WriteRaster, tiles: Path, places: list[tuple[int, int]], **grey: int) -> None:
    for row, col in places:
        stem = f"{SCENE}_x-{row}_y-{col}"
        for role in ("vv", "vh", "flood_label"):
            tile = np.full((3, 256, 256), grey.get(role, 60), np.uint8)
            tile[:, 0] = 255
            if role == "flood_label":
                tile[:, 1:] = 0
                tile[:, 1:3] = 255
            suffix = "" if role == "flood_label" else f"_{role}"
            write(tiles / role / f"{stem}{suffix}.png", tile)


def test_ombria_parts_are_read_in_the_order_of_their_numbers(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll
) -> None:
    _ombria(write_raster, tmp_path / "train", [1, 3, 12])
    _ombria(write_raster, tmp_path / "test", [2, 10])
    facts = recognise(tmp_path).facts(tmp_path)
    assert (facts.bands, facts.units, facts.label) == (("vv", "vv_pre"), "uint8", "flood")
    patches = read_all(tmp_path)
    names = [patch.name for patch in patches]
    assert names == ["00001-train", "00002-test", "00003-train", "00010-test", "00012-train"]
    assert names == sorted(names)
    first = patches[0]
    assert (first.image[0] == 20).all()  # after comes first
    assert (first.image[1] == 90).all()
    assert first.mask is not None
    assert (first.mask[:, :64] == 1).all()
    assert not first.mask[:, 64:].any()
    assert (first.grid, first.crs, first.transform) == (None, None, None)


def test_ombria_one_part_and_later_naming(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll
) -> None:
    _ombria(write_raster, tmp_path / "FRANCE", [0, 2, 10], LATER)
    _ombria(write_raster, tmp_path / "GUYANA", [1], LATER)
    assert [patch.name for patch in read_all(tmp_path / "FRANCE")] == ["00000", "00002", "00010"]
    assert [patch.name for patch in read_all(tmp_path)] == [
        "FRANCE-00000",
        "FRANCE-00002",
        "FRANCE-00010",
        "GUYANA-00001",
    ]


def test_ombria_incomplete_stray_and_twice(tmp_path: Path, write_raster: WriteRaster) -> None:
    _ombria(write_raster, tmp_path, [1, 2])
    (tmp_path / "BEFORE" / "S1_before_0001.png").unlink()
    (tmp_path / "MASK" / "S1_mask_0002.png").rename(tmp_path / "MASK" / "S1_mask_2.png")
    write_raster(tmp_path / "MASK" / "gt_2.png", np.zeros((256, 256), np.uint8))
    write_raster(tmp_path / "MASK" / "S2_mask_0003.png", np.zeros((256, 256), np.uint8))
    reader = recognise(tmp_path)
    problems = {item.name: item.problem or "" for item in reader.items(tmp_path)}
    assert "BEFORE/S1_before_N.png (or imbefore_N.png) of it missing" in problems["00001"]
    assert not problems["00002"]
    assert "stands for the same; remove one" in problems["MASK-gt_2.png"]
    assert "no name of this layout" in problems["MASK-S2_mask_0003.png"]


@pytest.mark.parametrize("shape", [(256, 255), (512, 512)])
def test_ombria_tile_of_another_size(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, shape: tuple[int, int]
) -> None:
    _ombria(write_raster, tmp_path, [1])
    write_raster(tmp_path / "BEFORE" / "S1_before_0001.png", np.zeros(shape, np.uint8))
    with pytest.raises(BadSourceError, match=r"S1_before_0001\.png: .* pixels; tiles are 256×256"):
        read_all(tmp_path)


@pytest.mark.parametrize("up", [0, 1, 2])
def test_etci_from_tiles_scene_or_folder_of_scenes(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, up: int
) -> None:
    tiles = tmp_path / SCENE / "tiles"
    _etci(write_raster, tiles, [(10, 2), (9, 11)])
    root = (tiles, tiles.parent, tmp_path)[up]
    facts = recognise(root).facts(root)
    assert (facts.bands, facts.units, facts.label) == (("vv", "vh"), "uint8", "water")
    patches = read_all(root)
    assert [(patch.grid, patch.row, patch.col) for patch in patches] == [
        (SCENE, 9, 11),
        (SCENE, 10, 2),
    ]
    patch = patches[0]
    assert np.isnan(patch.image[:, 0]).all()  # 255 in both bands
    assert (patch.image[:, 1:] == 60).all()
    assert patch.mask is not None
    assert (patch.mask[0] == 255).all()
    assert (patch.mask[1:3] == 1).all()
    assert not patch.mask[3:].any()


def test_etci_saturated_in_one_band_is_data(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll
) -> None:
    _etci(write_raster, tmp_path, [(0, 0)], vv=255)
    (patch,) = read_all(tmp_path)
    assert (patch.image[0, 1:] == 255).all()


def test_etci_without_flood_label_is_unlabelled(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll
) -> None:
    _etci(write_raster, tmp_path, [(0, 0)])
    for path in (tmp_path / "flood_label").iterdir():
        path.unlink()
    (tmp_path / "flood_label").rmdir()
    facts = recognise(tmp_path).facts(tmp_path)
    assert (facts.label, facts.permanent_water) == (None, False)
    (patch,) = read_all(tmp_path)
    assert (patch.mask, patch.permanent_water) == (None, None)


def test_etci_water_bodies_are_permanent_water_and_not_the_mask(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll
) -> None:
    _etci(write_raster, tmp_path, [(0, 0), (0, 1)])
    tile = np.zeros((3, 256, 256), np.uint8)
    tile[:, 2] = 255
    for col in (0, 1):
        write_raster(tmp_path / "water_body_label" / f"{SCENE}_x-0_y-{col}.png", tile)
    assert recognise(tmp_path).facts(tmp_path).permanent_water
    for patch in read_all(tmp_path):
        assert patch.permanent_water is not None
        assert patch.mask is not None
        assert set(np.flatnonzero(patch.permanent_water.any(axis=1))) == {2}
        assert set(np.flatnonzero((patch.mask == 1).any(axis=1))) == {1, 2}
    (tmp_path / "water_body_label" / f"{SCENE}_x-0_y-1.png").unlink()
    with pytest.raises(BadSourceError, match=r"water_body_label/.* of it missing"):
        read_all(tmp_path)


@pytest.mark.parametrize("role", ["vv", "vh", "flood_label"])
def test_etci_coloured_or_grey_tile_is_refused(
    tmp_path: Path, write_raster: WriteRaster, read_all: ReadAll, role: str
) -> None:
    _etci(write_raster, tmp_path, [(0, 0)])
    (path,) = (tmp_path / role).iterdir()
    coloured = np.zeros((3, 256, 256), np.uint8)
    coloured[1] = 255
    write_raster(path, coloured)
    with pytest.raises(BadSourceError, match="three channels of a tile are equal"):
        read_all(tmp_path)
    write_raster(path, coloured[0])
    with pytest.raises(BadSourceError, match=r"1 band\(s\) where 3 belong"):
        read_all(tmp_path)
