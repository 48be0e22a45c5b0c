from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tiny import change_recorded, write_package

from sarflood.errors import InputError, SarfloodError
from sarflood.files import write_json
from sarflood.mapping.recorded import Recorded, check_answers, read_recorded
from sarflood.serving.served import load_served

SERVING = {
    "max_megabytes": 16,
    "max_megapixels": 10,
    "max_seconds": 60.0,
    "ready_within_s": 60.0,
    "patch_within_s": 5.0,
    "max_memory_gib": 4.0,
    "engine": "auto",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = write_package(tmp_path / "package")
    write_json(folder / "bundle.json", {"version": "v0.1.0", "serving": SERVING})
    return folder


def test_a_package_that_answers_as_recorded_is_served(package: Path) -> None:
    served = load_served(package)
    assert served.info.version == "v0.1.0"
    assert served.model.manifest.bands == ("vv", "vh")


def test_other_answers_than_recorded_are_refused(package: Path) -> None:
    masks = read_recorded(package / "recorded.npz").masks
    masks[0, :60] = 1 - masks[0, :60]
    change_recorded(package / "recorded.npz", masks=masks)
    with pytest.raises(SarfloodError, match=r"v0\.1\.0: \d+\.\d+% of the pixels are not as rec"):
        load_served(package)


@pytest.mark.parametrize(
    "name", ["bundle.json", "model.json", "weights.safetensors", "recorded.npz"]
)
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_missing_or_damaged_file_is_named(
    package: Path, name: str, content: bytes | None
) -> None:
    (package / name).unlink()
    if content is not None:
        (package / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load_served(package)


# numpy leaves the file that it cannot open to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_byte_anywhere_among_the_recorded_is_named(package: Path) -> None:
    path = package / "recorded.npz"
    found = read_recorded(path)
    small = {name: array[:1, ..., ::8, ::8] for name, array in vars(found).items()}
    np.savez_compressed(path, **small)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(content), 300):
        spoiled = bytearray(content)
        spoiled[position] ^= 1 << generator.integers(8)
        path.write_bytes(spoiled)
        with suppress(InputError):
            read_recorded(path)
    # A block of a kind that deflate does not have.
    start = content.index(b"images.npy") + len("images.npy") + 20
    path.write_bytes(content[:start] + b"\xff" * 30 + content[start + 30 :])
    with pytest.raises(InputError, match=r"recorded\.npz: no recorded patches"):
        read_recorded(path)


def test_recorded_patches_of_other_bands_are_refused(package: Path) -> None:
    path = package / "recorded.npz"
    change_recorded(path, images=read_recorded(path).images[:, :1])
    with pytest.raises(InputError, match=r"recorded\.npz: patches of 1 band.*needs vv, vh"):
        load_served(package)


def test_a_pixel_in_a_thousand_may_tip() -> None:
    masks = np.zeros((1, 100, 100), np.uint8)
    recorded = Recorded(np.zeros((1, 1, 100, 100), np.float16), masks, masks)
    answered = masks.copy()
    answered.flat[:10] = 1
    assert check_answers(answered, recorded, "bundle").equal_share == 0.999
    answered.flat[10] = 1
    with pytest.raises(SarfloodError, match=r"bundle: 0\.11% of the pixels"):
        check_answers(answered, recorded, "bundle")


def test_a_pickle_among_the_recorded_is_not_opened(package: Path) -> None:
    images = np.array([{"a": 1}], dtype=object)
    change_recorded(package / "recorded.npz", images=images)
    with pytest.raises(InputError, match="no recorded patches"):
        load_served(package)


def test_the_service_pays_for_nothing_that_only_training_needs() -> None:
    heavy = "prefect dvc great_expectations lightning pandas pyarrow matplotlib"
    code = (
        "import sys, sarflood.serving.service; "
        f"print(*(name for name in {heavy.split()} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
