from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_serving_app import npy
from tiny import LIMITS, by_torch, speckle, tiny_model

from sarflood.mapping.patches import map_patches
from sarflood.model.package import FloodModel
from sarflood.monitoring.sight import Seen, Sight
from sarflood.params import InputParams
from sarflood.serving import batching
from sarflood.serving.app import create_api
from sarflood.serving.batching import Batches
from sarflood.serving.served import BundleInfo, Served

WITHIN_S = 120.0


class Watched:
    """An engine that notes how many patches it gets at a time, and waits until it may answer."""

    def __init__(self, model: FloodModel) -> None:
        self.model = replace(model, engine=self)
        self.sizes: list[int] = []
        self.called, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()
        self._network = model.network

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(inputs))
        self.called.set()
        assert self.may_answer.wait(WITHIN_S)
        answer: torch.Tensor = self._network(inputs)
        return answer


@pytest.fixture
def watched() -> Watched:
    return Watched(tiny_model())


def served(model: FloodModel, callers: int = 1) -> Served:
    engines = replace(by_torch(model), callers=callers)
    return Served(engines, BundleInfo(version="v0.1.0", serving=LIMITS))


def patches(*counts: int) -> list[NDArray[np.float16]]:
    """Requests of so many patches each, all of them different."""
    seeds = iter(range(sum(counts)))
    return [
        np.stack([speckle(2, 256, 256, next(seeds)) for _ in range(count)]).astype(np.float16)
        for count in counts
    ]


def answered(
    batches: Batches, requests: Sequence[NDArray[np.float16]]
) -> list[NDArray[np.uint8] | BaseException]:
    async def ask() -> list[NDArray[np.uint8] | BaseException]:
        asked = [batches.masks(images) for images in requests]
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), WITHIN_S)

    return asyncio.run(ask())


@pytest.mark.parametrize("callers", [1, 3])
def test_each_gets_the_masks_of_its_own_patches(watched: Watched, callers: int) -> None:
    requests = patches(1, 3, 20, 1, 1, 2, 1, 5)
    requests[1][0, 0, :9] = np.nan
    batches = Batches(lambda: served(watched.model, callers), lambda _: None)
    for images, masks in zip(requests, answered(batches, requests), strict=True):
        assert isinstance(masks, np.ndarray)
        np.testing.assert_array_equal(masks, map_patches(tiny_model(), images))
    assert sum(watched.sizes) == 34
    assert max(watched.sizes) == 16 // callers


def test_the_scale_of_a_request_is_that_of_its_own_patches(watched: Watched) -> None:
    params = InputParams(speckle_filter="none", normalisation="event", fixed_db={})
    manifest = watched.model.manifest.model_copy(
        update={"input": params, "mean": (0.0, 0.0), "std": (1.0, 1.0)}
    )
    model = replace(tiny_model(), manifest=manifest)
    requests = patches(2, 2)
    requests[1] += 4
    batches = Batches(lambda: served(replace(watched.model, manifest=manifest)), lambda _: None)
    for images, masks in zip(requests, answered(batches, requests), strict=True):
        assert isinstance(masks, np.ndarray)
        np.testing.assert_array_equal(masks, map_patches(model, images))
    assert watched.sizes == [4]


def test_a_small_request_does_not_wait_for_all_of_a_large_one(watched: Watched) -> None:
    large, small = patches(80, 1)
    batches = Batches(lambda: served(watched.model), lambda _: None)

    async def ask() -> int:
        first = asyncio.create_task(batches.masks(large))
        await asyncio.to_thread(watched.called.wait, WITHIN_S)
        await asyncio.wait_for(batches.masks(small), WITHIN_S)
        done = sum(watched.sizes)
        await asyncio.wait_for(first, WITHIN_S)
        return done

    assert asyncio.run(ask()) < 81


def test_each_request_is_seen_once_and_whole(watched: Watched) -> None:
    requests = patches(20, 1)
    seen: list[Seen | None] = []

    def note(sight: Sight) -> None:
        seen.append(sight.seen("v0.1.0"))

    answered(Batches(lambda: served(watched.model, 2), note), requests)
    assert sorted(item.pixels for item in seen if item) == [32 * 32, 20 * 32 * 32]


def test_a_fault_is_that_of_its_batch_alone(watched: Watched) -> None:
    def broken(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    first, second = patches(1, 1)
    models = [replace(watched.model, engine=broken), watched.model]
    batches = Batches(lambda: served(models[0]), lambda _: None)
    (fault,) = answered(batches, [first])
    assert isinstance(fault, RuntimeError)
    del models[0]
    (masks,) = answered(batches, [second])
    np.testing.assert_array_equal(masks, map_patches(tiny_model(), second))


def test_more_requests_than_may_wait_are_put_off(watched: Watched) -> None:
    (images,) = patches(1)
    watched.may_answer.clear()

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_api(lambda: served(watched.model)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            def post() -> Coroutine[Any, Any, httpx.Response]:
                return client.post("/predict/patches", content=npy(images), timeout=WITHIN_S)

            # One is computed, 64 wait.
            waiting = [asyncio.create_task(post())]
            await asyncio.to_thread(watched.called.wait, WITHIN_S)
            waiting += [asyncio.create_task(post()) for _ in range(66)]
            put_off, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            watched.may_answer.set()
            return [*(await asyncio.gather(*waiting)), *(task.result() for task in put_off)]

    answers = asyncio.run(ask())
    statuses = [answer.status_code for answer in answers[:67]]
    assert (statuses.count(200), statuses.count(503)) == (65, 2)
    for answer in answers[67:]:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"].startswith("busy: 64 requests wait")


def test_memory_is_handed_back_after_the_answers_also_where_no_pause_is(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    monkeypatch.setattr(batching, "_HAND_BACK_S", 0.0)
    monkeypatch.setattr(batching, "hand_back", lambda: done.append(len(watched.sizes)))
    batches = Batches(lambda: served(watched.model), lambda _: None)
    answered(batches, patches(20, 20))
    assert done[:2] == [1, 2]
