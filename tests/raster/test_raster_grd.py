from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from grd_product import CENTRE, Place, write_product
from numpy.typing import NDArray
from tiny import full_disk

from sarflood.errors import InputError, SarfloodError
from sarflood.raster.grd import geocode, grd_images, is_safe


def sigma(place: Place) -> NDArray[np.float64]:
    """A lake of 1 km radius east of the centre, within land that brightens northwards."""
    x, y = place
    lake = np.hypot(x - CENTRE[0] - 1500, y - CENTRE[1]) < 1000
    return np.asarray(np.where(lake, 0.01, 0.1 + (y - CENTRE[1]) * 1e-5))


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_product(
        tmp_path_factory.mktemp("grd"), {"vv": sigma, "vh": lambda p: sigma(p) / 5}
    )


def test_an_image_is_calibrated_and_lies_where_the_grid_says(product: Path, tmp_path: Path) -> None:
    assert is_safe(product)
    images = grd_images(product)
    assert set(images) == {"vv", "vh"}
    geocode(images["vv"], tmp_path / "vv.tif")
    with rasterio.open(tmp_path / "vv.tif") as file:
        found = file.read(1)
        assert file.crs.to_epsg() == 32651
        assert file.res == (10.0, 10.0)
        rows, cols = np.mgrid[: file.height, : file.width] + 0.5
        expected = sigma(file.transform @ (cols, rows))
    known = np.isfinite(found)
    assert 0.9 < known.sum() / (600 * 780) < 1.1, "the border is no data"
    error = 10 * np.log10(found[known] / expected[known])
    assert abs(np.median(error)) < 0.01
    assert np.quantile(np.abs(error), 0.95) < 0.1  # dB; the shore apart


def test_a_product_on_the_antimeridian_loses_no_half(product: Path, tmp_path: Path) -> None:
    beyond = Path(shutil.copytree(product, tmp_path / product.name))

    def shifted(match: re.Match[str]) -> str:
        return f"<longitude>{(float(match[1]) + 57 + 180) % 360 - 180!r}</longitude>"

    for annotation in (beyond / "annotation").glob("*.xml"):
        text = annotation.read_text("utf-8")
        annotation.write_text(re.sub("<longitude>(.*?)</longitude>", shifted, text), "utf-8")
    counts = []
    for number, folder in enumerate((product, beyond)):
        geocode(grd_images(folder)["vv"], tmp_path / f"{number}.tif")
        with rasterio.open(tmp_path / f"{number}.tif") as file:
            counts.append(np.isfinite(file.read(1)).sum())
            assert file.crs.to_epsg() in (32651, 32601, 32660)
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


def test_a_full_disk_is_said(product: Path, tmp_path: Path) -> None:
    with full_disk(), pytest.raises(SarfloodError, match=r"vv\.tif: cannot be written"):
        geocode(grd_images(product)["vv"], tmp_path / "vv.tif")
    assert not list(tmp_path.iterdir())


def test_noise_is_taken_off(product: Path, tmp_path: Path) -> None:
    geocode(grd_images(product)["vh"], tmp_path / "vh.tif")
    with rasterio.open(tmp_path / "vh.tif") as file:
        found = file.read(1)
        rows, cols = np.mgrid[: file.height, : file.width] + 0.5
        expected = sigma(file.transform @ (cols, rows)) / 5
    lake = np.isfinite(found) & (np.abs(expected - 0.002) < 1e-9)
    assert np.median(found[lake]) == pytest.approx(0.002, rel=0.02)  # the noise is as much again


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("annotation/calibration/calibration", None, "missing; the product is not whole"),
        ("annotation/calibration/calibration", "<calibration/>", "no whole table of sigmaNought"),
        ("annotation/calibration/noise", "<noise><", "not a readable annotation"),
        ("annotation/s1a", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "not a readable annotation"),
        ("annotation/s1a", "<product/>", "0 points of a geolocation grid"),
        ("measurement/s1a", "no image", "neither GeoTIFF nor PNG"),
    ],
)
def test_a_product_with_a_bad_file_is_refused(
    tmp_path: Path, name: str, content: str | None, match: str
) -> None:
    safe = write_product(tmp_path, {"vv": sigma})
    folder, _, start = name.rpartition("/")
    (path,) = (item for item in (safe / folder).iterdir() if item.name.startswith(start))
    if content is None:
        path.unlink()
    else:
        path.write_text(content, "utf-8")
    with pytest.raises(InputError, match=match):
        geocode(grd_images(safe)["vv"], tmp_path / "vv.tif")
    assert not list(tmp_path.glob("*.tif"))


def test_an_slc_product_is_refused(tmp_path: Path) -> None:
    safe = write_product(tmp_path, {"vv": sigma})
    (image,) = (safe / "measurement").iterdir()
    image.rename(image.with_name(image.name.replace("-grd-", "-slc-")))
    with pytest.raises(InputError, match="not an image of a GRD product"):
        grd_images(safe)
