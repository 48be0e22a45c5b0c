"""Child processes: their own session, their output streamed, the whole group ended on cancel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from sarflood.errors import SarfloodError

# What switches telemetry off, for every child and, by the command line, for this process.
NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "BENTOML_DO_NOT_TRACK": "True",  # "1" is ignored by BentoML 1.4
}
END_WITHIN_S = 10.0


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child: this one, this Python's programs first, no telemetry."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    return {**os.environ, **NO_TELEMETRY, "PATH": path, **(extra or {})}


def end_group(process: subprocess.Popen[str]) -> None:
    """End a child that leads its own session, and all that it started: TERM, then KILL."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


@contextmanager
def running(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a child in a session of its own, stdout and stderr joined; end its group at the end."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=child_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end_group(process)
        if process.stdout:
            process.stdout.close()


def run(
    command: Sequence[str | Path],
    cwd: Path,
    *,
    on_line: Callable[[str], object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end and return its output; `on_line` sees each line as it comes.

    Raises:
        SarfloodError: The command ended with another code than 0; the message has its last lines.
    """
    lines: list[str] = []
    with running(command, cwd, environment) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip("\n"))
            if on_line:
                on_line(lines[-1])
        code = process.wait()
    if code:
        tail = "\n".join(lines[-15:])
        raise SarfloodError(f"`{' '.join(map(str, command))}` ended with code {code}:\n{tail}")
    return "\n".join(lines)


def capture(command: Sequence[str | Path], cwd: Path) -> str:
    """Run a short command and return its standard output alone, fit to be parsed.

    Raises:
        SarfloodError: The program is missing, or it ended with another code than 0.
    """
    words = [str(part) for part in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise SarfloodError(f"{error.filename}: not found; is {words[0]} installed?") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise SarfloodError(f"`{' '.join(words)}` ended with code {done.returncode}: {said}")
    return done.stdout


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` and return its standard output."""
    return capture(["git", *arguments], root)


def clear_git_locks(root: Path) -> list[Path]:
    """Remove the lock files that git and DVC left when they were killed; return those.

    While a process of either works in `root`, all stay: git does not say whose a lock is.
    """
    if not (root / ".git").exists():
        return []
    folder = root / git(root, "rev-parse", "--git-common-dir").strip()
    left = [*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")]
    if not left or any(_works_with_git(process, root) for process in psutil.process_iter()):
        return []
    for path in left:
        path.unlink(missing_ok=True)
    return left


def _works_with_git(process: psutil.Process, root: Path) -> bool:
    try:
        if not Path(process.cwd()).is_relative_to(root):
            return False
        return process.name().startswith("git") or "dvc" in process.cmdline()
    except (psutil.Error, OSError):
        return False


def dvc(root: Path, *arguments: str) -> str:
    """Run DVC in `root` with this Python and return its standard output."""
    return capture([sys.executable, "-m", "dvc", *arguments], root)
