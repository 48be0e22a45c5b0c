"""`python -m sarflood.cli`, the same as `sarflood`."""

from __future__ import annotations

from sarflood.cli import main

main()
