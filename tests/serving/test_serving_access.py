from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sarflood.errors import InputError
from sarflood.serving.access import NO_TOKEN, TOKEN, bearer, token_asked_for, token_environment
from sarflood.serving.guard import Guard

SECRET = "kept-by-the-team"


async def answer(_: Request) -> Response:
    return PlainTextResponse("held", headers={"Content-Security-Policy": "default-src 'self'"})


def guarded(token: str) -> TestClient:
    paths = ("/", "/livez", "/readyz", "/model", "/metrics", "/predict")
    app = Starlette(routes=[Route(path, answer) for path in paths])
    return TestClient(Guard(app, token))


@pytest.fixture
def client() -> Iterator[TestClient]:
    with guarded(SECRET) as client:
        yield client


@pytest.mark.parametrize("path", ["/model", "/metrics", "/predict", "/nowhere", "/livez/"])
@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {SECRET[:-1]}"},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": SECRET},
        {"Authorization": "Bearer \xe9\xff".encode("latin-1")},
        {"X-Token": SECRET},
    ],
)
def test_without_the_token_nothing_is_said(
    client: TestClient, path: str, sent: dict[str, str]
) -> None:
    refused = client.get(path, headers=sent)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json() == {
        "error": "the token: missing or wrong; send it as `Authorization: Bearer …`"
    }
    assert client.get(f"{path}?token={SECRET}").status_code == 401


def test_with_the_token_all_is_answered_and_without_it_what_holds_nothing(
    client: TestClient,
) -> None:
    assert client.get("/model", headers=bearer(SECRET)).text == "held"
    assert client.get("/nowhere", headers=bearer(SECRET)).status_code == 404
    assert {client.get(path).status_code for path in ("/", "/livez", "/readyz")} == {200}


def test_every_answer_tells_browsers_what_they_may(client: TestClient) -> None:
    for found in (client.get("/model"), client.get("/nowhere", headers=bearer(SECRET))):
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert found.headers["Cache-Control"] == "no-store"
        assert found.headers["Content-Security-Policy"].startswith("default-src 'none'")
    own = client.get("/model", headers=bearer(SECRET)).headers
    assert own["Content-Security-Policy"] == "default-src 'self'"


def test_no_websocket_is_opened(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/livez", headers=bearer(SECRET)),
    ):
        pytest.fail("was opened")


def test_a_service_that_is_to_ask_for_nothing_does_so() -> None:
    with guarded("") as client:
        assert client.get("/model").text == "held"


@pytest.mark.parametrize(
    ("environment", "token"),
    [
        ({TOKEN: SECRET}, SECRET),
        ({NO_TOKEN: "1"}, ""),
        ({TOKEN: SECRET, NO_TOKEN: "0"}, SECRET),
        (token_environment(SECRET), SECRET),
        (token_environment(""), ""),
    ],
)
def test_what_is_asked_for_stands_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], token: str
) -> None:
    for name in (TOKEN, NO_TOKEN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert token_asked_for() == token


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no token: set SARFLOOD_TOKEN"),
        ({TOKEN: ""}, "no token"),
        ({NO_TOKEN: "yes"}, "no token"),
        ({TOKEN: SECRET, NO_TOKEN: "1"}, "both set"),
        ({TOKEN: "two words"}, "a header can send"),
        ({TOKEN: "line\n"}, "a header can send"),
        ({TOKEN: "schlüssel"}, "a header can send"),
    ],
)
def test_a_token_that_was_forgotten_or_cannot_be_sent_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name in (TOKEN, NO_TOKEN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        token_asked_for()
