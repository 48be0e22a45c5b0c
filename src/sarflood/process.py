"""Child processes: their own session, their output streamed, the whole group ended on cancel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
# Threads of PyTorch that wait for each other give up their core soon. By default they spin, and a
# training beside another one, or beside a busy service, hardly moves.
SHARES_CORES = {"GOMP_SPINCOUNT": "1000"}
END_WITHIN_S = 10.0
OWNER = "SARFLOODOWNER"  # in a child's environment: the process that ends it


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child: this one, this Python's programs first, no telemetry.

    Its threads share the cores with those of others, unless this environment says otherwise.
    """
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    return {**SHARES_CORES, **os.environ, **NO_TELEMETRY, "PATH": path, **(extra or {})}


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
        env=child_environment({**(environment or {}), OWNER: str(os.getpid())}),
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


def orphans(root: Path) -> list[psutil.Process]:
    """Return what works in `root` though its owner was killed, and all that it has started.

    A child of `running` leads a session of its own, so that nothing else ends it: a training would
    go on, and hold DVC's locks.
    """
    left = [process for process in psutil.process_iter() if _is_orphan(process, root)]
    for process in tuple(left):
        with suppress(psutil.NoSuchProcess):
            left += process.children(recursive=True)
    return list(dict.fromkeys(left))


def end_processes(processes: Sequence[psutil.Process], within_s: float = END_WITHIN_S) -> None:
    """End processes: TERM, and KILL for those that are not gone within that time."""
    alive = list(processes)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in alive:
            with suppress(psutil.Error):  # it has ended by itself
                end(process)
        _, alive = psutil.wait_procs(alive, timeout=within_s)


def _is_orphan(process: psutil.Process, root: Path) -> bool:
    try:
        owner = process.environ().get(OWNER, "")
        if not owner.isdigit() or not Path(process.cwd()).is_relative_to(root):
            return False
        since = process.create_time()
    except (psutil.Error, OSError):
        return False
    return not is_alive(int(owner), since)


def is_alive(pid: int, since: float) -> bool:
    """Say whether the process that had a number at some time (seconds since 1970) still lives."""
    try:
        process = psutil.Process(pid)
        # With a later start it is another process, which has the number now.
        same = process.create_time() <= since + 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(
    command: Sequence[str | Path],
    cwd: Path,
    *,
    on_line: Callable[[str], object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end and return its output; `on_line` sees each line as it comes.

    Raises:
        SarfloodError: The command ended with another code than 0; the first line of the message has
            its last one, and more of them follow.
    """
    lines: list[str] = []
    with running(command, cwd, environment) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip("\n"))
            if on_line:
                on_line(lines[-1])
        code = process.wait()
    if code:
        told = [line for line in lines if line.strip()][-15:]
        head = f"`{' '.join(map(str, command))}` ended with code {code}"
        raise SarfloodError("\n  ".join([f"{head}: {told[-1]}" if told else head, *told[:-1]]))
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
