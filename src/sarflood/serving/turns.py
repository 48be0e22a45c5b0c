"""How many requests are let in, whose turn it is, and for how long."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import anyio
from anyio import from_thread, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from sarflood.errors import TooLargeError

AT_MOST = 16  # uploads at once: each takes up to the limit of a body on the disk, twice
SMALL_AT_MOST = 128  # of those that are kept in memory
_RETRY = {"Retry-After": "30"}
Answer = TypeVar("Answer")


class Turns:
    """Lets requests in, and one of them at a time to the network, which has all cores then.

    Args:
        at_most: How many may be in.
    """

    def __init__(self, at_most: int = AT_MOST) -> None:
        self._at_most, self._inside = at_most, 0
        self._turn = anyio.CapacityLimiter(1)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Let a request in before its body is taken.

        Raises:
            HTTPException: Too many are in (429).
        """
        if self._inside >= self._at_most:
            raise HTTPException(
                429, f"{self._at_most} others are at work; send it again later", _RETRY
            )
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @asynccontextmanager
    async def turn(self, max_seconds: float) -> AsyncIterator[float]:
        """Wait for one's turn; it lasts as long as the block. Yields how long the wait was.

        Raises:
            HTTPException: It has not come within `max_seconds` (503).
        """
        started = time.monotonic()
        holder = object()
        try:
            with anyio.fail_after(max_seconds):
                await self._turn.acquire_on_behalf_of(holder)
        except TimeoutError as error:
            raise HTTPException(503, "others are at work; send it again later", _RETRY) from error
        try:
            yield time.monotonic() - started
        finally:
            self._turn.release_on_behalf_of(holder)


async def in_thread(
    request: Request, max_seconds: float, work: Callable[[Callable[[object], None]], Answer]
) -> Answer:
    """Run work off the event loop.

    Args:
        request: Whose it is.
        max_seconds: How long it may take.
        work: Calls what it is given now and then, with anything: it raises there once the time is
            up, or once the client has gone. A thread cannot be ended from outside.

    Raises:
        TooLargeError: The time is up.
        ClientDisconnect: The client has gone.
    """
    deadline = time.monotonic() + max_seconds

    def go_on(_: object) -> None:
        if time.monotonic() > deadline:
            raise TooLargeError(
                f"the body: not mapped within {max_seconds:g} s; send a smaller one"
            )
        if from_thread.run(request.is_disconnected):
            raise ClientDisconnect

    return await to_thread.run_sync(work, go_on)
