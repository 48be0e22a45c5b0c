"""The commands and the words of `docs/operate.md`, and a place where they are tried."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from running import Up

from sarflood.operations.parts import Ports, bring_down
from sarflood.process import child_environment
from sarflood.serving.server import free_port
from sarflood.workspace import Workspace

PAGE = Path(__file__).parents[1] / "docs" / "operate.md"
POSTGRESQL = "PostgreSQL"
REFUSALS = "What a refusal means"
_PROGRAMS = {"cp", "dvc", "export", "git", "pip", "prefect", "sarflood", "tar"}


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    parts = re.split(r"^#+ (.+)\n", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return parts[parts.index(title) + 1]


def commands(text: str) -> set[str]:
    """The commands in blocks, and those between backticks."""
    blocks = "".join(re.findall(r"^```(?:console|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", plain)
    found = {line.removeprefix("$ ") for line in blocks.splitlines() if line.strip()}
    for span in spans:
        first, _, rest = re.sub(r"^(?:\w+=\S+ )+", "", span).partition(" ")
        if rest and first in _PROGRAMS:
            found.add(span)
    return found


def quotes() -> list[str]:
    """What the refusals say by the table, one a pair of quotation marks; `…` is anything."""
    rows = [line for line in section(REFUSALS).splitlines() if line.startswith("| ")][1:]
    return [quote for row in rows for quote in re.findall(r'"(.+?)"', row.split(" | ")[0])]


def says(text: str, quote: str) -> bool:
    """Whether a text has the words that the page quotes."""
    assert quote in quotes(), f"the page does not quote: {quote}"
    wanted = ".*".join(map(re.escape, quote.split("…")))
    return re.search(wanted, " ".join(text.split())) is not None


class Reader:
    """One who types the commands of the page, with a folder in the place of `/`.

    Attributes:
        up: The workspace, once it is there.
        environment: What is set, beside what the page exports.
        typed: The commands, as they stand on the page.
    """

    def __init__(self, root: Path) -> None:
        ports = Ports(free_port(), free_port(), free_port())
        for folder in ("srv/incoming", "backup", "prefect"):
            (root / folder).mkdir(parents=True)
        self.root = root
        self.up = Up(Workspace(root / "srv" / "floods"), root / "srv" / "incoming", ports)
        self.environment: dict[str, str] = {}
        self.typed: set[str] = set()
        self.postgresql_port = free_port()
        self._exported: list[str] = []
        self._ports = {
            "4200": ports.prefect,
            "4210": ports.prefect,
            "3010": ports.serve,
            "4310": ports.reports,
            "5432": self.postgresql_port,
        }

    def run(self, command: str, code: int = 0) -> str:
        """Run a command of the page to its end; return what it says, errors last."""
        done = subprocess.run(
            self._shell(command),
            cwd=self._here(),
            env=self._environment(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{command}: {said}"
        if command.startswith("export "):
            self._exported.append(self._substituted(command))
        return said

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command of the page that goes on until it is told to end."""
        return subprocess.Popen(
            self._shell(command, "exec "), cwd=self._here(), env=self._environment(command)
        )

    def _shell(self, command: str, before: str = "") -> list[str]:
        assert command in commands(PAGE.read_text("utf-8")), f"not on the page: {command}"
        self.typed.add(command)
        script = ["set -eo pipefail", *self._exported, before + self._substituted(command)]
        return ["bash", "-c", "\n".join(script)]

    def _substituted(self, command: str) -> str:
        here = re.sub(r"/(srv|backup)\b", rf"{self.root}/\1", command)
        for known, other in self._ports.items():
            here = re.sub(rf"\b{known}\b", str(other), here)
        if "--prefect-port" not in here:
            ports = self.up.ports
            named = f"--prefect-port {ports.prefect} --serve-port {ports.serve}"
            here = here.replace(
                "sarflood up", f"sarflood up {named} --reports-port {ports.reports}"
            )
        return here

    def _here(self) -> Path:
        place = self.up.workspace.root
        return place if place.exists() else self.root

    def _environment(self, command: str) -> dict[str, str]:
        extra = {"GIT_MERGE_AUTOEDIT": "no", **self.environment}
        if command.startswith("prefect "):  # else it keeps settings in the home of who tests
            extra["PREFECT_HOME"] = str(self.root / "prefect")
        return child_environment(extra)


@contextmanager
def reader() -> Iterator[Reader]:
    """One who reads the page on a machine of their own, on which nothing is left at the end."""
    with TemporaryDirectory(prefix="sarflood-guide-") as name:
        found = Reader(Path(name))
        try:
            yield found
        finally:
            bring_down(found.up.workspace)
