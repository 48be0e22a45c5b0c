"""Another version answers a copy of what the service maps, and the two answers are compared.

The service gives a copy away once it has its own answer, and never waits: while a copy is under
way and another one waits, further ones are dropped. Answers of the other version go nowhere.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import rasterio
from numpy.typing import NDArray
from prometheus_client import Counter
from rasterio.errors import RasterioError
from rasterio.windows import Window

from sarflood.mapping.layers import Layer
from sarflood.monitoring.journal import Journal
from sarflood.raster.patch import UNKNOWN, WET
from sarflood.serving.access import bearer
from sarflood.serving.compared import LIVE, OK, Compared

TIMEOUT_S = 600.0
_PATCHES, _MASK = "patches", "mask"  # names of files, beside those of the form's fields
_COPIES = Counter(
    "sarflood_shadow", "Copies of requests, by what became of them", ["candidate", "outcome"]
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Copy:
    """What was asked, by files in a folder of its own, and what the champion answered."""

    folder: tempfile.TemporaryDirectory[str]
    champion: str
    candidate: str
    port: int
    files: dict[str, Path]
    answer: Layer | NDArray[np.uint8]


class Shadow:
    """Gives copies to the version that is named in a folder, and keeps a journal there.

    Args:
        folder: Where `live.json` may lie; see `Journal` for the other files.
        token: What that version asks for.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder, self._token = folder, token
        self._journal = Journal(folder)
        self._waiting: queue.Queue[_Copy] = queue.Queue(maxsize=1)
        threading.Thread(target=self._work, daemon=True).start()

    def give_scene(self, champion: str, fields: Mapping[str, Path], mask: Layer) -> None:
        """Give away a scene that was mapped.

        Args:
            champion: The version that did.
            fields: The files of the form, which may be removed at once.
            mask: The answer.
        """
        self._give(champion, {**fields, _MASK: mask.path}, mask)

    def give_patches(
        self, champion: str, patches: NDArray[np.floating], masks: NDArray[np.uint8]
    ) -> None:
        """Give away patches (N, C, H, W), of a file or few, with the answer (N, H, W)."""
        file = patches.filename if isinstance(patches, np.memmap) else None
        self._give(champion, {_PATCHES: Path(file) if file else patches}, masks)

    def _give(
        self,
        champion: str,
        parts: Mapping[str, Path | NDArray[np.floating]],
        answer: Layer | NDArray[np.uint8],
    ) -> None:
        live = self._live()
        if live is None:
            return
        port, candidate = live
        if self._waiting.full():
            _COPIES.labels(candidate, "dropped").inc()
            return
        try:
            with ExitStack() as stack:
                folder = tempfile.TemporaryDirectory(prefix="sarflood-shadow-")
                place = Path(stack.enter_context(folder))
                kept = {name: place / name for name in parts}
                for name, part in parts.items():
                    if isinstance(part, Path):
                        os.link(part, kept[name])
                    else:
                        with kept[name].open("wb") as file:
                            np.save(file, part, allow_pickle=False)
                if isinstance(answer, Layer):
                    answer = Layer(kept.pop(_MASK), answer.shape, np.uint8)
                self._waiting.put_nowait(_Copy(folder, champion, candidate, port, kept, answer))
                stack.pop_all()  # whoever compares removes it
        except (queue.Full, OSError) as error:
            _log.warning("no copy for %s: %r", candidate, error)
            _COPIES.labels(candidate, "dropped").inc()

    def _live(self) -> tuple[int, str] | None:
        try:
            content = json.loads((self._folder / LIVE).read_text(encoding="utf-8"))
            return int(content["port"]), str(content["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _work(self) -> None:
        while True:
            copy = self._waiting.get()
            with copy.folder:
                try:
                    outcome = self._compare(copy)
                except (httpx.HTTPError, OSError, RasterioError, ValueError) as error:
                    _log.warning("%s gave no answer to its copy: %r", copy.candidate, error)
                    outcome = "unanswered"
            _COPIES.labels(copy.candidate, outcome).inc()

    def _compare(self, copy: _Copy) -> str:
        """Ask, compare, and note; return what became of the copy."""
        path = Path(copy.folder.name) / "answer"
        status = self._ask(copy, path)
        tally = _Tally()
        for ours, theirs in _pairs(copy.answer, path if status == OK else None):
            tally.add(ours, theirs)
        if tally.pixels:
            self._journal.note(tally.compared(copy.champion, copy.candidate, status))
        return "compared" if status == OK else "failed"

    def _ask(self, copy: _Copy, path: Path) -> int:
        """Send a copy, write the answer to a file, and return its status."""
        with ExitStack() as stack:
            opened = {
                name: stack.enter_context(file.open("rb")) for name, file in copy.files.items()
            }
            patches = opened.pop(_PATCHES, None)
            response = stack.enter_context(
                httpx.stream(
                    "POST",
                    f"http://127.0.0.1:{copy.port}/predict{'/patches' if patches else ''}",
                    headers={"Accept": "image/tiff", **bearer(self._token)},
                    files=opened or None,
                    content=patches,
                    timeout=TIMEOUT_S,
                    trust_env=False,
                )
            )
            file = stack.enter_context(path.open("wb"))
            for piece in response.iter_bytes():
                file.write(piece)
        return response.status_code


Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _pairs(answer: Layer | NDArray[np.uint8], other: Path | None) -> Iterator[Pair]:
    """Give two answers by parts of the same shape; another one that is none has no data.

    Raises:
        RasterioError, ValueError, OSError: The other file is none, or of another shape.
    """
    if isinstance(answer, np.ndarray):
        nothing = np.full_like(answer, UNKNOWN)
        yield answer, np.load(other, allow_pickle=False) if other else nothing
        return
    with ExitStack() as stack:
        theirs = stack.enter_context(rasterio.open(other, driver="GTiff")) if other else None
        for top, ours in answer.strips():
            window = Window(0, top, ours.shape[1], len(ours))
            yield ours, theirs.read(1, window=window) if theirs else np.full_like(ours, UNKNOWN)


class _Tally:
    """Counts of pixels, part by part."""

    def __init__(self) -> None:
        self.pixels = self._equal = self._wet = self._candidate_wet = self._both = 0

    def add(self, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
        if ours.shape != theirs.shape:
            raise ValueError(f"an answer of {theirs.shape} to what is {ours.shape}")
        known = (ours != UNKNOWN) | (theirs != UNKNOWN)
        wet, candidate_wet = ours == WET, theirs == WET
        self.pixels += int(known.sum())
        self._equal += int(((ours == theirs) & known).sum())
        self._wet += int(wet.sum())
        self._candidate_wet += int(candidate_wet.sum())
        self._both += int((wet & candidate_wet).sum())

    def compared(self, champion: str, candidate: str, status: int) -> Compared:
        either = self._wet + self._candidate_wet - self._both
        return Compared(
            time=dt.datetime.now(dt.UTC).replace(microsecond=0),
            champion=champion,
            candidate=candidate,
            status=status,
            pixels=self.pixels,
            equal=self._equal / self.pixels,
            iou=self._both / either if either else None,
            wet=self._wet / self.pixels,
            candidate_wet=self._candidate_wet / self.pixels,
        )
