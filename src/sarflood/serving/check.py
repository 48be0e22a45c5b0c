"""A bundle is started, asked, and checked before it is trusted."""

from __future__ import annotations

import http.client
import io
import json
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from sarflood.errors import SarfloodError
from sarflood.mapping.recorded import check_answers, read_recorded
from sarflood.serving.access import bearer
from sarflood.serving.bundle import bundle_folder, stored_tag
from sarflood.serving.server import HOST, BundleServer, get


@contextmanager
def serving_bundle(
    tag: str, store: Path, *, token: str, ready_within_s: float, log: Path
) -> Iterator[str]:
    """Serve a bundle on a free port of the loopback; end all that was started at the end.

    Args:
        tag: Such as `flood-unet:v0.3.0`.
        store: The BentoML store.
        token: What it is to ask for; "" for nothing.
        ready_within_s: A server that is not ready by then is ended.
        log: Its output is appended.

    Yields:
        The base URL, once the server is ready.

    Raises:
        InputError: There is no such bundle.
        SarfloodError: As `BundleServer.wait_until_ready`.
    """
    folder = bundle_folder(stored_tag(tag.partition(":")[2], store), store)
    with closing(BundleServer(folder, log, token)) as server:
        server.wait_until_ready(ready_within_s)
        yield f"http://{HOST}:{server.port}"


def check_bundle(tag: str, store: Path, recorded: Path, ready_within_s: float) -> dict[str, Any]:
    """Start a bundle and compare its answers with the masks recorded when it was evaluated.

    Args:
        tag: Such as `flood-unet:v0.3.0`.
        store: The BentoML store.
        recorded: The version's `recorded.npz`.
        ready_within_s: A bundle that is not ready by then is refused.

    Returns:
        `ready_s`; `patches`, how many were asked, `patch_s`, how long each took; `memory_gib`, of
        its process after that; `engine`, its name, and whether it is `rounded`; `equal_share` of
        the pixels, `iou_change`.

    Raises:
        SarfloodError: It was not ready in time, or its answers are not those recorded, as
            `check_answers` says.
    """
    expected = read_recorded(recorded)
    images = expected.images
    bundle = bundle_folder(stored_tag(tag.partition(":")[2], store), store)
    started, token = time.monotonic(), secrets.token_urlsafe()
    with tempfile.TemporaryDirectory(prefix="sarflood-check-") as folder:
        log = Path(folder) / "serve.log"
        with closing(BundleServer(bundle, log, token)) as server:
            server.wait_until_ready(ready_within_s)
            ready = time.monotonic()
            answered = _post_patches(server.port, token, images, tag)
            patch_s = (time.monotonic() - ready) / len(images)
            memory = _memory(server.process.pid)
            engine = json.loads(get(server.port, "/model", token) or b"{}")["engine"]
    like = check_answers(answered, expected, tag, rounded=engine["rounded"])
    return {
        "ready_s": round(ready - started, 3),
        "patches": len(images),
        "patch_s": round(patch_s, 4),
        "memory_gib": round(memory / 2**30, 3),
        "engine": engine["name"],
        "rounded": engine["rounded"],
        "equal_share": like.equal_share,
        "iou_change": round(like.iou_change, 4),
    }


def _memory(pid: int) -> int:
    """Return the bytes of memory of a process."""
    full = psutil.Process(pid).memory_full_info()
    return int(getattr(full, "pss", full.rss))  # Linux alone knows the share of shared pages


def _post_patches(
    port: int, token: str, images: NDArray[np.float16], tag: str
) -> NDArray[np.uint8]:
    body = io.BytesIO()
    np.save(body, images, allow_pickle=False)
    connection = http.client.HTTPConnection(HOST, port, timeout=600)
    try:
        connection.request("POST", "/predict/patches", body.getvalue(), bearer(token))
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise SarfloodError(f"{tag}: gave no answer to its recorded patches: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise SarfloodError(
            f"{tag}: answered {response.status} to its recorded patches: {answer!r}"
        )
    masks: NDArray[np.uint8] = np.load(io.BytesIO(answer), allow_pickle=False)
    return masks
