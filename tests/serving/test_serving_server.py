from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sarflood.errors import InputError, SarfloodError
from sarflood.serving.server import HOST, check_port, free_port, server, wait_until_ready


@contextmanager
def stranger(version: str) -> Iterator[int]:
    """A server that says yes to everything, and that it is of a version."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"version": version}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Answer) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            yield int(other.server_address[1])
        finally:
            other.shutdown()
            thread.join()


def child(code: str, folder: Path, port: int) -> None:
    """Start a child in the place of a server, and wait until it is ready."""
    log = folder / "serve.log"
    with server([sys.executable, "-c", code], folder, log) as process:
        wait_until_ready(process, port, ready_within_s=20.0, tag="flood-unet:v0.1.0", log=log)


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


def test_a_server_that_ended_is_not_ready_though_another_answers(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], text=True)
    ended.wait()
    log = tmp_path / "serve.log"
    log.write_text("cannot listen")
    with (
        stranger("v0.1.0") as port,
        pytest.raises(SarfloodError, match=r"(?s)v0\.1\.0: ended with code 3 .*cannot listen"),
    ):
        wait_until_ready(ended, port, ready_within_s=20.0, tag="flood-unet:v0.1.0", log=log)


def test_another_version_is_not_taken_for_ours(tmp_path: Path) -> None:
    waits = "import sys; sys.stdin.read(); import signal; signal.pause()"
    with stranger("v0.1.0") as port:
        child(waits, tmp_path, port)
    with (
        stranger("v0.2.0") as port,
        pytest.raises(SarfloodError, match=r"v0\.1\.0: .* of another version: v0\.2\.0"),
    ):
        child(waits, tmp_path, port)
