"""What the environment tells the service: the token that it asks for, and its version's stage."""

from __future__ import annotations

import os

from sarflood.errors import InputError

# Names of variables: the token that is asked for, and "1" where a service is to ask for none.
TOKEN, NO_TOKEN = "SARFLOOD_TOKEN", "SARFLOOD_NO_TOKEN"
# The stage at which who starts a service finds its version, such as `production`; it cannot know.
STAGE = "SARFLOOD_STAGE"
# Stands in the log of a service that found its model damaged or not the one recorded.
REFUSES = "refuses to serve"


def token_asked_for() -> str:
    """Return the token that the environment gives the service; "" where it is to ask for none.

    Raises:
        InputError: It gives none and does not say that none is wanted, or it says both; or no
            header can send the token.
    """
    token, without = os.environ.get(TOKEN, ""), os.environ.get(NO_TOKEN, "")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(f"{TOKEN}: a header can send letters, digits and signs of ASCII alone")
    if token and without != "1":
        return token
    if token:
        raise InputError(f"{TOKEN} and {NO_TOKEN} are both set; unset one of them")
    if without != "1":
        raise InputError(
            f"no token: set {TOKEN} to what clients are to send as `Authorization: Bearer …`, or "
            f"{NO_TOKEN}=1 where everyone who reaches the service may use it"
        )
    return ""


def token_environment(token: str) -> dict[str, str]:
    """Return what tells a service to ask for a token, or for none where it is ""."""
    return {TOKEN: token, NO_TOKEN: "" if token else "1"}


def bearer(token: str) -> dict[str, str]:
    """Return the header that a client sends; none where the token is ""."""
    return {"Authorization": f"Bearer {token}"} if token else {}
