"""What a client sends: taken in by pieces up to a limit, checked, and removed in any case."""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sarflood.errors import InputError, TooLargeError
from sarflood.mapping.arrays import DAMAGED
from sarflood.mapping.bands import ROLES, Files, of_date
from sarflood.params import ServingParams
from sarflood.raster.safe import open_raster

NPY_TYPE = "application/octet-stream"
_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_NPY_MAGIC = b"\x93NUMPY"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_PIECE = 1 << 20
_IN_MEMORY = 2 << 20  # bytes of a body with patches; a larger one becomes a file
# Memory is for some strips of a scene, and so grows with its width.
_MAX_WIDTH = 50_000
# Speckle hardly gets smaller when it is packed; a scene of which a twentieth has data, by 30 times.
_MOST_PACKED, _PACKED_FROM_BYTES = 200, 1 << 26


class WrongTypeError(InputError):
    """The body is of another type than the service takes (HTTP 415)."""


@dataclass(frozen=True)
class SceneUpload:
    """A scene in a temporary folder.

    Attributes:
        folder: The folder, which may be used until the answer has been sent.
        fields: What came, by the names of the fields.
        scene: The file, or those of its polarisations.
        pre: The same from before the event; None where there is none.
        seconds: How long it took to come.
    """

    folder: Path
    fields: Mapping[str, Path]
    scene: Files
    pre: Files | None
    seconds: float


@asynccontextmanager
async def received_scenes(request: Request, limits: ServingParams) -> AsyncIterator[SceneUpload]:
    """Take the GeoTIFFs of a scene from a multipart form; see `ROLES`.

    Yields:
        Them in a temporary folder that is gone afterwards.

    Raises:
        TooLargeError: The body or a scene is larger than the limits say, or files grow too much
            when they are unpacked.
        WrongTypeError: The body is no multipart form, or a file is no GeoTIFF.
        InputError: A field is missing, doubled, unknown, or text where a file is meant; or a
            header is not that of a raster that may be opened.
        HTTPException: It took too long to come.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise WrongTypeError("the body: send a multipart form with the GeoTIFF in field `scene`")
    started = anyio.current_time()
    with _upload_folder() as folder:
        files: dict[str, Path] = {}
        with _in_time(limits):
            body = _capped(request, limits.max_megabytes)
            parser = MultiPartParser(
                request.headers, body, max_files=len(ROLES), max_fields=len(ROLES)
            )
            try:
                form = await parser.parse()
            except (
                MultiPartException,
                UnicodeError,
            ) as error:  # its charset may be any of Python's
                raise InputError(f"the body: not a whole multipart form ({error})") from error
            try:
                for name, file in _fields(form):
                    files[name] = await _save(name, file, folder)
            finally:
                await form.close()
        seconds = anyio.current_time() - started
        scene, pre = of_date(files, "scene"), of_date(files, "pre")
        if scene is None:
            raise InputError("scene: missing; send the GeoTIFF as a file in field `scene`")
        for path in files.values():
            await run_sync(_check_header, path, limits)
        yield SceneUpload(folder, files, scene, pre, seconds)


def is_small(request: Request) -> bool:
    """Say whether a body announces that it is small enough to be kept in memory."""
    announced = request.headers.get("content-length", "")
    return announced.isdecimal() and int(announced) <= _IN_MEMORY


@asynccontextmanager
async def received_patches(
    request: Request, limits: ServingParams, patch_shape: tuple[int, int, int]
) -> AsyncIterator[NDArray[np.floating]]:
    """Take an .npy body with patches.

    Args:
        request: The request; its body is the file itself.
        limits: Of the body, and of how long it may take to come.
        patch_shape: (C, H, W) that each patch must have.

    Yields:
        (N, C, H, W) float16 or float32; of a large body, mapped from a temporary file that is gone
        afterwards.

    Raises:
        TooLargeError: The body has more bytes than the limits say.
        WrongTypeError: The body is no .npy file, or says that it is something else.
        InputError: It is damaged, or has another shape or type.
        HTTPException: It took too long to come.
    """
    kind = request.headers.get("content-type", NPY_TYPE).partition(";")[0].strip().lower()
    if kind != NPY_TYPE:
        raise WrongTypeError(
            f"the body: of type {kind!r}; send what numpy.save writes, as {NPY_TYPE}"
        )
    if is_small(request):
        with _in_time(limits):
            body = b"".join([piece async for piece in _capped(request, limits.max_megabytes)])
        yield _checked_patches(body[: len(_NPY_MAGIC)], partial(_array_in, body), patch_shape)
        return
    with _upload_folder() as folder:
        path = folder / "patches.npy"
        with _in_time(limits):
            async with await anyio.open_file(path, "wb") as file:
                async for piece in _capped(request, limits.max_megabytes):
                    await file.write(piece)
        with path.open("rb") as start:
            magic = start.read(len(_NPY_MAGIC))
        read = partial(np.load, path, mmap_mode="r", allow_pickle=False)
        yield _checked_patches(magic, read, patch_shape)


def _array_in(body: bytes) -> NDArray[Any]:
    """Return the array in the bytes of an .npy file, without a copy."""
    start = io.BytesIO(body)
    read_header = _HEADERS[np.lib.format.read_magic(start)]
    shape, by_columns, dtype = read_header(start)
    array = np.frombuffer(body, dtype, offset=start.tell())
    return array.reshape(shape, order="F" if by_columns else "C")


def _checked_patches(
    magic: bytes, read: Callable[[], NDArray[Any]], patch_shape: tuple[int, int, int]
) -> NDArray[np.floating]:
    if magic != _NPY_MAGIC:
        raise WrongTypeError("the body: not an .npy file; send what numpy.save writes")
    try:
        patches = read()
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


@contextmanager
def _in_time(limits: ServingParams) -> Iterator[None]:
    try:
        with anyio.fail_after(limits.max_seconds):
            yield
    except TimeoutError as error:
        raise HTTPException(
            408, f"the body has not come within {limits.max_seconds:g} s; send a smaller one"
        ) from error


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
        if name not in ROLES or name in seen:
            fault = "twice" if name in seen else "unknown"
            raise InputError(f"{name[:40]!r}: {fault}; the fields are {', '.join(ROLES)}")
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


def _check_header(path: Path, limits: ServingParams) -> None:
    """Refuse, by its header, a scene that would take too much memory, or was packed to do harm."""
    with open_raster(path, max_megapixels=limits.max_megapixels) as dataset:
        if dataset.width > _MAX_WIDTH:
            raise TooLargeError(
                f"{path}: {dataset.width} pixels wide; at most {_MAX_WIDTH:,} are served"
            )
        of_pixel = sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
        unpacked = dataset.width * dataset.height * of_pixel
    packed = path.stat().st_size
    if unpacked > _PACKED_FROM_BYTES and unpacked > _MOST_PACKED * packed:
        raise TooLargeError(
            f"{path}: {unpacked / packed:.0f} times as large when it is unpacked; "
            f"at most {_MOST_PACKED} times is served, send the part that has data"
        )
