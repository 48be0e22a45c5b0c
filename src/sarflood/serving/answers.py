"""What a map is answered as: the media types, which of them a client wants, and their content."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sarflood.mapping.outputs import (
    count_polygons,
    summarise,
    write_mask,
    write_polygons,
    write_probability,
)
from sarflood.mapping.scene import SceneMap
from sarflood.monitoring.sight import Sight
from sarflood.serving.overlay import write_form

MAX_POLYGONS = 200_000  # of one answer; each takes some kB while it is made
SUMMARY, POLYGONS = "application/json", "application/geo+json"
MASK, PROBABILITY = "image/tiff", "image/tiff; product=probability"
FORM = "multipart/form-data"  # all of these, and pictures; see `write_form`
_PIECE = 1 << 20


def _write_polygons(result: SceneMap, path: Path) -> None:
    write_polygons(result, path, at_most=MAX_POLYGONS)


# The first is what a client gets that does not say what it wants.
WRITERS: dict[str, Callable[[SceneMap, Path], None] | None] = {
    SUMMARY: None,
    POLYGONS: _write_polygons,
    MASK: write_mask,
    PROBABILITY: write_probability,
    FORM: None,
}


def wanted(request: Request) -> str:
    """Return the media type of the answer that the client likes best, by `Accept`.

    Raises:
        HTTPException: It accepts none of them (406).
    """
    asked = request.headers.get("accept", "*/*") or "*/*"
    ranges = [_range(part) for part in asked.split(",") if part.strip()]
    # Of equals the one named first.
    for kind, parameters, quality in sorted(ranges, key=lambda item: -item[2]):
        for offered in WRITERS if quality > 0 else ():
            if _fits(kind, parameters, offered):
                return offered
    raise HTTPException(406, f"answers are {', '.join(WRITERS)}")


def _range(part: str) -> tuple[str, set[str], float]:
    """Return type, parameters and quality of a part of `Accept`."""
    kind, *rest = (word.strip().lower() for word in part.split(";"))
    quality = next((word[2:] for word in rest if word.startswith("q=")), "1")
    try:
        number = float(quality)
    except ValueError:
        number = 0.0
    return kind, {word for word in rest if word and not word.startswith("q=")}, number


def _fits(kind: str, parameters: set[str], offered: str) -> bool:
    plain, _, product = offered.partition("; ")
    if product:
        return kind == plain and product in parameters
    if parameters and kind == MASK:
        return offered == MASK and parameters == {"product=mask"}
    return kind in (plain, f"{plain.partition('/')[0]}/*", "*/*")


def answer_map(
    result: SceneMap,
    kind: str,
    path: Path,
    *,
    version: str,
    sight: Sight,
    seconds: dict[str, float],
) -> Response:
    """Return the answer of a media type.

    Args:
        result: The map.
        kind: One of `WRITERS`.
        path: Where its file may lie until the answer has been sent.
        version: The model's.
        sight: What was seen of the scene.
        seconds: How long it waited and came, by what for.
    """
    write = WRITERS[kind]
    if write:
        write(result, path)
        return _file(path, kind)
    content = figures(result, version, sight)
    content["seconds"] = {
        **{key: round(value, 3) for key, value in seconds.items()},
        **content["seconds"],
    }
    if kind == FORM:
        return _file(path, write_form(result, content, path, max_polygons=MAX_POLYGONS))
    return Response(json.dumps(content, allow_nan=False), media_type=kind)


def _file(path: Path, kind: str) -> Response:
    size = {"Content-Length": str(path.stat().st_size)}
    return StreamingResponse(_pieces(path), media_type=kind, headers=size)


def figures(result: SceneMap, version: str, sight: Sight) -> dict[str, Any]:
    """Return the figures of a map as plain JSON: `summarise`, and what only a service says."""
    seen, outside = sight.seen(version), sight.outside_share
    return {
        **summarise(result, version),
        "polygons": count_polygons(result),
        "confidence": round(seen.confidence, 4) if seen else None,
        "outside_training_range": None if outside is None else round(outside, 4),
    }


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_PIECE):
            yield piece
