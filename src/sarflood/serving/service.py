"""The BentoML service: the HTTP interface with health checks, metrics and start-up check."""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import torch

from sarflood.errors import SarfloodError
from sarflood.monitoring.journal import JOURNAL, Journal
from sarflood.serving.app import create_api
from sarflood.serving.recorded import REFUSES
from sarflood.serving.served import Served, load_served

# A bundle has the model package beside its own copy of this code.
_PACKAGE = Path(__file__).resolve().parents[2] / "package"

_loaded: list[Served] = []
_folder = os.environ.get(JOURNAL)
_api = create_api(lambda: _loaded[0], Journal(Path(_folder)) if _folder else None)


@bentoml.service(workers=1, traffic={"timeout": 3600, "max_concurrency": 16})
@bentoml.asgi_app(_api)
class FloodService:
    """Maps floods in Sentinel-1 scenes; ready once it answered its recorded patches."""

    def __init__(self) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        try:
            _loaded[:] = [load_served(_PACKAGE)]
        except SarfloodError as error:
            raise SarfloodError(f"{REFUSES}: {error}") from error
