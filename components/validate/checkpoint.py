"""Great Expectations: frames are validated against suites, and the results become Data Docs."""

import html
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankline.errors import IntegrityError

Result = dict[str, Any]
Check = Callable[[str, str, Any, list[Any]], list[Result]]  # table, part, frame, expectations -> results


@contextmanager
def checkpoint(report: Path) -> Iterator[Check]:
    """A temporary Great Expectations context; leaving the block writes the Data Docs to ``report``."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from components.validate.gx import gx

        context = _context(report)
        batch = (
            context.data_sources.add_pandas("tables")
            .add_dataframe_asset("table")
            .add_batch_definition_whole_dataframe("whole")
        )

        def check(table: str, part: str, frame: Any, expectations: list[Any]) -> list[Result]:
            """Validate a frame; returns one result per expectation, in their order."""
            name = f"{table}-{part}"
            suite = context.suites.add_or_update(gx.ExpectationSuite(name, expectations=expectations))
            definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
            outcome = context.validation_definitions.add_or_update(definition).run(
                batch_parameters={"dataframe": _escaped(frame)}
            )
            return _flatten(table, suite, outcome)

        try:
            yield check
        finally:
            with _raise_logged_errors():
                context.build_data_docs()


def _context(report: Path) -> Any:
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    from components.validate.gx import gx

    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(report.absolute())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={"report": site},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


@contextmanager
def _raise_logged_errors() -> Iterator[None]:
    """Raise the error that Great Expectations only logs when it cannot write a page."""
    messages: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR:
            return True
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger("great_expectations.render.renderer.site_builder")
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)
    if messages:
        reason = next((line for line in messages[0].splitlines() if "Error" in line), messages[0].splitlines()[0])
        raise IntegrityError(
            "the validation report could not be written",
            expected="a page per suite",
            found=reason.partition("  Traceback")[0].strip(),
            hint="run again; if it happens again, report it with this message",
        )


def escape(text: Any) -> Any:
    """A text as HTML, since Data Docs show values and names as they are."""
    return html.escape(text, quote=False) if isinstance(text, str) else text


def _unescape(value: Any) -> Any:
    if isinstance(value, list):
        return [_unescape(each) for each in value]
    return html.unescape(value) if isinstance(value, str) else value


def _escaped(frame: Any) -> Any:
    """A frame whose names and texts are HTML."""
    import pandas as pd

    frame = frame.rename(columns=escape)
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            frame[name] = column.cat.rename_categories(list(map(escape, column.cat.categories)))
        elif column.dtype == object or isinstance(column.dtype, pd.StringDtype):
            frame[name] = column.map(escape, na_action="ignore")
    return frame


def _flatten(table: str, suite: Any, outcome: Any) -> list[Result]:
    """The results as plain values, in the order of the suite, which Great Expectations does not keep."""
    by_id = {each.expectation_config.id: each.to_json_dict() for each in outcome.results}
    rows = []
    for expectation in suite.expectations:
        each = by_id[expectation.id]
        observed, settings = each["result"], each["expectation_config"]["kwargs"]
        error = _exception_message(each["exception_info"])
        columns = [settings[name] for name in ("column", "column_A", "column_B") if name in settings]
        rows.append(
            {
                "table": table,
                "sentence": _unescape(expectation.meta["sentence"]),
                "expectation": each["expectation_config"]["type"],
                "columns": _unescape(columns or settings.get("column_list", [])),
                # an expectation that could not be evaluated has failed
                "severity": "critical" if error else expectation.meta["severity"],
                "success": each["success"],
                "rows": observed.get("element_count"),
                "unexpected_count": observed.get("unexpected_count"),
                "observed": _unescape(observed.get("observed_value")),
                "examples": _unescape(observed.get("partial_unexpected_list", [])[:5]),
                "error": error,
            }
        )
    return rows


def _exception_message(info: dict[str, Any]) -> str | None:
    """The exception of an expectation, or of one of its metrics."""
    for each in (info, *(value for value in info.values() if isinstance(value, dict))):
        if each.get("raised_exception"):
            return str(each.get("exception_message"))
    return None
