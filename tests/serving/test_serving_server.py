from __future__ import annotations

import socket

import pytest

from sarflood.errors import InputError
from sarflood.serving.server import HOST, check_port, free_port


def test_a_taken_port_is_refused_with_the_remedy() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} .*in use; name another with --port"):
            check_port(port)
    check_port(port)


def test_a_port_that_has_just_served_is_free() -> None:
    port = free_port()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen()
        client = socket.create_connection((HOST, port))
        served, _ = listening.accept()
        served.close()
        client.close()
    check_port(port)
