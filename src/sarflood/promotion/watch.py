"""What the version in production has mapped, against what it was trained on."""

from __future__ import annotations

from sarflood.monitoring.compare import Drift, compare
from sarflood.monitoring.journal import read_journal
from sarflood.monitoring.reference import read_reference
from sarflood.monitoring.report import write_drift
from sarflood.params import load_params
from sarflood.promotion.registry import fetch_version, find_version
from sarflood.workspace import Workspace


def watch(workspace: Workspace) -> Drift | None:
    """Compare, and write `reports/drift/`; None where the version has mapped nothing yet.

    Raises:
        InputError: No version is in production, or it has no statistics of its training.
        SarfloodError: The version cannot be fetched.
    """
    params = load_params(workspace.params).monitoring
    version = find_version(workspace, None)
    seen = read_journal(workspace.journal, version.version)
    if not seen:
        return None
    reference = read_reference(fetch_version(workspace, version))
    drift = compare(reference, seen, params)
    write_drift(workspace, drift, reference, seen)
    return drift
