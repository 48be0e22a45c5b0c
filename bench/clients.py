"""Clients that ask a service for the masks of patches: `python -m bench.clients --help`.

A process of its own with little to do but to send and receive, so that it takes few cores from the
service: requests are bytes that were made before, and answers are compared as bytes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

_PIECE = 1 << 20


def main() -> int:
    """Send the requests in a folder, round after round, and print when each was answered."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("port", type=int)
    command.add_argument("folder", type=Path, help="has 0.request, 0.answer, 1.request, …")
    command.add_argument("--clients", type=int, required=True)
    command.add_argument("--requests", type=int, required=True, help="of all clients together")
    command.add_argument("--cores", help="such as 1,3; by default all")
    options = command.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    count = len(list(options.folder.glob("*.request")))
    pairs = [
        tuple((options.folder / f"{number}.{kind}").read_bytes() for kind in ("request", "answer"))
        for number in range(count)
    ]
    numbers = itertools.count()
    answered: list[tuple[float, float]] = []
    wrong: list[str] = []

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", options.port)) as connection:
            while (number := next(numbers)) < options.requests and not wrong:
                request, expected = pairs[number % count]
                started = time.monotonic()
                connection.sendall(request)
                status, body = _receive(connection)
                answered.append((started, time.monotonic()))
                if status != 200 or body != expected:
                    wrong.append(f"request {number}: {status}, {body[:200]!r}")

    threads = [threading.Thread(target=ask) for _ in range(options.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong or len(answered) < options.requests:
        sys.exit("\n".join(wrong) or "a client broke off")
    json.dump(answered, sys.stdout)
    return 0


def _receive(connection: socket.socket) -> tuple[int, bytes]:
    """Return status and body of an answer."""
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _more(connection)
    head = received[:end].decode("latin-1").lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in head if line.startswith("content-length:"))
    while len(received) < end + 4 + length:
        received += _more(connection)
    return int(head[0].split()[1]), bytes(received[end + 4 :])


def _more(connection: socket.socket) -> bytes:
    piece = connection.recv(_PIECE)
    if not piece:
        raise ConnectionError("the service closed the connection")
    return piece


if __name__ == "__main__":
    sys.exit(main())
