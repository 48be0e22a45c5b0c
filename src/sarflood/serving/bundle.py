"""Bundles: built from a version's tagged code, started, and checked before they are trusted."""

from __future__ import annotations

import http.client
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from numpy.typing import NDArray

from sarflood.errors import InputError, SarfloodError
from sarflood.files import write_json, write_text
from sarflood.process import END_WITHIN_S, run
from sarflood.serving.recorded import check_answers, read_recorded
from sarflood.serving.server import HOST, free_port, server, wait_until_ready
from sarflood.workspace import MODEL_NAME


def build_bundle(
    code: Path,
    package: Path,
    version: str,
    store: Path,
    on_line: Callable[[str], object] | None = None,
) -> str:
    """Build the bundle of a version, if it is not in the store yet.

    Args:
        code: The tree of the version's git tag; `src`, `bentofile.yaml` and `params.yaml` are used.
        package: The version's model files.
        version: Such as `v0.3.0`.
        store: The BentoML store (its `BENTOML_HOME`).
        on_line: Sees each line that the build prints.

    Returns:
        The bundle's tag, such as `flood-unet:v0.3.0`.

    Raises:
        InputError: `code` lacks a file that is needed.
        SarfloodError: BentoML could not build it.
    """
    tag = f"{MODEL_NAME}:{version}"
    if not is_built(tag, store):
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="sarflood-bundle-") as folder:
            context = Path(folder)
            _lay_out(context, code, package, version)
            run(
                [sys.executable, "-m", "bentoml", "build", "--version", version, "-o", "tag", "."],
                context,
                on_line=on_line,
                environment={"BENTOML_HOME": str(store), "PYTHONDONTWRITEBYTECODE": "1"},
            )
    return tag


def bundle_folder(tag: str, store: Path) -> Path:
    """Return where a tag, such as `flood-unet:v0.3.0`, lies in the store once it is built."""
    name, _, version = tag.partition(":")
    return store / "bentos" / name / version


def is_built(tag: str, store: Path) -> bool:
    """Say whether a bundle is in the store, whole."""
    # BentoML moves a bundle into its store once it is whole.
    return (bundle_folder(tag, store) / "bento.yaml").is_file()


def _lay_out(context: Path, code: Path, package: Path, version: str) -> None:
    """Copy what the build may see: the tag's code, its settings, and the model files."""
    try:
        shutil.copytree(
            code / "src" / "sarflood",
            context / "sarflood",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        shutil.copytree(package, context / "package")
        recipe = yaml.safe_load((code / "bentofile.yaml").read_text(encoding="utf-8"))
        params = yaml.safe_load((code / "params.yaml").read_text(encoding="utf-8"))
    except (OSError, shutil.Error, yaml.YAMLError) as error:
        raise InputError(f"{code}: not the code of a version: {error}") from error
    python = recipe["python"]
    python["packages"] = [f"{name}=={_installed(name)}" for name in python["packages"]]
    write_text(context / "bentofile.yaml", yaml.safe_dump(recipe, sort_keys=False))
    # The served code, which is as old as these settings, checks them when it starts.
    info = {"version": version, "serving": params["serving"]}
    write_json(context / "package" / "bundle.json", info)


def _installed(name: str) -> str:
    """Return the version that is installed here, without a local part such as `+cpu`."""
    return metadata.version(name).partition("+")[0]


def stored_tag(version: str, store: Path) -> str:
    """Return the tag of a version's bundle in the store.

    Raises:
        InputError: It has not been built.
    """
    tag = f"{MODEL_NAME}:{version}"
    if not is_built(tag, store):
        raise InputError(f"{store}: no bundle {tag}; build it with `sarflood deploy {version}`")
    return tag


def serve_command(bundle: str, port: int) -> list[str]:
    """Return the command that serves a bundle on the loopback.

    Args:
        bundle: A tag in the store that `BENTOML_HOME` names, or a bundle's folder.
        port: The port.
    """
    command = [sys.executable, "-m", "bentoml", "serve", bundle]
    # Workers end before `end_group` loses patience, whatever they are at.
    patience = f"{END_WITHIN_S / 2:.0f}"
    return [*command, "--host", HOST, "--port", str(port), "--timeout-graceful-shutdown", patience]


@contextmanager
def serving_bundle(tag: str, store: Path, *, ready_within_s: float, log: Path) -> Iterator[str]:
    """Serve a bundle on a free loopback port; end all that was started at the end.

    Each server has a home of its own: BentoML empties the metrics of a home that it starts in.

    Args:
        tag: Such as `flood-unet:v0.3.0`.
        store: The BentoML store.
        ready_within_s: A server that is not ready by then is ended.
        log: Where its output goes.

    Yields:
        The base URL, once the server is ready.

    Raises:
        InputError: There is no such bundle.
        SarfloodError: The server ended, refused to serve, was not ready in time, or is of another
            version; the message has its reason, or the last lines of its log.
    """
    with _serving(tag, store, ready_within_s, log) as (url, _):
        yield url


@contextmanager
def _serving(
    tag: str, store: Path, ready_within_s: float, log: Path
) -> Iterator[tuple[str, psutil.Process]]:
    version = tag.partition(":")[2]
    folder = bundle_folder(stored_tag(version, store), store)
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="sarflood-serve-") as home,
        server(serve_command(str(folder.resolve()), port), Path(home), log) as process,
    ):
        wait_until_ready(process, port, ready_within_s=ready_within_s, tag=tag, log=log)
        yield f"http://{HOST}:{port}", psutil.Process(process.pid)


def check_bundle(tag: str, store: Path, recorded: Path, ready_within_s: float) -> dict[str, Any]:
    """Start a bundle and compare its answers with the masks recorded when it was evaluated.

    Args:
        tag: Such as `flood-unet:v0.3.0`.
        store: The BentoML store.
        recorded: The version's `recorded.npz`.
        ready_within_s: A bundle that is not ready by then is refused.

    Returns:
        `ready_s`; `patches`, how many were asked, `patch_s`, how long each took; `equal_share` of
        the pixels; `memory_gib`, of all its processes after that, what they share counted once.

    Raises:
        SarfloodError: It was not ready in time, or more than 0.1 % of the pixels differ.
    """
    images, masks = read_recorded(recorded)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sarflood-check-") as folder:
        log = Path(folder) / "serve.log"
        with _serving(tag, store, ready_within_s, log) as (url, process):
            ready = time.monotonic()
            answered = _post_patches(url, images, tag)
            patch_s = (time.monotonic() - ready) / len(images)
            memory = _memory(process)
    return {
        "ready_s": round(ready - started, 3),
        "patches": len(images),
        "patch_s": round(patch_s, 4),
        "memory_gib": round(memory / 2**30, 3),
        "equal_share": check_answers(answered, masks, tag),
    }


def _memory(process: psutil.Process) -> int:
    """Return the bytes of memory of a process and its children."""
    total = 0
    for item in (process, *process.children(recursive=True)):
        try:
            full = item.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        total += getattr(full, "pss", full.rss)  # Linux alone knows the share of shared pages
    return total


def _post_patches(url: str, images: NDArray[np.float16], tag: str) -> NDArray[np.uint8]:
    body = io.BytesIO()
    np.save(body, images, allow_pickle=False)
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    try:
        connection.request("POST", "/predict/patches", body.getvalue())
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
