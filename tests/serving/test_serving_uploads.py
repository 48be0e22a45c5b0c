from __future__ import annotations

from typing import Any

import anyio
import pytest
from starlette.requests import Request

from sarflood.errors import TooLargeError
from sarflood.params import ServingParams
from sarflood.serving.uploads import received_patches, received_scenes

PIECE = 100_000
LIMITS = ServingParams.model_construct(max_megabytes=1, max_megapixels=1, max_seconds=60.0)


class Sender:
    """A client that sends without end, and counts what was taken from it."""

    def __init__(self, **headers: str) -> None:
        raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        self.request = Request({"type": "http", "method": "POST", "headers": raw}, self._receive)
        self.taken = 0

    async def _receive(self) -> dict[str, Any]:
        self.taken += PIECE
        return {"type": "http.request", "body": bytes(PIECE), "more_body": True}


def take_scenes(request: Request) -> None:
    async def take() -> None:
        async with received_scenes(request, LIMITS):
            pytest.fail("was taken")

    anyio.run(take)


def take_patches(request: Request) -> None:
    async def take() -> None:
        async with received_patches(request, LIMITS, (2, 256, 256)):
            pytest.fail("was taken")

    anyio.run(take)


@pytest.mark.parametrize("announced", [{}, {"content_length": "5"}, {"content_length": "-1"}])
def test_an_endless_body_is_taken_no_further_than_the_limit(announced: dict[str, str]) -> None:
    sender = Sender(**announced)
    with pytest.raises(TooLargeError, match="more than 1 MB"):
        take_patches(sender.request)
    assert sender.taken <= 1_000_000 + PIECE


def test_a_body_announced_too_large_is_not_taken_at_all() -> None:
    form = {"content_type": "multipart/form-data; boundary=x", "content_length": "1000001"}
    for take, headers in ((take_patches, {"content_length": "1000001"}), (take_scenes, form)):
        sender = Sender(**headers)
        with pytest.raises(TooLargeError, match="more than 1 MB"):
            take(sender.request)
        assert sender.taken == 0
