"""What every benchmark ends with: its claims as a table and, on demand, as JSON."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from sarflood.files import write_json


@dataclass(frozen=True)
class Claim:
    """One claim: a figure that was measured in this run, and the bound that it is held against.

    Attributes:
        claim: What is claimed, with its unit.
        value: What was measured.
        bound: What it must reach (`at_least`) or must not exceed.
        at_least: Whether `bound` is the least that will do.
        how: What was compared with what, in one sentence.
    """

    claim: str
    value: float
    bound: float
    how: str
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure keeps to its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def parser(description: str) -> argparse.ArgumentParser:
    """Return a command line with `--json FILE`."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--json", type=Path, metavar="FILE", help="write the claims as JSON")
    return result


def report(claims: Sequence[Claim], json_file: Path | None) -> int:
    """Print the claims, write them where asked for, and return the exit code: 1 if one fails."""
    table = Table("claim", "value", "bound", "holds", "how", box=None, header_style="bold")
    for item in claims:
        sign = "≥" if item.at_least else "≤"
        holds = "yes" if item.holds else "NO"
        table.add_row(item.claim, f"{item.value:.4g}", f"{sign} {item.bound:g}", holds, item.how)
    Console().print(table)
    if json_file:
        rows = [{**asdict(item), "holds": item.holds} for item in claims]
        write_json(json_file, {"machine": _machine(), "claims": rows})
    return 0 if all(item.holds for item in claims) else 1


def peak_gib() -> float:
    """Return the most memory that this process held; `ru_maxrss` would count its parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) / 2**20


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.platform()}"
