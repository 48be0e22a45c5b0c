"""The server of a bundle: its own process, on sockets that the parent holds.

Started as a script, `python -P run.py BUNDLE PRIVATE [PUBLIC]`, so that the `sarflood` it serves
is the bundle's own copy: nothing of this `sarflood` is imported here. PRIVATE and PUBLIC are file
descriptors of bound sockets. The bundle is what BentoML makes of it, and needs no code for this.

It listens on PRIVATE as soon as the model has answered its recorded patches. The parent speaks a
word a line by stdin: `accept`, and it takes connections from PUBLIC too; `drain`, and it takes no
more from either, answers what comes by those it has, and ends with the last of them. When stdin
ends, as when the parent dies, so does the server.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from functools import partial
from typing import Any

import bentoml
import uvicorn

KEEP_ALIVE_S = 30  # a connection on which nothing is asked for so long is closed, draining or not
PATIENCE_S = 5  # for requests in flight when the server is told to end
_LOOK_EVERY_S = 0.1


class Server(uvicorn.Server):
    """Takes connections from the public socket only between `accept` and `drain`."""

    def __init__(self, app: Any, public: Any) -> None:
        super().__init__(
            uvicorn.Config(
                self._answer,
                interface="asgi3",  # it cannot be told of a method
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,  # BentoML has its own
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=PATIENCE_S,
            )
        )
        self._app, self._public, self._draining = app, public, False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the model, listen on the private socket, then obey."""
        await super().startup(sockets)
        self._obeying = asyncio.create_task(self._obey())

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request; while draining, tell the client to bring the next one elsewhere."""

        async def send_last(message: Any) -> None:
            if self._draining and message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_last)

    async def _obey(self) -> None:
        words = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, words), sys.stdin)
        while word := (await words.readline()).strip():
            if word == b"accept":
                await self._accept()
            elif word == b"drain":
                await self._drain()
        self.should_exit = True

    async def _accept(self) -> None:
        make: Any = self.config.http_protocol_class
        protocol = partial(
            make,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        self.servers.append(
            await loop.create_server(protocol, sock=self._public, backlog=self.config.backlog)
        )

    async def _drain(self) -> None:
        """Take no more connections; wait for those that are there, but not for idle ones."""
        self._draining = True
        loop = asyncio.get_running_loop()
        until = loop.time() + KEEP_ALIVE_S
        # Closed at once, asyncio would drop what it has taken in this same turn of its loop, which
        # is not among the connections yet.
        for listening in self.servers:
            for taken_from in listening.sockets:
                loop.remove_reader(taken_from)
        await asyncio.sleep(_LOOK_EVERY_S)
        for listening in self.servers:
            listening.close()
        while self.server_state.connections and loop.time() < until:
            await asyncio.sleep(_LOOK_EVERY_S)
        self.config.timeout_graceful_shutdown = None  # what is in flight ends in its own time
        self.should_exit = True


def main() -> None:
    """Serve the bundle that the command line names."""
    bundle, *descriptors = sys.argv[1:]
    private, *public = (socket.socket(fileno=int(number)) for number in descriptors)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    service: Any = bentoml.load(bundle, standalone_load=True)
    Server(service.to_asgi(), public[0] if public else None).run(sockets=[private])


if __name__ == "__main__":
    main()
