"""What a client sends: taken in by pieces up to a limit, checked, and removed in any case."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sarflood.errors import InputError
from sarflood.serving.arrays import DAMAGED

_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_NPY_MAGIC = b"\x93NUMPY"
_PIECE = 1 << 20


class TooLargeError(InputError):
    """The body is larger than the service takes (HTTP 413)."""


class WrongTypeError(InputError):
    """The body is of another type than the service takes (HTTP 415)."""


@asynccontextmanager
async def received_scenes(
    request: Request, max_megabytes: int
) -> AsyncIterator[tuple[Path, Path | None]]:
    """Take the GeoTIFF `scene`, and `pre` if it is there, from a multipart form.

    Yields:
        Their paths in a temporary folder that is gone afterwards.

    Raises:
        TooLargeError: The body has more than `max_megabytes`.
        WrongTypeError: The body is no multipart form, or a file is no GeoTIFF.
        InputError: A field is missing, doubled, unknown, or text where a file is meant.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise WrongTypeError("the body: send a multipart form with the GeoTIFF in field `scene`")
    with _upload_folder() as folder:
        body = _capped(request, max_megabytes)
        parser = MultiPartParser(request.headers, body, max_files=2, max_fields=2)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise InputError(f"the body: not a whole multipart form ({error.message})") from error
        try:
            files = {name: await _save(name, file, folder) for name, file in _fields(form)}
        finally:
            await form.close()
        if "scene" not in files:
            raise InputError("scene: missing; send the GeoTIFF as a file in field `scene`")
        yield files["scene"], files.get("pre")


@asynccontextmanager
async def received_patches(
    request: Request, max_megabytes: int, patch_shape: tuple[int, int, int]
) -> AsyncIterator[NDArray[np.floating]]:
    """Take an .npy body with patches.

    Args:
        request: The request; its body is the file itself.
        max_megabytes: The limit of the body.
        patch_shape: (C, H, W) that each patch must have.

    Yields:
        (N, C, H, W) float16 or float32, mapped from a temporary file that is gone afterwards.

    Raises:
        TooLargeError: The body has more than `max_megabytes`.
        WrongTypeError: The body is no .npy file.
        InputError: It is damaged, or has another shape or type.
    """
    with _upload_folder() as folder:
        path = folder / "patches.npy"
        async with await anyio.open_file(path, "wb") as file:
            async for piece in _capped(request, max_megabytes):
                await file.write(piece)
        with path.open("rb") as start:
            if start.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
                raise WrongTypeError("the body: not an .npy file; send what numpy.save writes")
        yield _map_patches(path, patch_shape)


def _map_patches(path: Path, patch_shape: tuple[int, int, int]) -> NDArray[np.floating]:
    try:
        patches = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        raise InputError(f"the body: a damaged .npy file ({error})") from error
    if patches.dtype not in {np.dtype(np.float16), np.dtype(np.float32)}:
        raise InputError(f"the body: values of type {patches.dtype}; send float16 or float32")
    if patches.ndim != 4 or patches.shape[1:] != patch_shape:
        needed = ", ".join(map(str, patch_shape))
        raise InputError(f"the body: an array of {patches.shape}; send (N, {needed})")
    loaded: NDArray[np.floating] = patches
    return loaded


@contextmanager
def _upload_folder() -> Iterator[Path]:
    """Give a temporary folder, and take its name out of the messages that clients see."""
    with tempfile.TemporaryDirectory(prefix="sarflood-upload-") as name:
        folder = Path(name).resolve()
        try:
            yield folder
        except InputError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from error


async def _capped(request: Request, max_megabytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body by pieces until it ends or goes beyond the limit, whatever it announced."""
    limit = max_megabytes * 10**6
    announced = request.headers.get("content-length", "")
    taken = int(announced) if announced.isdecimal() else 0
    if taken <= limit:
        taken = 0
        async for piece in request.stream():
            taken += len(piece)
            if taken > limit:
                break
            yield piece
    if taken > limit:
        raise TooLargeError(f"the body: more than {max_megabytes} MB; send a smaller scene")


def _fields(form: FormData) -> Iterator[tuple[str, UploadFile]]:
    """Yield the files of a form; refuse what else is in it."""
    seen = set()
    for name, value in form.multi_items():
        if name not in {"scene", "pre"} or name in seen:
            fault = "twice" if name in seen else "unknown"
            raise InputError(f"{name}: {fault}; the fields are `scene` and, optional, `pre`")
        if not isinstance(value, UploadFile):
            raise InputError(f"{name}: text; send the file itself, addresses are not fetched")
        seen.add(name)
        yield name, value


async def _save(name: str, upload: UploadFile, folder: Path) -> Path:
    """Copy an upload to where GDAL can open it, under a name of our own."""
    magic = await upload.read(4)
    if magic not in _TIFF_MAGIC:
        raise WrongTypeError(f"{name}: not a GeoTIFF (first bytes {magic!r})")
    await upload.seek(0)
    path = folder / f"{name}.tif"

    def copy() -> None:
        with path.open("wb") as file:
            while piece := upload.file.read(_PIECE):
                file.write(piece)

    await run_sync(copy)
    return path
