"""Patches of many requests, answered together in batches."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from threading import Lock

import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray

from sarflood.errors import SarfloodError
from sarflood.model.allocator import hand_back
from sarflood.model.package import FloodModel
from sarflood.monitoring.sight import Sight
from sarflood.serving.metrics import note_batch
from sarflood.serving.served import Served

# Patches that are computed at a time, by all callers of an engine together: more are no faster.
_AT_A_TIME = 16
_MOST_WAITING = 64  # requests
_HAND_BACK_S = 30.0  # at least, between two batches after which free memory is handed back


class BusyError(SarfloodError):
    """As many requests wait as may (HTTP 503).

    Attributes:
        retry_after_s: When they are answered, about.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"busy: {_MOST_WAITING} requests wait; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class _Request:
    """The patches of a request, and what is known of their masks."""

    def __init__(self, served: Served, images: NDArray[np.floating]) -> None:
        self.images, self.scaling = images, served.model.scaling_of(images)
        self.masks = np.empty((len(images), *images.shape[2:]), np.uint8)
        self.sight = Sight(served.model.manifest, served.ranges)
        self.answered = asyncio.get_running_loop().create_future()
        self._given = self._done = 0
        self._lock = Lock()

    @property
    def waiting(self) -> int:
        """How many patches are in no batch yet."""
        return len(self.images) - self._given

    def give(self, most: int) -> slice:
        """Return which patches are next."""
        start = self._given
        self._given = min(start + most, len(self.images))
        return slice(start, self._given)

    @property
    def is_done(self) -> bool:
        """Whether all patches are answered."""
        return self._done == len(self.images)

    def take(self, where: slice, probabilities: NDArray[np.float32], model: FloodModel) -> bool:
        """Take in answers, from any thread; say whether they were the last."""
        self.masks[where] = model.masks(probabilities)
        with self._lock:
            self.sight.add(self.images[where], probabilities)
            self._done += len(probabilities)
            return self.is_done


_Batch = list[tuple[_Request, slice]]


class Batches:
    """Answers requests in batches: those that came while the last ones were computed.

    Each request has its share of a batch, so that a small one does not wait for all of a large one.

    Args:
        served: Gives the model on its engine, once there is a request.
        on_answered: Is told what was seen of a request, in another thread.
    """

    def __init__(
        self, served: Callable[[], Served], on_answered: Callable[[Sight], object]
    ) -> None:
        self._served, self._on_answered = served, on_answered
        self._waiting: deque[_Request] = deque()
        self._callers: set[asyncio.Task[None]] = set()
        self._patch_s = 0.0  # that a patch of the last batch took
        self._handed_back = time.monotonic()

    async def masks(self, images: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Answer the patches of one event.

        Args:
            images: (N, C, H, W) in the model's bands and units; NaN is no data.

        Returns:
            (N, H, W) uint8 masks: 0 dry, 1 wet, 255 no data.

        Raises:
            BusyError: Too many requests wait already.
        """
        if len(self._waiting) >= _MOST_WAITING:
            seconds = sum(request.waiting for request in self._waiting) * self._patch_s
            raise BusyError(max(1, math.ceil(seconds / self._served().engines.callers)))
        request = _Request(self._served(), images)
        if len(images):
            self._waiting.append(request)
            if len(self._callers) < self._served().engines.callers:
                caller = asyncio.create_task(self._call())
                self._callers.add(caller)
                caller.add_done_callback(self._callers.discard)
            await request.answered
        return request.masks

    async def _call(self) -> None:
        """Compute one batch after the other, until no request waits."""
        while batch := self._next():
            started = time.monotonic()
            computing = asyncio.ensure_future(run_sync(self._compute, batch))
            await asyncio.wait([computing])
            fault = None if computing.cancelled() else computing.exception()
            for request in {request for request, _ in batch}:
                if fault and not request.answered.done():
                    request.answered.set_exception(fault)
                elif request.is_done and not request.answered.done():
                    request.answered.set_result(None)
            patches = sum(where.stop - where.start for _, where in batch)
            self._patch_s = (time.monotonic() - started) / patches
            if time.monotonic() - self._handed_back > _HAND_BACK_S:
                self._handed_back = time.monotonic()
                await run_sync(hand_back)  # its requests are answered

    def _compute(self, batch: _Batch) -> None:
        note_batch(sum(where.stop - where.start for _, where in batch))
        model = self._served().engines.patches
        found = model.probabilities_of(
            [(request.images[where], request.scaling) for request, where in batch]
        )
        for (request, where), probabilities in zip(batch, found, strict=True):
            if request.take(where, probabilities, model):
                self._on_answered(request.sight)

    def _next(self) -> _Batch:
        """Return the next batch: its share for each that waits, the first come first."""
        callers = self._served().engines.callers
        waiting = sum(request.waiting for request in self._waiting)
        room = min(max(1, _AT_A_TIME // callers), math.ceil(waiting / callers))
        batch = []
        while room and self._waiting:
            request = self._waiting.popleft()
            if request.answered.done():  # failed, or given up
                continue
            where = request.give(max(1, room // (len(self._waiting) + 1)))
            batch.append((request, where))
            room -= where.stop - where.start
            if request.waiting:
                self._waiting.append(request)
        return batch
