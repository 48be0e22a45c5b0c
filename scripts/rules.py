"""Print the page of all expectations: `python scripts/rules.py > docs/rules.md`."""

from __future__ import annotations

from pathlib import Path

from sarflood.params import load_params
from sarflood.validation.suite import build_suite

_HEAD = """\
# What is asked of a patch

The expectations on an event with VV and VH in dB and with masks, by the limits in `params.yaml`;
another date brings those of its bands once more, and 8-bit data leave out those on decibels.
A critical one refuses the patch, or the event or table that it speaks of; a warning shows.
`python scripts/rules.py > docs/rules.md` writes this page.

| group | expectation | of | severity | fails where |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    params = load_params(Path(__file__).parents[1] / "params.yaml").validation
    rows = []
    for rule in build_suite(("vv", "vh"), "db", params, labelled=True):
        meta = rule.meta or {}
        cells = [meta["group"], meta["name"], meta["scope"], rule.severity.value, meta["reason"]]
        rows.append(f"| {' | '.join(cells)} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    print(page(), end="")
