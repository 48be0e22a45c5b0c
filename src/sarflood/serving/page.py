"""The map page at `/`: static files, and the model's card for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse
from starlette.staticfiles import StaticFiles

from sarflood.markdown import from_markdown
from sarflood.serving.served import Served

ASSETS = "/page"  # the address below which the page's files are; they hold no secrets
_FOLDER = Path(__file__).with_name("assets")
_HEADERS = {
    # Nothing inline, nothing from elsewhere. `blob:` are the pictures of an answer.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # asks whether it changed: another version may answer here
}


def add_page(api: FastAPI, served: Callable[[], Served]) -> None:
    """Add the page, its files, and the model's card as it shows it."""
    api.mount(ASSETS, _Assets(directory=_FOLDER))

    @api.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)

    @api.get("/model/card", include_in_schema=False)
    async def card() -> Response:
        text = served().card or "This version has no card."
        return HTMLResponse(from_markdown(text), headers=_HEADERS)


class _Assets(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Answer with a file."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response
