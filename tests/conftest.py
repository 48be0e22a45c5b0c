from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from sarflood.process import NO_TELEMETRY
from sarflood.sources.reader import RawPatch
from sarflood.sources.readers import recognise

os.environ.update(NO_TELEMETRY)
os.environ["OMP_NUM_THREADS"] = "1"  # pytest's processes, and theirs, share the cores

ROOT = Path(__file__).parents[1]
UTM = Affine(10, 0, 300_000, 0, -10, 1_800_000)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real Sentinel-1 data beside the checkout, where there is one."""
    for folder in (ROOT.parent / "shared" / "data", ROOT / "shared" / "data"):
        if folder.is_dir():
            return folder
    pytest.skip("no ../shared/data beside the checkout: real Sentinel-1 patches are not committed")


@pytest.fixture(scope="session")
def write_raster() -> Callable[..., Path]:
    """Write (C, H, W) or (H, W) values as a GeoTIFF in UTM, or as a PNG, by the file's suffix."""

    def write(
        path: Path,
        values: NDArray[Any],
        descriptions: tuple[str, ...] | None = None,
        *,
        transform: Affine = UTM,
        tags: dict[str, str] | None = None,
        **profile: Any,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = values[None] if values.ndim == 2 else values
        count, height, width = bands.shape
        if path.suffix == ".png":
            profile = {"driver": "PNG", **profile}
        else:
            profile = {"driver": "GTiff", "crs": "EPSG:32651", "transform": transform, **profile}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            file = rasterio.open(
                path, "w", count=count, height=height, width=width, dtype=bands.dtype, **profile
            )
        with file:
            file.write(bands)
            file.update_tags(**(tags or {}))
            if descriptions:
                file.descriptions = descriptions
        return path

    return write


@pytest.fixture(scope="session")
def read_all() -> Callable[[Path], list[RawPatch]]:
    """Read every patch of a source, as ingest does."""

    def read(root: Path) -> list[RawPatch]:
        reader = recognise(root)
        return [patch for item in reader.items(root) for patch in reader.read(item)]

    return read


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """A Prefect server, and a database of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
