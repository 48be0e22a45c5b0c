"""The checkpoint: a table of per-patch statistics in, a verdict with ids and reasons out."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sarflood.errors import InputError
from sarflood.params import ValidationParams
from sarflood.process import NO_TELEMETRY
from sarflood.validation.columns import required_columns, with_derived_columns
from sarflood.validation.docs import write_docs
from sarflood.validation.verdict import Verdict, read_verdict

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.ephemeral_data_context import (
        EphemeralDataContext,
    )
    from great_expectations.expectations.expectation import Expectation


EVENTS_IN_TITLE = 3  # the title is also a file name, of 255 bytes at most
UNITS = {"db": "dB", "uint8": "8-bit grey levels"}


def validate_table(
    table: pd.DataFrame,
    *,
    bands: tuple[str, ...],
    units: str,
    params: ValidationParams,
    docs: Path | None = None,
) -> Verdict:
    """Judge per-patch statistics by the expectations of `suite.py`.

    Args:
        table: A row a patch, as `PatchWriter.index` gives them, of one event or of several.
        bands: The band names.
        units: `db` or `uint8`.
        params: The limits.
        docs: Folder for Data Docs; what it held before is replaced.

    Raises:
        InputError: The table is empty, or its units cannot be judged.
        SarfloodError: An expectation could not be judged.
    """
    if table.empty:
        raise InputError("no patch to validate: the table of patch statistics has no rows")
    if units not in UNITS:
        raise InputError(f"units {units!r} cannot be validated: known are {', '.join(UNITS)}")
    os.environ["GX_ANALYTICS_ENABLED"] = NO_TELEMETRY["GX_ANALYTICS_ENABLED"]  # read on import
    from sarflood.validation.suite import build_suite

    suite = build_suite(bands, units, params, labelled=_is_labelled(table))
    if set(required_columns(bands)) <= set(table):
        judged = with_derived_columns(table, bands)
    else:  # only the first expectation, on the columns themselves, can be judged
        judged, suite = table, suite[:1]
    suite_name = f"Sentinel-1 patches in {UNITS[units]}"
    return judge(judged, suite, title=_title(judged), suite_name=suite_name, docs=docs)


def judge(
    table: pd.DataFrame,
    suite: list[Expectation],
    *,
    title: str,
    suite_name: str,
    docs: Path | None = None,
) -> Verdict:
    """Judge a table with the columns `id` and `event` by expectations of `expect.py`.

    Args:
        table: A row a patch.
        suite: What is expected.
        title: What the table is of, for Data Docs.
        suite_name: What is expected of it, for Data Docs.
        docs: Folder for Data Docs; what it held before is replaced.

    Raises:
        SarfloodError: An expectation could not be judged.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = NO_TELEMETRY["GX_ANALYTICS_ENABLED"]  # read on import
    context = _quiet_context()
    verdict = read_verdict(_run(context, table, suite, title, suite_name), table)
    if docs:
        write_docs(context, docs, title)
    return verdict


def _is_labelled(table: pd.DataFrame) -> bool:
    return "wet_share" in table and bool(table["wet_share"].notna().any())


def _quiet_context() -> EphemeralDataContext:
    """Make a context that lives in memory alone, without progress bars or folders of its own."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _run(
    context: EphemeralDataContext,
    judged: pd.DataFrame,
    suite: list[Expectation],
    title: str,
    suite_name: str,
) -> list[Any]:
    """Run the suite; return Great Expectations' result of each expectation."""
    import great_expectations as gx

    asset = context.data_sources.add_pandas("patches").add_dataframe_asset(title)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name="patches",
            data=asset.add_batch_definition_whole_dataframe("all patches"),
            suite=context.suites.add(gx.ExpectationSuite(name=suite_name, expectations=suite)),
        )
    )
    checkpoint = gx.Checkpoint(
        name="patches",
        validation_definitions=[definition],
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["id"] if "id" in judged else [],
            "return_unexpected_index_query": False,
        },
    )
    run = gx.RunIdentifier(run_name=title, run_time=dt.datetime.now(dt.UTC))
    result = context.checkpoints.add(checkpoint).run({"dataframe": judged}, run_id=run)
    return [outcome for each in result.run_results.values() for outcome in each.results]


def _title(judged: pd.DataFrame) -> str:
    """Say which events the table is of, as Data Docs show it."""
    events = sorted(judged["event"].dropna().unique()) if "event" in judged else []
    shown = ", ".join(events[:EVENTS_IN_TITLE]) or "unknown"
    left = len(events) - EVENTS_IN_TITLE
    more = f" and {left} more" if left > 0 else ""
    return f"{'events' if len(events) > 1 else 'event'} {shown}{more}"
