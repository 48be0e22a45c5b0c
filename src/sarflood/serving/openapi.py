"""What `/openapi.json` says of the addresses: bodies, answers, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict

from sarflood.mapping.bands import ROLES
from sarflood.serving.access import TOKEN
from sarflood.serving.answers import FORM, MASK, POLYGONS, PROBABILITY, SUMMARY
from sarflood.serving.metrics import CONTENT_TYPE
from sarflood.serving.uploads import NPY_TYPE

_DESCRIPTION = f"""\
Maps flood water in Sentinel-1 scenes. All addresses ask for the token that the service was started
with (`{TOKEN}`), but those that hold nothing. Every refusal is one sentence."""
_NPY_VERSION = "an array as `numpy.save` writes it"


class Refusal(BaseModel):
    """Why there is no answer."""

    model_config = ConfigDict(extra="forbid")

    error: str


class Summary(BaseModel):
    """The figures of a map.

    `flooded_share` and `confidence` (the mean of max(p, 1 − p)) are of the pixels with data, whose
    area is `valid_km2`.
    `outside_training_range` is the share of these in which a band lies beyond the values that
    99.8 % of its training pixels have; null where the version does not know them. `confidence` and
    it look at every 8th pixel of every 8th row. `polygons` counts the separate wet areas.
    """

    model_config = ConfigDict(extra="forbid")

    version: str
    label: str
    flooded_km2: float
    flooded_share: float
    valid_km2: float
    valid_share: float
    threshold: float
    engine: str
    width: int
    height: int
    crs: str
    polygons: int
    confidence: float | None
    outside_training_range: float | None
    seconds: dict[str, float]


_REASONS = {
    401: "The token is missing or wrong.",
    405: "Another method.",
    406: "None of the answers is accepted.",
    408: "The body has not come in time.",
    413: "More bytes, pixels or time than is given, or files that were packed to do harm.",
    415: "The body, or a file in it, is of another type.",
    422: "The input is not as it should be; the sentence says what came and what is needed.",
    429: "Too many uploads at once.",
    503: "Too many wait, others were at work for too long, or the service has no room on its disk.",
}
_BINARY = {"type": "string", "format": "binary"}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    headers = {
        401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
        405: {"Allow": {"schema": {"type": "string"}}},
        429: {"Retry-After": {"schema": {"type": "integer"}}},
        503: {"Retry-After": {"schema": {"type": "integer"}}},
    }
    return {
        status: {
            "model": Refusal,
            "description": _REASONS[status],
            **({"headers": headers[status]} if status in headers else {}),
        }
        for status in statuses
    }


def _body(content: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "description": description, "content": dict(content)}}


_FORM = {
    "type": "object",
    "properties": {
        name: {**_BINARY, "description": f"A GeoTIFF with {what}."}
        for name, what in zip(
            ROLES,
            (
                "all bands of the scene, found by their descriptions (VV, VH, VV_PRE, VH_PRE)",
                "VV alone",
                "VH alone",
                "all bands of the scene from before the event, on the same grid",
                "VV from before the event alone",
                "VH from before the event alone",
            ),
            strict=True,
        )
    },
    "additionalProperties": False,
    "oneOf": [
        {"required": ["scene"]},
        {"anyOf": [{"required": ["scene_vv"]}, {"required": ["scene_vh"]}]},
    ],
}
_SUMMARY = {"$ref": "#/components/schemas/Summary"}
_MAP = {
    "type": "object",
    "properties": {
        "summary": _SUMMARY,
        "overlay": {
            "type": "object",
            "properties": {
                "bounds": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                }
            },
        },
        **dict.fromkeys(
            ("flood.tif", "probability.tif", "flood.geojson", "radar.png", "flood.png"), _BINARY
        ),
    },
}
PREDICT: dict[str, Any] = {
    "response_class": Response,
    "openapi_extra": _body(
        {
            "multipart/form-data": {
                "schema": _FORM,
                "encoding": {name: {"contentType": "image/tiff"} for name in ROLES},
            }
        },
        "Georeferenced radar backscatter in dB, linear power or 8-bit grey levels, as the model "
        "was trained on it: one file, or one for each polarisation; the same from before the event "
        "for a model that compares the two.",
    ),
    "responses": {
        200: {
            "description": "The map, in the media type that `Accept` likes best: the figures, the "
            "wet areas as polygons with `area_km2` and `mean_probability`, the mask (0 dry, 1 wet, "
            "255 no data) or the probability (in percent, 255 no data) as cloud-optimised GeoTIFF; "
            "or a form of all of these, with radar and flood as pictures in Web Mercator and their "
            "`bounds` (west, south, east, north in degrees; east may be beyond 180).",
            "content": {
                SUMMARY: {"schema": _SUMMARY},
                POLYGONS: {"schema": {"type": "object", "required": ["type", "features"]}},
                MASK: {"schema": _BINARY},
                PROBABILITY: {"schema": _BINARY},
                FORM: {"schema": _MAP},
            },
        },
        **_refusals(401, 405, 406, 408, 413, 415, 422, 429, 503),
    },
}
PATCHES: dict[str, Any] = {
    "response_class": Response,
    "openapi_extra": _body(
        {NPY_TYPE: {"schema": _BINARY}},
        f"{_NPY_VERSION}: (N, C, 256, 256) float16 or float32 in the model's bands and units, NaN "
        "no data. Without a content type it is taken for one.",
    ),
    "responses": {
        200: {
            "description": f"The masks, {_NPY_VERSION}: (N, 256, 256) uint8, 0 dry, 1 wet, 255 no "
            "data.",
            "content": {NPY_TYPE: {"schema": _BINARY}},
        },
        **_refusals(401, 405, 408, 413, 415, 422, 429, 503),
    },
}
MODEL: dict[str, Any] = {"responses": _refusals(401, 405)}
METRICS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "Requests, seconds, batches, wet shares, drift and version.",
            "content": {CONTENT_TYPE: {"schema": {"type": "string"}}},
        },
        **_refusals(401, 405),
    },
}


def describe(api: FastAPI) -> None:
    """Let an application describe itself, with the health checks that BentoML answers."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            found = get_openapi(
                title=api.title,
                version=api.version,
                description=_DESCRIPTION,
                routes=api.routes,
            )
            found["components"]["schemas"]["Summary"] = Summary.model_json_schema()
            found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"token": []}]
            for path, what in (
                ("/livez", "The process answers."),
                ("/readyz", "The model answered its recorded patches as it was recorded."),
            ):
                found["paths"][path] = {
                    "get": {
                        "summary": what,
                        "security": [],
                        "responses": {
                            "200": {
                                "description": "Yes.",
                                "content": {"text/plain": {"schema": {"type": "string"}}},
                            }
                        },
                    }
                }
            api.openapi_schema = found
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
