"""One module a DVC stage: read the settings, call the rooms, write files. Knows no Prefect."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from sarflood.errors import DataRefusedError, InputError, NetworkError, SarfloodError
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
        NetworkError: The DVC remote does not answer a stage that fetches a version.
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


_KINDS = {kind.exit_code: kind for kind in (InputError, DataRefusedError, NetworkError)}
_FAILED = re.compile(
    r"^ERROR: failed to reproduce '(?P<stage>\w+)': failed to run: .* exited with (?P<code>-?\d+)",
    re.MULTILINE,
)
_KILLED = (-9, 137)  # as Python and as a shell say it
_LINES = 15


def _stage_error(output: str) -> SarfloodError | None:
    """Return the error that a stage ended with, as it was raised there; None where none has run."""
    found = _FAILED.search(output)
    if not found:
        return None
    stage, code = found["stage"], int(found["code"])
    before = output[: found.start()]
    own = before.rfind(f"\n{ERROR}")
    if own >= 0:
        said = before[own + len(ERROR) + 1 :].strip()
        return _KINDS.get(code, SarfloodError)(said)
    if code in _KILLED:
        return SarfloodError(
            f"stage {stage} was killed, most often for want of memory; close other programs, or "
            "lower train.batch_size or model.width in params.yaml, then start it again"
        )
    lines = [line for line in before.splitlines() if line.strip()][-_LINES:]
    head = (
        f"stage {stage} ended with code {code}: {lines[-1] if lines else 'without a word'}; "
        f"`dvc repro {stage}` in the workspace runs it again, what lies below says where it ended"
    )
    return SarfloodError("\n  ".join([head, *lines]))
