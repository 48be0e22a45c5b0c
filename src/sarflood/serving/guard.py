"""Who may ask the service, and what its answers tell a browser."""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sarflood.serving.page import ASSETS

# What is answered without the token; none of it says anything of models, maps, or who asked.
OPEN = frozenset({"/", "/livez", "/readyz", "/openapi.json"})
OPEN_BELOW = (f"{ASSETS}/",)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Asks for the token at all addresses but the open ones, and adds headers for browsers.

    It stands around the whole of BentoML's application, whose own addresses are asked about, too.

    Args:
        app: What answers.
        token: What is asked for; "" for nothing.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or hand on; see ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over websockets
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._app if self._may(scope) else _REFUSAL
        await app(scope, receive, send_guarded)

    def _may(self, scope: Scope) -> bool:
        path = scope["path"]
        if not self._expected or path in OPEN or path.startswith(OPEN_BELOW):
            return True
        given = Headers(scope=scope).get("authorization", "").encode("latin-1")
        return secrets.compare_digest(given, self._expected)


_REFUSAL = JSONResponse(
    {"error": "the token: missing or wrong; send it as `Authorization: Bearer …`"},
    status_code=401,
    headers={"WWW-Authenticate": "Bearer"},
)
