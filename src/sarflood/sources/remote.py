"""Reading STAC and its files from servers: addresses checked, time-outs, retries, limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pystac
import requests
from pystac_client.stac_api_io import StacApiIO
from urllib3.util import Retry

from sarflood.errors import InputError, NetworkError
from sarflood.sources.stac import MAX_JSON_BYTES, is_remote

_TIMEOUT_S = (10.0, 60.0)  # to connect, between two pieces
_RETRIES = 3
_BUSY = (429, 500, 502, 503, 504)
_GONE = (404, 410)
_WAIT_S = 0.5  # before the second retry, doubled for each
_MAX_WAIT_S = 60  # that a server may ask for
_PIECE = 1 << 20
# What reading something raises that is not what STAC says it should be.
NOT_STAC = (
    pystac.STACError,
    pystac.STACTypeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)


class GuardedIO(StacApiIO):
    """Reads JSON and files; each link and each redirect is checked before it is followed.

    Args:
        check: Raises `InputError` for an address or path that must not be read.
    """

    def __init__(self, check: Callable[[str], None]) -> None:
        retry = Retry(
            total=_RETRIES,
            backoff_factor=_WAIT_S,
            status_forcelist=_BUSY,
            retry_after_max=_MAX_WAIT_S,
        )
        super().__init__(max_retries=retry)
        self._check = check
        self.session.hooks["response"].append(self._check_redirect)

    def _check_redirect(self, answer: requests.Response, **_: Any) -> None:
        if answer.is_redirect:
            self._check(urljoin(answer.url, answer.headers["Location"]))

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """Read JSON from a link, an address or a path."""
        address = str(getattr(source, "href", source))
        self._check(address)
        if not is_remote(address) and Path(address).stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{address}: more than {MAX_JSON_BYTES:,} bytes")
        return str(super().read_text(source, *args, **kwargs))

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Read the JSON at an address; see `pieces` for what it raises."""
        if method not in {None, "GET"}:
            raise InputError(f"{href}: is to be asked by {method}; only GET is done")
        pieces = self.pieces(href, MAX_JSON_BYTES, headers=headers, params=parameters)
        return b"".join(pieces).decode("utf-8")

    def pieces(self, address: str, limit: int, **asking: Any) -> Iterator[bytes]:
        """Read what lies at an address, piece by piece.

        Args:
            address: Has been checked.
            limit: How many bytes it may be.
            asking: Headers and parameters of the question.

        Raises:
            InputError: There is nothing, it is too large, or the address is none.
            NetworkError: The server does not answer, or breaks off.
        """
        try:
            with self.session.get(address, stream=True, timeout=_TIMEOUT_S, **asking) as answer:
                if answer.status_code in _GONE:
                    raise InputError(f"{address}: {answer.status_code} {answer.reason}")
                answer.raise_for_status()
                promised = int(answer.headers.get("Content-Length", 0))
                if promised > limit:
                    raise InputError(f"{address}: {promised:,} bytes; at most {limit:,}")
                read = 0
                for piece in answer.iter_content(_PIECE):
                    read += len(piece)
                    if read > limit:
                        raise InputError(f"{address}: more than {limit:,} bytes")
                    yield piece
        except ValueError as error:  # those of requests, too
            raise InputError(f"{address}: no address of http: {error}") from error
        except requests.RequestException as error:
            raise NetworkError(f"{address}: does not answer as it should: {error}") from error
