from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from sarflood.serving.turns import AT_MOST, Turns, in_thread


def test_no_more_are_let_in_than_there_is_room_for() -> None:
    turns = Turns()
    with ExitStack() as stack:
        for _ in range(AT_MOST):
            stack.enter_context(turns.admitted())
        with pytest.raises(HTTPException, match="429"), turns.admitted():
            pytest.fail("was let in")
    with turns.admitted():
        pass


def test_one_has_its_turn_and_others_wait_in_vain_or_until_it_ends() -> None:
    turns, order = Turns(), []

    async def one(ended: anyio.Event) -> None:
        async with turns.turn(60):
            order.append("one")
            await ended.wait()
        order.append("one ended")

    async def other(within_s: float) -> None:
        try:
            async with turns.turn(within_s):
                order.append("other")
        except HTTPException as error:
            order.append(f"other {error.status_code} {(error.headers or {})['Retry-After']}")

    async def all_of_them() -> None:
        ended = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(one, ended)
            await anyio.wait_all_tasks_blocked()
            await other(0.01)
            group.start_soon(other, 60)
            await anyio.wait_all_tasks_blocked()
            ended.set()

    anyio.run(all_of_them)
    assert order == ["one", "other 503 30", "one ended", "other"]


def test_work_ends_when_its_client_has_gone() -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, gone)

    def work(go_on: Any) -> None:
        go_on(0.1)
        pytest.fail("went on")

    with pytest.raises(ClientDisconnect):
        anyio.run(in_thread, request, 60.0, work)
