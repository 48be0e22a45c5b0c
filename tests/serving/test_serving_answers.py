from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sarflood.serving.answers import MASK, POLYGONS, PROBABILITY, SUMMARY, wanted


def asking(accept: str | None) -> Request:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    return Request({"type": "http", "method": "POST", "path": "/predict", "headers": headers})


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, SUMMARY),
        ("", SUMMARY),
        ("*/*", SUMMARY),
        ("application/*", SUMMARY),
        ("application/json", SUMMARY),
        ("application/geo+json", POLYGONS),
        ("image/tiff", MASK),
        ("image/*", MASK),
        ("image/tiff;product=mask", MASK),
        ("image/tiff;product=probability", PROBABILITY),
        ("IMAGE/TIFF; Product=Probability", PROBABILITY),
        ("text/html, application/geo+json;q=0.9, */*;q=0.1", POLYGONS),
        ("application/json;q=0.5, image/tiff;q=0.8", MASK),
        ("application/json;q=0, image/tiff;q=0.1", MASK),
        ("image/tiff, application/json", MASK),
    ],
)
def test_the_client_gets_what_it_likes_best(accept: str | None, kind: str) -> None:
    assert wanted(asking(accept)) == kind


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/json;q=0",
        "application/json;q=much",
        "application/json;q=nan",
        "image/tiff; product=polygons",
        "image",
        ";",
        ",",
    ],
)
def test_what_there_is_no_answer_in_is_refused(accept: str) -> None:
    with pytest.raises(HTTPException, match=r"406.*answers are application/json"):
        wanted(asking(accept))
