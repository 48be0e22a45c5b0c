"""A small GRD product after the published format: its files, tables, and geolocation grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray

HEIGHT, WIDTH = 600, 800
# Metres: 10 m pixels, the scene turned as a descending pass turns it.
TURN = np.deg2rad(-168.0)
CENTRE = (500_000.0, 1_200_000.0)  # UTM zone 51 N
Place = tuple[NDArray[np.float64], NDArray[np.float64]]


def place(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> Place:
    """Where pixels of the radar lie, in UTM."""
    down, across = (rows - HEIGHT / 2) * 10, (cols - WIDTH / 2) * 10
    x = CENTRE[0] + np.cos(TURN) * across + np.sin(TURN) * down
    y = CENTRE[1] + np.sin(TURN) * across - np.cos(TURN) * down
    return x, y


def calibration(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the tables say: linear down and across."""
    return 300 + 0.1 * cols + 0.05 * rows


def noise(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
    return (200 + 0.5 * cols) * np.where(cols < WIDTH / 2, 1.0, 1.0 + 0.001 * rows)


def write_product(folder: Path, sigma: dict[str, Callable[[Place], NDArray[np.float64]]]) -> Path:
    """Write a SAFE folder.

    Args:
        folder: Where it goes.
        sigma: Of each polarisation sigma nought, linear, as a function of the place in UTM.
    """
    safe = folder / "S1A_IW_GRDH_1SDV_20190302T234651_20190302T234716_026168_02EBE6_B8B4.SAFE"
    for name in ("measurement", "annotation/calibration"):
        (safe / name).mkdir(parents=True)
    (safe / "manifest.safe").write_text("<xfdu/>", "utf-8")
    rows, cols = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    for number, (polarisation, of) in enumerate(sigma.items(), start=1):
        stem = f"s1a-iw-grd-{polarisation}-20190302t234651-20190302t234716-026168-02ebe6-00{number}"
        power = of(place(rows, cols)) * calibration(rows, cols) ** 2 + noise(rows, cols)
        counts = np.rint(np.sqrt(power)).astype(np.uint16)
        counts[:, :20] = 0  # the border of a product
        with rasterio.open(
            safe / "measurement" / f"{stem}.tiff",
            "w",
            driver="GTiff",
            height=HEIGHT,
            width=WIDTH,
            count=1,
            dtype="uint16",
        ) as image:
            image.write(counts, 1)
        annotation = safe / "annotation"
        (annotation / f"{stem}.xml").write_text(_annotation(), "utf-8")
        tables = annotation / "calibration"
        (tables / f"calibration-{stem}.xml").write_text(_calibration(), "utf-8")
        (tables / f"noise-{stem}.xml").write_text(_noise(), "utf-8")
    return safe


def _annotation() -> str:
    points = []
    for row in np.linspace(0, HEIGHT - 1, 8).astype(int):
        for col in np.linspace(0, WIDTH - 1, 11).astype(int):
            x, y = place(np.array([float(row)]), np.array([float(col)]))
            (lon,), (lat,) = rasterio.warp.transform("EPSG:32651", "EPSG:4326", x, y)
            points.append(
                f"<geolocationGridPoint><line>{row}</line><pixel>{col}</pixel>"
                f"<latitude>{lat!r}</latitude><longitude>{lon!r}</longitude>"
                "<height>12.5</height></geolocationGridPoint>"
            )
    flown = "<generalAnnotation><productInformation><pass>Descending</pass>"
    flown += "</productInformation></generalAnnotation>"
    grid = f"<geolocationGrid>{''.join(points)}</geolocationGrid>"
    return f"<product>{flown}{grid}</product>"


def _listed(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:e}" for value in values)


def _calibration() -> str:
    cols = np.append(np.arange(0.0, WIDTH, 40), WIDTH - 1)
    pixels = " ".join(map(str, cols.astype(int)))
    vectors = "".join(
        f"<calibrationVector><line>{row}</line><pixel>{pixels}</pixel>"
        f"<sigmaNought>{_listed(calibration(np.array(float(row)), cols))}</sigmaNought>"
        "</calibrationVector>"
        for row in (0, 250, 599)
    )
    return f"<calibration><calibrationVectorList>{vectors}</calibrationVectorList></calibration>"


def _noise() -> str:
    cols = np.array([0.0, 400.0, 799.0])
    ranges = "".join(
        f"<noiseRangeVector><line>{row}</line><pixel>0 400 799</pixel>"
        f"<noiseRangeLut>{_listed(200 + 0.5 * cols)}</noiseRangeLut></noiseRangeVector>"
        for row in (0, 599)
    )
    azimuth = "".join(
        "<noiseAzimuthVector><firstAzimuthLine>0</firstAzimuthLine>"
        f"<firstRangeSample>{first}</firstRangeSample><lastAzimuthLine>599</lastAzimuthLine>"
        f"<lastRangeSample>{last}</lastRangeSample><line>0 599</line>"
        f"<noiseAzimuthLut>1.0 {1 + slope * 599}</noiseAzimuthLut></noiseAzimuthVector>"
        for first, last, slope in ((0, 399, 0.0), (400, 799, 0.001))
    )
    return (
        f"<noise><noiseRangeVectorList>{ranges}</noiseRangeVectorList>"
        f"<noiseAzimuthVectorList>{azimuth}</noiseAzimuthVectorList></noise>"
    )
