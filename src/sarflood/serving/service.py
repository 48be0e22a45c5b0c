"""The BentoML service: the HTTP interface with health checks, metrics and start-up check."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import bentoml
import torch
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from sarflood.errors import InputError, SarfloodError
from sarflood.model.allocator import share_heaps
from sarflood.monitoring.journal import JOURNAL, Journal
from sarflood.serving.access import REFUSES, token_asked_for
from sarflood.serving.app import create_api
from sarflood.serving.compared import SHADOW
from sarflood.serving.guard import OPEN, Guard
from sarflood.serving.image import IMAGE
from sarflood.serving.metrics import Counted, note_model
from sarflood.serving.served import Served, load_served
from sarflood.serving.shadow import Shadow

share_heaps()
os.environ["PROJ_NETWORK"] = "OFF"  # no grid of shifts is fetched, whatever a scene's CRS asks for

# A bundle has the model package beside its own copy of this code.
_PACKAGE = Path(__file__).resolve().parents[2] / "package"

_loaded: list[Served] = []
_folder, _shadow = os.environ.get(JOURNAL), os.environ.get(SHADOW)
try:
    _token, _fault = token_asked_for(), None
except InputError as error:  # said when it starts: a build imports this module, too
    _token, _fault = "", error
_api = create_api(
    lambda: _loaded[0],
    Journal(Path(_folder)) if _folder else None,
    Shadow(Path(_shadow), _token) if _shadow else None,
)


class _Untimed:
    """Takes BentoML's limit of time off: it keeps a timer of each request until its time is up.

    So it has memory for all requests of that time, answered or not. `turns.py` has limits.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # the first that an application is asked
            outer: Starlette = scope["app"]
            outer.user_middleware = [
                item
                for item in outer.user_middleware
                if getattr(item.cls, "__name__", "") != "TimeoutMiddleware"
            ]
            outer.middleware_stack = outer.build_middleware_stack()
        await self._app(scope, receive, send)


def _guarded(service: Any) -> Any:
    """Put the guard around all that the service answers, BentoML's own addresses too."""
    service.add_asgi_middleware(_Untimed)
    service.add_asgi_middleware(Counted, paths=OPEN.union(_api.openapi()["paths"]))
    service.add_asgi_middleware(Guard, token=_token)
    return service


# BentoML counts each address that was ever asked for, and logs who asked for what: neither is kept.
@_guarded
@bentoml.service(
    image=IMAGE,
    workers=1,
    metrics={"enabled": False, "namespace": "bentoml_service"},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(_api)
class FloodService:
    """Maps floods in Sentinel-1 scenes; ready once it answered its recorded patches."""

    def __init__(self) -> None:
        if _fault:
            raise SarfloodError(f"{REFUSES}: {_fault}") from _fault
        # GDAL's warnings quote the files that clients send; what matters of them is answered.
        logging.getLogger("rasterio").setLevel(logging.CRITICAL)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        try:
            _loaded[:] = [load_served(_PACKAGE)]
            note_model(_loaded[0].info.version)
        except SarfloodError as error:
            raise SarfloodError(f"{REFUSES}: {error}") from error
        if _loaded[0].engines.callers > 1:
            # Each prepares its patches by itself: PyTorch's idle threads would spin in their way.
            torch.set_num_threads(1)
