"""What is kept of two answers to one request; see `serving.shadow`."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SHADOW = "SARFLOOD_SHADOW"  # names the folder in the environment; without it nothing is copied
LIVE = "live.json"  # in there: the port on the loopback, and the version that listens on it
OK = 200
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Compared(BaseModel):
    """Two answers to one request: a line of the journal.

    `pixels` are those with data in either answer, and the shares are of these. `iou` is that of
    the two wet areas, None where both are dry. An answer that is none has `status` other than 200,
    and no pixel equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: dt.datetime
    champion: str
    candidate: str
    status: int
    pixels: int
    equal: Share
    iou: Share | None
    wet: Share
    candidate_wet: Share
