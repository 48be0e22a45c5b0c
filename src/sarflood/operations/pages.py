"""The pages: the workspace's reports over http, on the loopback, for who knows the token."""

from __future__ import annotations

import base64
import secrets
import sys
from html import escape
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sarflood.errors import InputError
from sarflood.evaluation.markup import page, section, table
from sarflood.markdown import from_markdown
from sarflood.operations.parts import Site
from sarflood.serving.server import HOST
from sarflood.workspace import Workspace


def create_pages(site: Site) -> Starlette:
    """Make the application: reports, quarantine and bundles of a workspace, for reading alone.

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

    async def bundle(request: Request) -> Response:
        try:
            return HTMLResponse(bundle_page(place, request.path_params["version"]))
        except InputError as error:
            return PlainTextResponse(str(error), 404)

    place = site.workspace
    return Starlette(
        routes=[
            Route("/", first),
            Route("/healthz", health),
            Route("/bundles/{version}", bundle),
            Mount("/quarantine", StaticFiles(directory=place.quarantine, check_dir=False)),
            Mount("/", StaticFiles(directory=place.reports, html=True, check_dir=False)),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=check)],
    )


def bundle_page(workspace: Workspace, version: str) -> str:
    """Return a page about the bundle of a version: how to serve it, its model card, its files.

    Raises:
        InputError: It has not been built.
    """
    from sarflood.serving.bundle import bundle_folder, stored_tag

    tag = stored_tag(version, workspace.bentos)
    folder = bundle_folder(tag, workspace.bentos)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = [(path.relative_to(folder).as_posix(), f"{path.stat().st_size:,}") for path in files]
    card = (folder / "src" / "package" / "card.md").read_text("utf-8")
    facts = [("folder", str(folder)), ("serve it", f"sarflood serve {version}")]
    return page(
        tag,
        [
            f"<header><h1>{escape(tag)}</h1></header>",
            section("Bundle", table(("", ""), facts, kind="plain")),
            f'<section class="card">{from_markdown(card)}</section>',
            section("Files", table(("", "bytes"), sizes)),
        ],
    )


if __name__ == "__main__":
    app = create_pages(Site(Workspace(Path(sys.argv[2]))))
    uvicorn.run(app, host=HOST, port=int(sys.argv[1]), log_level="warning")
