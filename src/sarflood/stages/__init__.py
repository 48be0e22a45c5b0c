"""One module a DVC stage: read the settings, call the rooms, write files. Knows no Prefect."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from sarflood.errors import DataRefusedError, InputError, SarfloodError
from sarflood.params import load_params
from sarflood.process import run
from sarflood.workspace import Workspace, find_workspace

ERROR = "error: "  # begins what a stage says last


def warn(text: str) -> None:
    """Say something that a person should know, among a stage's lines."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def run_stage(stage: Callable[[Workspace], None]) -> None:
    """Run a stage on the workspace that the process stands in; end with its error's exit code."""
    try:
        stage(find_workspace())
    except SarfloodError as error:
        print(f"{ERROR}{error}", file=sys.stderr)
        sys.exit(error.exit_code)


def reproduce(
    workspace: Workspace, stage: str, on_line: Callable[[str], object], *, again: bool = False
) -> None:
    """Run `dvc repro` up to a stage; `on_line` sees each line that DVC and the stages print.

    Args:
        workspace: Where.
        stage: The last one that runs.
        on_line: Sees each line.
        again: Run that stage alone, also where nothing has changed that it depends on.

    Raises:
        InputError: A setting is wrong (nothing has run then), or a stage says the input is.
        DataRefusedError: The stage `validate` refused the data.
        SarfloodError: Anything else failed.
    """
    # DVC removes a stage's outputs before it runs: a wrong setting has to be found before.
    load_params(workspace.params)
    command = [sys.executable, "-m", "dvc", "repro", stage]
    command += ["--single-item", "--force"] if again else []
    lines: list[str] = []

    def see(line: str) -> None:
        lines.append(line)
        if line.strip():
            on_line(line)

    try:
        run(command, workspace.root, on_line=see)
    except SarfloodError as error:
        raise _stage_error("\n".join(lines)) or error from None


def _stage_error(output: str) -> SarfloodError | None:
    """Return the error that a stage ended with, as it was raised there."""
    found = re.search(
        rf"^{ERROR}(.+?)\nERROR: failed to reproduce .* exited with (\d+)",
        output,
        re.DOTALL | re.MULTILINE,
    )
    if not found:
        return None
    kinds = {kind.exit_code: kind for kind in (InputError, DataRefusedError)}
    return kinds.get(int(found[2]), SarfloodError)(found[1].strip())
