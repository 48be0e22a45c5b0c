"""What the service counts, for Prometheus: requests, batches, and what the maps look like."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sarflood.monitoring.sight import Seen

CONTENT_TYPE = CONTENT_TYPE_LATEST
# BentoML names it to its workers; what they count then outlives each of them.
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_SHARES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)

_requests = Counter("sarflood_requests", "Answers by address and status", ["path", "status"])
_seconds = Histogram(
    "sarflood_request_seconds",
    "Time to the end of an answer",
    ["path"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900),
)
_batch = Histogram(
    "sarflood_batch_patches",
    "Patches that the network answers at once",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
_wet = Histogram("sarflood_wet_share", "Wet share of an image's pixels with data", buckets=_SHARES)
_confidence = Histogram(
    "sarflood_confidence",
    "Mean of max(p, 1 - p) of an image's pixels",
    buckets=(0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0),
)
_outside = Histogram(
    "sarflood_outside_training_range",
    "Share of an image's pixels with a band beyond the training's values",
    buckets=_SHARES,
)
_drifted = Counter(
    "sarflood_images_outside_training_range",
    "Images with more than a twentieth of their pixels beyond the training's values",
)
_images = Counter("sarflood_images", "Images mapped, a request with patches being one")
_model = Gauge(
    "sarflood_model_info", "1 for the version that serves", ["version"], multiprocess_mode="max"
)
_OUTSIDE_LIMIT = 0.05


def note_model(version: str) -> None:
    """Say which version serves."""
    _model.labels(version).set(1)


def note_batch(patches: int) -> None:
    """Count the patches that the network is given at once."""
    _batch.observe(patches)


def note_image(seen: Seen, outside_share: float | None) -> None:
    """Count an image that was mapped.

    Args:
        seen: Its statistics.
        outside_share: Of its pixels, those beyond the training; None where that is not known.
    """
    _images.inc()
    _wet.observe(seen.wet_share)
    _confidence.observe(seen.confidence)
    if outside_share is not None:
        _outside.observe(outside_share)
        if outside_share > _OUTSIDE_LIMIT:
            _drifted.inc()


def metrics_page() -> bytes:
    """Return all that is counted, as Prometheus reads it."""
    registry = REGISTRY
    if _SHARED in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class Counted:
    """Counts answers by address and status, around all that a service answers.

    BentoML's own count is not used: it has a line for each address that anyone has ever asked for,
    known or not, and so grows without end.

    Args:
        app: What answers.
        paths: The addresses that are told apart; all others are `other`.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app, self._paths = app, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and count the answer; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        started, status = time.monotonic(), "none"

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            status = "500"
            raise
        finally:
            _requests.labels(path, status).inc()
            _seconds.labels(path).observe(time.monotonic() - started)
