"""The HTTP interface: scenes and patches in, maps out."""

# No postponed annotations: FastAPI reads those of functions that are made in a function.
import errno
import io
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated

import anyio
import numpy as np
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sarflood.errors import InputError, SarfloodError, TooLargeError
from sarflood.mapping.scene import map_scene
from sarflood.model.allocator import hand_back
from sarflood.monitoring.journal import Journal
from sarflood.monitoring.sight import Sight
from sarflood.raster.patch import PATCH
from sarflood.serving import metrics
from sarflood.serving.answers import answer_map, wanted
from sarflood.serving.batching import Batches, BusyError
from sarflood.serving.openapi import METRICS, MODEL, PATCHES, PREDICT, describe
from sarflood.serving.page import add_page
from sarflood.serving.served import About, Served
from sarflood.serving.shadow import Shadow
from sarflood.serving.turns import SMALL_AT_MOST, Turns, in_thread
from sarflood.serving.uploads import (
    SceneUpload,
    WrongTypeError,
    is_small,
    received_patches,
    received_scenes,
)

_STATUS: dict[type[Exception], int] = {TooLargeError: 413, WrongTypeError: 415}
_log = logging.getLogger(__name__)


def create_api(
    served: Callable[[], Served], journal: Journal | None = None, shadow: Shadow | None = None
) -> FastAPI:
    """Make the application.

    Every refusal at its addresses is JSON, `{"error": …}` with one sentence; `/openapi.json` has
    the statuses.

    Args:
        served: Gives the loaded model; it is asked at each request, so that the application can
            be made before the model is loaded.
        journal: Gets the statistics of what is mapped, no imagery; by default they are not kept.
        shadow: Gets a copy of what is mapped; by default nobody does.
    """
    api = FastAPI(
        title="flood-unet",
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            InputError: _refuse,
            BusyError: _put_off,
            SarfloodError: _excuse,
            OSError: _excuse,
            HTTPException: _refuse_address,
            ClientDisconnect: _give_up,
        },
    )
    turns, small = Turns(), Turns(SMALL_AT_MOST)
    batches = Batches(served, lambda sight: _note(journal, sight, served()))

    async def scene_of(request: Request) -> AsyncIterator[SceneUpload]:
        with turns.admitted():
            async with received_scenes(request, served().info.serving) as upload:
                yield upload

    async def patches_of(request: Request) -> AsyncIterator[NDArray[np.floating]]:
        shape = (len(served().model.manifest.bands), PATCH, PATCH)
        with (small if is_small(request) else turns).admitted():
            async with received_patches(request, served().info.serving, shape) as patches:
                yield patches

    # What a dependency holds is let go of once the answer has been sent.
    @api.post("/predict", **PREDICT)
    async def predict(
        request: Request,
        kind: Annotated[str, Depends(wanted)],
        upload: Annotated[SceneUpload, Depends(scene_of)],
    ) -> Response:
        """Map a scene."""
        limit = served().info.serving.max_seconds
        async with turns.turn(limit) as waited:
            seconds = {"upload": upload.seconds, "waiting for a turn": waited}

            def work(go_on: Callable[[object], None]) -> Response:
                try:
                    return _answer_scene(served(), journal, shadow, upload, kind, seconds, go_on)
                finally:
                    hand_back()

            return await in_thread(request, limit, work)

    @api.post("/predict/patches", **PATCHES)
    async def predict_patches(
        patches: Annotated[NDArray[np.floating], Depends(patches_of)],
    ) -> Response:
        """Map patches that have no place on the Earth."""
        limit = served().info.serving.max_seconds
        try:
            with anyio.fail_after(limit):
                masks = await batches.masks(patches)
        except TimeoutError as error:
            raise TooLargeError(
                f"the patches: not mapped within {limit:g} s; send fewer"
            ) from error
        if shadow:
            shadow.give_patches(served().info.version, patches, masks)
        body = io.BytesIO()
        np.save(body, masks, allow_pickle=False)
        return Response(body.getvalue(), media_type="application/octet-stream")

    @api.get("/model", **MODEL)
    async def model() -> About:
        """Say which version this is, what it was made of, how well it does, and its limits."""
        return served().about()

    @api.get("/metrics", **METRICS)
    def counted() -> Response:
        """Give what was counted, as Prometheus reads it."""
        return Response(metrics.metrics_page(), headers={"Content-Type": metrics.CONTENT_TYPE})

    add_page(api, served)
    describe(api)
    return api


def _note(journal: Journal | None, sight: Sight, served: Served) -> None:
    seen = sight.seen(served.info.version)
    if seen:
        metrics.note_image(seen, sight.outside_share)
        if journal:
            journal.note(seen)


def _answer_scene(
    served: Served,
    journal: Journal | None,
    shadow: Shadow | None,
    upload: SceneUpload,
    kind: str,
    seconds: dict[str, float],
    go_on: Callable[[object], None],
) -> Response:
    sight = Sight(served.model.manifest, served.ranges)
    result = map_scene(
        served.model,
        upload.scene,
        upload.pre,
        folder=upload.folder / "map",
        on_progress=go_on,
        max_megapixels=served.info.serving.max_megapixels,
        sight=sight,
    )
    _note(journal, sight, served)
    if shadow:
        shadow.give_scene(served.info.version, upload.fields, result.mask)
    return answer_map(
        result,
        kind,
        upload.folder / "answer",
        version=served.info.version,
        sight=sight,
        seconds=seconds,
    )


async def _refuse(_: Request, error: Exception) -> Response:
    return _sentence(str(error), _STATUS.get(type(error), 422))


async def _put_off(_: Request, error: Exception) -> Response:
    seconds = error.retry_after_s if isinstance(error, BusyError) else 1
    return _sentence(str(error), 503, {"Retry-After": str(seconds)})


async def _refuse_address(request: Request, error: HTTPException) -> Response:
    sentence = f"{request.method} {request.url.path}: {error.detail}"
    return _sentence(sentence, error.status_code, error.headers)


async def _excuse(request: Request, error: Exception) -> Response:
    """Answer for what is the service's own trouble, such as a full disk."""
    _log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    sentence = "the service: no room on its disk" if full else "the service: see its log"
    return _sentence(sentence, 503, {"Retry-After": "60"})


def _sentence(text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    # What clients send may stand in it, and need not be text that can be written.
    written = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return JSONResponse({"error": written}, status, headers)


async def _give_up(_: Request, __: Exception) -> Response:
    """End quietly: the client went away, and nobody reads this answer."""
    return Response(status_code=400)
