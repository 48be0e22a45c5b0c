"""The pages: the workspace's reports over http, on the loopback, for who knows the token."""

from __future__ import annotations

import base64
import secrets
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sarflood.operations.parts import Site
from sarflood.serving.server import HOST
from sarflood.workspace import Workspace


def create_pages(site: Site) -> Starlette:
    """Make the application: `reports/` and `data/quarantine/` of a workspace, for reading alone.

    Browsers ask for user and token; `/healthz` says without them that the pages are there.
    """
    expected = b"Basic " + base64.b64encode(site.auth().encode())

    async def check(request: Request, go_on: RequestResponseEndpoint) -> Response:
        given = request.headers.get("authorization", "").encode()
        if request.url.path != "/healthz" and not secrets.compare_digest(given, expected):
            asked = {"WWW-Authenticate": 'Basic realm="sarflood"'}
            return PlainTextResponse("user and token, please", 401, asked)
        return await go_on(request)

    async def first(_: Request) -> Response:
        return RedirectResponse("/report.html")

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok")

    place = site.workspace
    return Starlette(
        routes=[
            Route("/", first),
            Route("/healthz", health),
            Mount("/quarantine", StaticFiles(directory=place.quarantine, check_dir=False)),
            Mount("/", StaticFiles(directory=place.reports, html=True, check_dir=False)),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=check)],
    )


if __name__ == "__main__":
    app = create_pages(Site(Workspace(Path(sys.argv[2]))))
    uvicorn.run(app, host=HOST, port=int(sys.argv[1]), log_level="warning")
