"""Become a part: end what is left of the same part of before, then run its command in its place.

All but Prefect's server wait until that answers: the worker would not hear of cancelled runs else.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from sarflood.operations.parts import PART_MARK, SERVER, WORKSPACE_MARK, Site, end_left
from sarflood.workspace import Workspace

if __name__ == "__main__":
    _, name, *command = sys.argv
    os.environ[PART_MARK] = name
    workspace = Workspace(Path(os.environ[WORKSPACE_MARK]))
    end_left(workspace, name)
    site = Site(workspace)
    while name != SERVER and not site.answers():
        time.sleep(0.2)
    os.execv(command[0], command)  # noqa: S606  # the command that supervisord was told
