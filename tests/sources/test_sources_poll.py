"""A real STAC API is asked for new items: paged, busy, broken, repeating, and hostile."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stac_server import DROP, StacServer, stac_server
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

from sarflood.errors import InputError, NetworkError
from sarflood.params import PollArea
from sarflood.sources import poll, remote
from sarflood.sources.event import ID_PATTERN
from sarflood.sources.poll import NewItem, Seen, new_items, plain, seen_items
from sarflood.workspace import Workspace


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StacServer]:
    monkeypatch.setattr(remote, "_WAIT_S", 0.0)
    with stac_server(tmp_path / "files") as made:
        yield made


def area(server: StacServer, **changes: Any) -> PollArea:
    said = {
        "name": "manila",
        "url": server.url,
        "collections": ["sentinel-1-rtc"],
        "bbox": [120.0, 14.0, 121.0, 15.0],
    }
    return PollArea.model_validate({**said, **changes})


def names(items: list[NewItem]) -> list[str]:
    return [item.name for item in items]


def publish_five(server: StacServer) -> None:
    for name, days_ago in (("c", 3), ("e", 1), ("a", 5), ("d", 2), ("b", 4)):
        server.publish(name, days_ago)


def test_all_pages_are_read_and_the_oldest_item_comes_first(server: StacServer) -> None:
    publish_five(server)
    server.publish("long-ago", 40)
    server.publish("elsewhere", 1, bbox=(0, 0, 1, 1))
    server.publish("optical", 1, collection="sentinel-2")
    found = new_items(area(server), ())
    assert names(found) == ["a", "b", "c", "d", "e"]
    assert server.asked.count("/search") == 3
    assert found[0].address == f"{server.url}collections/sentinel-1-rtc/items/a"
    assert [item.problem for item in found] == [None] * 5


def test_an_item_on_two_pages_is_one(server: StacServer) -> None:
    publish_five(server)
    server.items.repeats = True
    assert names(new_items(area(server), ())) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("fault", [503, 500, 429])
def test_a_busy_server_is_asked_again(fault: int, server: StacServer) -> None:
    publish_five(server)
    server.faults["/"] = [fault]
    server.faults["/search"] = [fault, fault]
    assert len(new_items(area(server), ())) == 5
    assert server.asked == ["/", "/", *["/search"] * 5]


@pytest.mark.parametrize("faults", [[503] * 9, [DROP]])
def test_a_server_that_fails_is_named(faults: list[int | str], server: StacServer) -> None:
    publish_five(server)
    server.faults["/search"].extend(faults)
    with pytest.raises(NetworkError, match=f"^{server.url}search: does not answer as it should"):
        new_items(area(server), ())
    server.faults.clear()
    assert len(new_items(area(server), ())) == 5


def test_no_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAIT_S", 0.0)
    with stac_server(tmp_path) as gone:
        pass
    with pytest.raises(NetworkError, match=gone.url):
        new_items(area(gone), ())


def test_a_known_item_is_not_new_and_a_late_one_is(server: StacServer, tmp_path: Path) -> None:
    place, manila = Workspace(tmp_path), area(server)
    server.publish("b", 2)
    server.publish("c", 1)
    with seen_items(place, manila) as seen:
        first, second = new_items(manila, seen)
        seen.keep(first)
        seen.keep(second, "it is broken")
    server.publish("a", 20)  # acquired before the others, published after them
    with seen_items(place, manila) as seen:
        assert names(new_items(manila, seen)) == ["a"]
    held = json.loads((tmp_path / ".sarflood/poll/manila.json").read_text("utf-8"))
    assert held["sentinel-1-rtc/b"] == {"event": first.event, "refused": None}
    assert held["sentinel-1-rtc/c"] == {"event": second.event, "refused": "it is broken"}


def test_a_memory_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manila.json"
    path.write_text('{"a": ', "utf-8")
    with pytest.raises(InputError, match=r"manila\.json: cannot be read.*remove it"):
        Seen(path)


def test_the_oldest_items_are_taken_first_and_the_rest_later(server: StacServer) -> None:
    publish_five(server)
    few = area(server, max_items=2)
    first = new_items(few, ())
    assert names(first) == ["a", "b"]
    assert names(new_items(few, {item.key for item in first})) == ["c", "d"]


def test_an_area_may_cross_the_antimeridian(server: StacServer) -> None:
    server.publish("west", 2, bbox=(179.0, -18.0, 179.5, -17.5))
    server.publish("east", 1, bbox=(-179.9, -18.0, -179.5, -17.5))
    server.publish("between", 1, bbox=(0.0, -18.0, 1.0, -17.5))
    fiji = area(server, name="fiji", bbox=[177.0, -19.0, -178.0, -16.0])
    assert names(new_items(fiji, ())) == ["west", "east"]


def test_event_ids_are_valid_and_of_one_item_each(server: StacServer) -> None:
    long = "S1A_IW_GRDH_1SDV_20201112T052123_20201112T052148_035211_041C9D"
    for name in ("S1.A", "s1-a", "s1_a", f"{long}_A", f"{long}_B", "ä" * 200):
        server.publish(name, 1)
    server.publish("s1-a", 1, collection="other")
    manila = area(server, name="m" * 20, collections=["sentinel-1-rtc", "other"])
    events = [item.event for item in new_items(manila, ())]
    assert len(set(events)) == 7
    assert all(re.fullmatch(ID_PATTERN, event) for event in events)
    assert events == [item.event for item in new_items(manila, ())]
    assert any(re.fullmatch(r"m{20}-s1a-iw-grdh-1sdv-20201112t052-[0-9a-f]{12}", e) for e in events)


@pytest.mark.parametrize("how", ["page", "redirect", "item", "file"])
def test_another_server_is_never_asked(how: str, server: StacServer, tmp_path: Path) -> None:
    with stac_server(tmp_path / "other") as other:
        aim = "file:///etc/passwd" if how == "file" else f"{other.url}search"
        answer = {"type": "FeatureCollection", "features": [{}], "links": []}
        if how == "page":
            answer["links"] = [{"rel": "next", "href": aim}]
            server.faults["/search"] = [JSONResponse(answer)]
        elif how == "redirect":
            server.faults["/search"] = [RedirectResponse(aim)]
        else:
            server.publish("a", 1, links=[{"rel": "self", "href": aim}])
            (item,) = new_items(area(server), ())
            assert item.problem is not None
            assert f"names {aim} on another server" in item.problem
        if how in {"page", "redirect"}:
            with pytest.raises(InputError, match=f"names {aim} on another server"):
                new_items(area(server), ())
        assert other.asked == []


def test_odd_items_are_refused_and_do_not_hide_the_others(server: StacServer) -> None:
    link = [{"rel": "self", "href": "/collections/x/items/y"}]
    odd: list[Any] = [
        None,
        [],
        {},
        {"id": "a\x1b[2J", "properties": {"datetime": "2020-01-01"}, "links": link},
        {"id": "n" * 300, "properties": {"datetime": "2020-01-01"}, "links": link},
        {"id": "no-time", "properties": {"datetime": None}, "links": link},
        {"id": "bad-time", "properties": {"datetime": "0001-01-01T00:00+14:00"}, "links": link},
        {"id": "no-link", "properties": {"datetime": "2020-01-01"}, "links": []},
        {"id": "ranged", "properties": {"start_datetime": "2020-01-02T00:00Z"}, "links": link},
    ]
    server.faults["/search"] = [JSONResponse({"features": odd, "links": []})]
    found = {item.name: item for item in new_items(area(server), ())}
    assert len(found) == len(odd)
    assert found["ranged"].problem is None
    assert found["ranged"].address == f"{server.url}collections/x/items/y"
    for name in ("no-time", "bad-time", "no-link"):
        assert (
            found[name].problem == "not a STAC item: needs an id, a datetime and a link to itself"
        )
    unnamed = [name for name in found if "without a sound id" in name]
    assert len(unnamed) == 5
    assert all(name.isprintable() for name in found)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (PlainTextResponse("<html>"), "does not answer as a STAC API"),
        (
            PlainTextResponse(f'{{"features": [{"[" * 1000}{"]" * 1000}]}}'),
            "does not answer as a STAC API",
        ),
        (JSONResponse([1]), "does not answer as a STAC API"),
        (JSONResponse({"features": 7, "links": []}), "does not answer as a STAC API"),
        (JSONResponse({"features": [{}], "links": [{"href": "x"}]}), "does not answer as a STAC"),
        (PlainTextResponse(" " * 2000), "more than 1,000 bytes|2,000 bytes; at most 1,000"),
        (PlainTextResponse("", 404), "search: 404 Not Found"),
    ],
)
def test_what_is_no_stac_api_is_said(
    answer: PlainTextResponse, said: str, server: StacServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said.startswith("more"):
        monkeypatch.setattr(remote, "MAX_JSON_BYTES", 1000)
        server.faults["/"] = [answer]
    server.faults["/search"] = [answer]
    with pytest.raises(InputError, match=said) as caught:
        new_items(area(server), ())
    assert server.url in str(caught.value)


def test_pages_without_end_are_an_error(
    server: StacServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "MAX_FOUND", 10)
    link = {"rel": "next", "href": f"{server.url}search"}
    page = JSONResponse({"features": [{"id": "a"}], "links": [link]})
    server.faults["/search"] = [page] * 50
    with pytest.raises(
        InputError, match=r"more than 10 items; lower since_days of the area manila"
    ):
        new_items(area(server), ())
    assert server.asked.count("/search") == 11


def test_a_reason_is_one_plain_line() -> None:
    assert plain("a\x1b[31m\nb" + "c" * 2000) == "a [31m b" + "c" * 992
