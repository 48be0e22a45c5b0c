"""The HTTP interface: scenes and patches in, maps out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sarflood.errors import InputError
from sarflood.mapping.outputs import map_polygons, summarise, write_mask
from sarflood.mapping.patches import map_patches
from sarflood.mapping.scene import map_scene
from sarflood.monitoring.journal import Journal
from sarflood.monitoring.sight import Sight
from sarflood.raster.patch import PATCH
from sarflood.serving.served import Served
from sarflood.serving.uploads import (
    TooLargeError,
    WrongTypeError,
    received_patches,
    received_scenes,
)

MAX_POLYGONS = 200_000  # of one answer; each takes some kB while it is made
_STATUS: dict[type[Exception], int] = {TooLargeError: 413, WrongTypeError: 415}
_ANSWERS = ("application/json", "application/geo+json", "image/tiff")


def create_api(served: Callable[[], Served], journal: Journal | None = None) -> FastAPI:
    """Make the application.

    Every refusal at its addresses is JSON, `{"error": …}` with one sentence: 405 another method,
    413 too large, 415 wrong type, 422 anything else about the input.

    Args:
        served: Gives the loaded model; it is asked at each request, so that the application can
            be made before the model is loaded.
        journal: Gets the statistics of what is mapped, no imagery; by default they are not kept.
    """
    api = FastAPI(
        title="flood-unet",
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            InputError: _refuse,
            HTTPException: _refuse_address,
            ClientDisconnect: _give_up,
        },
    )
    # One map at a time has all cores and the memory; the others wait here, off the event loop.
    turn = CapacityLimiter(1)

    @api.post("/predict")
    async def predict(request: Request) -> Response:
        """Map a scene: multipart form, GeoTIFF in `scene`, optional `pre`.

        Answers by `Accept`: `image/tiff` the mask, `application/geo+json` the wet areas,
        `application/json` (default) the figures.
        """
        limits = served().info.serving
        async with received_scenes(request, limits.max_megabytes) as (scene, pre):
            answer = partial(_answer_scene, served(), journal, scene, pre, _wanted(request))
            return await run_sync(answer, limiter=turn)

    @api.post("/predict/patches")
    async def predict_patches(request: Request) -> Response:
        """Map patches: .npy body (N, C, 256, 256) float16 or float32, answer .npy uint8 masks."""
        limits = served().info.serving
        shape = (len(served().model.manifest.bands), PATCH, PATCH)
        async with received_patches(request, limits.max_megabytes, shape) as patches:
            masks = await run_sync(_answer_patches, served(), journal, patches, limiter=turn)
        body = io.BytesIO()
        np.save(body, masks, allow_pickle=False)
        return Response(body.getvalue(), media_type="application/octet-stream")

    @api.get("/model")
    async def model() -> Response:
        """Say which version this is, what it was made of, and its limits."""
        return JSONResponse(
            {
                **served().info.model_dump(mode="json"),
                "model": served().model.manifest.model_dump(mode="json"),
            }
        )

    return api


def _answer_patches(
    served: Served, journal: Journal | None, patches: NDArray[np.floating]
) -> NDArray[np.uint8]:
    sight = Sight(served.model.manifest)
    masks = map_patches(served.model, patches, sight)
    _note(journal, sight, served)
    return masks


def _note(journal: Journal | None, sight: Sight, served: Served) -> None:
    seen = sight.seen(served.info.version)
    if journal and seen:
        journal.note(seen)


def _answer_scene(
    served: Served, journal: Journal | None, scene: Path, pre: Path | None, media_type: str
) -> Response:
    limit, sight = served.info.serving.max_megapixels, Sight(served.model.manifest)
    result = map_scene(served.model, scene, pre, max_megapixels=limit, sight=sight)
    _note(journal, sight, served)
    if media_type == "image/tiff":
        mask = scene.with_name("flood.tif")
        write_mask(result, mask)
        return Response(mask.read_bytes(), media_type=media_type)
    content = (
        map_polygons(result, at_most=MAX_POLYGONS)
        if media_type == "application/geo+json"
        else summarise(result, served.info.version)
    )
    return Response(json.dumps(content, allow_nan=False), media_type=media_type)


def _wanted(request: Request) -> str:
    """Return the first media type in `Accept` that there is an answer in; JSON if there is none."""
    accepted = [part.split(";")[0].strip() for part in request.headers.get("accept", "").split(",")]
    return next((kind for kind in accepted if kind in _ANSWERS), "application/json")


async def _refuse(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=_STATUS.get(type(error), 422))


async def _refuse_address(request: Request, error: HTTPException) -> Response:
    content = {"error": f"{request.method} {request.url.path}: {error.detail}"}
    return JSONResponse(content, error.status_code, error.headers)


async def _give_up(_: Request, __: Exception) -> Response:
    """End quietly: the client went away while it sent, and nobody reads this answer."""
    return Response(status_code=400)
