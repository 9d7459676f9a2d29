"""Validate: the canonical tables are held against their contract before anything is built on them.

Reads `raw` (ingest's tables). Writes `report` (Great Expectations' Data Docs from `index.html`, and
`results.json`), then, when no critical fault was found, `clean`: the same tables and `profile.json`, which a
later run's drift check compares against.
"""

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.validate import frames, profile, suites
from components.validate.config import ValidateConfig
from rankline.errors import IntegrityError, ValidationFailed
from rankline.runtime import ledger
from rankline.runtime.progress import Progress

DAY_S = 86_400
COPIED_TABLES = ("items", "users", "queries", "events", "rejected")
Result = dict[str, Any]
Check = Callable[[str, str, Any, list[Any]], list[Result]]  # table, part, frame, expectations -> results


def validate(
    raw: Path,
    clean: Path,
    report: Path,
    *,
    config: ValidateConfig,
    progress: Progress = Progress(),
    previous: Path | None = None,
) -> dict[str, Any]:
    """Check the tables of ``raw`` and hand them on; ``previous`` is the profile to compare with.

    Raises:
        ValidationFailed: where a critical expectation is not met; the report is written by then.
    """
    present = frames.present_tables(raw)
    if missing := sorted({"items", "users", "events"} - set(present)):
        raise ValidationFailed(
            f"the data has no table of {' and '.join(missing)}",
            expected=", ".join(f"{table}.parquet" for table in missing),
            found=", ".join(f"{table}.parquet" for table in present) or "none",
            where=str(raw),
            hint="run ingest again",
        )
    report.mkdir(parents=True, exist_ok=True)
    with _expectations(report) as check:
        results, now = examine(raw, present, check, config=config, previous=previous, progress=progress, work=report)
    ledger.write_json(report / "results.json", results)
    critical = [result for result in results if not result["success"] and result["severity"] == "critical"]
    if critical:
        raise _validation_error(critical, report)

    clean.mkdir(parents=True, exist_ok=True)
    for name in [f"{table}.parquet" for table in COPIED_TABLES] + ["summary.json"]:
        if (raw / name).is_file():
            _link_or_copy(raw / name, clean / name)
    ledger.write_json(clean / "profile.json", now)
    return {
        "rows": now["rows"],
        "expectations": len(results),
        "warnings": [_describe(result) for result in results if not result["success"]],
        "compared_with_previous": previous is not None,
    }


def examine(
    raw: Path,
    present: list[str],
    check: Check,
    *,
    config: ValidateConfig,
    previous: Path | None,
    progress: Progress = Progress(),
    work: Path | None = None,
) -> tuple[list[Result], dict[str, Any]]:
    """Hold the tables that are ``present`` against what is expected of them: the results, and the profile.

    What does not fit into memory goes to a passing folder in ``work``, or where the system has such folders.
    Where a table's columns are not what they should be, nothing else is asked and the profile is empty.
    """
    summary = json.loads((raw / "summary.json").read_text())
    before = json.loads(previous.read_text()) if previous else None
    results: list[Result] = []
    progress.phase("schema")
    for table in present:
        results += check(table, "schema", frames.schema(raw / f"{table}.parquet", table), suites.schema())
    if not all(result["success"] for result in results):
        return results, {}
    columns = {table: frames.columns(raw / f"{table}.parquet") for table in present}
    if before and "columns" in before:
        results += check(
            "tables", "columns", frames.missing_columns(columns, before["columns"]), suites.columns(config)
        )

    with _database(work, config.memory_limit_mb) as db:
        dataset = frames.create_views(db, raw, present)
        until = _reference_time(config, summary)
        expected = {
            "items": suites.items(config, dataset, until=until),
            "users": suites.users(config, dataset),
            "queries": suites.queries(config),
            "events": suites.events(config, dataset, until=until),
        }
        for table in present:
            progress.phase(table)
            results += check(table, "rows", frames.table(db, table, dataset), expected[table])

        progress.phase("changes")
        now = profile.describe(
            db, summary=summary, present=present, labels=list(dataset.labels), scales=config.scales, columns=columns
        )
    numbers = profile.changes(now, before)
    numbers |= _newest_event_age(config, summary, until)
    if config.now or not summary["window"]["end"]:  # a window's end is no clock
        numbers |= profile.clock_behind(before, until)
    if numbers:
        results += check("events", "changes", _single_row_frame(numbers), suites.changes(config, numbers))
    return results, now


@contextmanager
def _database(work: Path | None, memory_mb: int) -> Iterator[Any]:
    """A DuckDB of our own that keeps to its memory."""
    import duckdb

    with (
        tempfile.TemporaryDirectory(prefix=".spill-", dir=work) as spill,
        duckdb.connect(config={"memory_limit": f"{memory_mb}MB", "temp_directory": spill}) as db,
    ):
        db.execute("SET TimeZone = 'UTC'")
        yield db


@contextmanager
def _expectations(report: Path) -> Iterator[Check]:
    """A Great Expectations of our own, quiet and forgetful; leaving it writes the Data Docs to ``report``."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

        site = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(report.absolute()),
            },
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        }
        context = gx.get_context(
            mode="ephemeral",
            project_config=DataContextConfig(
                store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
                data_docs_sites={"report": site},
                analytics_enabled=False,
                progress_bars={"globally": False, "metric_calculations": False},
            ),
        )
        batch = (
            context.data_sources.add_pandas("tables")
            .add_dataframe_asset("table")
            .add_batch_definition_whole_dataframe("whole")
        )

        def check(table: str, part: str, frame: Any, expectations: list[Any]) -> list[Result]:
            """Hold a frame against expectations; one result each, in their order."""
            name = f"{table}-{part}"
            suite = context.suites.add_or_update(gx.ExpectationSuite(name, expectations=expectations))
            definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
            outcome = context.validation_definitions.add_or_update(definition).run(
                batch_parameters={"dataframe": frame}
            )
            return _flatten(table, suite, outcome)

        try:
            yield check
        finally:
            with _raise_logged_errors():
                context.build_data_docs()


@contextmanager
def _raise_logged_errors() -> Iterator[None]:
    """What Great Expectations would only log, a page it could not write, is an error like any other."""
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
            expected="a page for every suite",
            found=reason.partition("  Traceback")[0].strip(),
            hint="run again; if it stays, please report it with this message",
        )


def _flatten(table: str, suite: Any, outcome: Any) -> list[Result]:
    """Great Expectations' results in the order of the suite (its own differs), as plain values."""
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
                "sentence": expectation.meta["sentence"],
                "expectation": each["expectation_config"]["type"],
                "columns": columns or settings.get("column_list", []),
                # what could not be checked has not passed
                "severity": "critical" if error else expectation.meta["severity"],
                "success": each["success"],
                "rows": observed.get("element_count"),
                "unexpected_count": observed.get("unexpected_count"),
                "observed": observed.get("observed_value"),
                "examples": observed.get("partial_unexpected_list", [])[:5],
                "error": error,
            }
        )
    return rows


def _exception_message(info: dict[str, Any]) -> str | None:
    """What an expectation raised, said outright or by one of its metrics."""
    for each in (info, *(value for value in info.values() if isinstance(value, dict))):
        if each.get("raised_exception"):
            return str(each.get("exception_message"))
    return None


def _reference_time(config: ValidateConfig, summary: dict[str, Any]) -> datetime:
    """The moment before which everything must have happened."""
    stated = config.now or summary["window"]["end"]
    return datetime.fromisoformat(stated) if stated else datetime.now(UTC)


def _newest_event_age(config: ValidateConfig, summary: dict[str, Any], until: datetime) -> dict[str, float]:
    """The age of the newest event, where the settings ask for it."""
    last = summary["event_time"]["last"]
    if config.max_age_days is None or last is None:
        return {}
    return {"newest_event_age_days": (until - datetime.fromisoformat(last)).total_seconds() / DAY_S}


def _single_row_frame(numbers: dict[str, float]) -> Any:
    import pandas as pd

    return pd.DataFrame([numbers])


def _describe(result: Result) -> str:
    """A failed expectation in one line, with its numbers."""
    if result["error"]:
        return f"{result['table']}: {result['sentence']}: could not be checked ({result['error']})"
    if result["unexpected_count"] is None:
        return f"{result['table']}: {result['sentence']}: found {result['observed']}"
    shown = [str(example) for example in result["examples"] if example is not None]
    examples = ", ".join(dict.fromkeys(shown))
    return (
        f"{result['table']}: {result['sentence']}: "
        f"not so for {result['unexpected_count']} of {result['rows']} rows" + (f" ({examples})" if examples else "")
    )


def _validation_error(critical: list[Result], report: Path) -> ValidationFailed:
    more = f" (and {len(critical) - 1} more critical faults)" if len(critical) > 1 else ""
    return ValidationFailed(
        _describe(critical[0]) + more,
        expected="every critical expectation to be met",
        found="; ".join(_describe(result) for result in critical),
        where=str(report / "index.html"),
        hint="correct the source and run again; the limits are settings (`rankline step validate --help`)",
    )


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file, a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
