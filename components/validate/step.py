"""Validate: check the canonical tables against their contract.

Reads `raw` (ingest's tables). Writes `report` (Great Expectations' Data Docs from `index.html`, `results.json` and
`measures.json`, which gates read) and, without a critical failure, `clean`: the same tables and `profile.json`, which
later runs are compared with.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.validate import frames, labels, profile, suites
from components.validate.checkpoint import Check, Result, checkpoint
from components.validate.config import ValidateConfig
from components.validate.measures import MEASURES, measures
from rankline.contracts import LABELS
from rankline.errors import ValidationFailed
from rankline.io.files import link_or_copy, write_json
from rankline.io.sql import memory_database
from rankline.runtime.progress import Progress

DAY_S = 86_400
COPIED_TABLES = ("items", "users", "queries", "events", "rejected")


def validate(
    raw: Path,
    clean: Path,
    report: Path,
    *,
    config: ValidateConfig,
    progress: Progress = Progress(),
    previous: Path | None = None,
) -> dict[str, Any]:
    """Check the tables of ``raw`` and pass them on; ``previous`` is the profile to compare with.

    Raises:
        ValidationFailed: a critical expectation failed; the report has been written.
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
    with checkpoint(report) as check:
        results, current = examine(raw, check, config=config, previous=previous, progress=progress, spill_folder=report)
    write_json(report / "results.json", results)
    critical = [result for result in results if not result["success"] and result["severity"] == "critical"]
    summary = json.loads((raw / "summary.json").read_text())
    if critical:
        raise _validation_error(critical, report, summary)

    clean.mkdir(parents=True, exist_ok=True)
    for name in [f"{table}.parquet" for table in COPIED_TABLES] + ["summary.json"]:
        if (raw / name).is_file():
            link_or_copy(raw / name, clean / name)
    write_json(clean / "profile.json", current)
    changes = profile.changes(current, json.loads(previous.read_text()) if previous else None)
    write_json(report / MEASURES, measures(current, summary, changes, results))
    return {
        "rows": current["rows"],
        "expectations": len(results),
        "warnings": [_describe(result) for result in results if not result["success"]],
        "compared_with_previous": previous is not None,
    }


def examine(
    raw: Path,
    check: Check,
    *,
    config: ValidateConfig,
    previous: Path | None,
    progress: Progress = Progress(),
    spill_folder: Path | None = None,
) -> tuple[list[Result], dict[str, Any]]:
    """Check the tables of ``raw``; returns the results and the profile.

    If a table's columns are not those of the contract, nothing else is checked and the profile is empty. DuckDB spills
    to ``spill_folder``, by default a temporary folder of the system.
    """
    summary = json.loads((raw / "summary.json").read_text())
    before = json.loads(previous.read_text()) if previous else None
    present = frames.present_tables(raw)
    event_columns = frames.columns(raw / "events.parquet")
    scales = labels.scales(summary, event_columns, config.scales)
    progress.phase("schema")
    results: list[Result] = []
    for table in present:
        results += check(table, "schema", frames.schema(raw / f"{table}.parquet", table, scales), suites.schema())
    if not all(result["success"] for result in results):
        return results, {}
    columns = {table: frames.columns(raw / f"{table}.parquet") for table in present}
    if before and "columns" in before:
        missing = frames.missing_columns(columns, before["columns"])
        results += check("tables", "columns", missing, suites.columns(config))

    until = _reference_time(config, summary)
    with _database(spill_folder, config.memory_limit_mb) as db:
        dataset = frames.create_views(db, raw, present, labels=scales, feedback="feedback" in summary)
        expectations = suites.by_table(config, dataset, until=until)
        for table in present:
            progress.phase(table)
            results += check(table, "rows", frames.table(db, table, dataset), expectations[table])
        progress.phase("changes")
        current = profile.describe(db, summary=summary, dataset=dataset, columns=columns, before=before)
    if numbers := _changes(config, summary, current, before, until):
        results += check("events", "changes", frames.single_row(numbers), suites.changes(config, numbers))
    return results, current


@contextmanager
def _database(folder: Path | None, memory_mb: int) -> Iterator[Any]:
    """A DuckDB in memory that spills to a temporary folder."""
    with (
        tempfile.TemporaryDirectory(prefix=".spill-", dir=folder) as spill,
        memory_database(Path(spill), memory_mb=memory_mb) as db,
    ):
        yield db


def _changes(
    config: ValidateConfig,
    summary: dict[str, Any],
    current: dict[str, Any],
    before: dict[str, Any] | None,
    until: datetime,
) -> dict[str, float]:
    """The differences from the last good run's profile, the age of the data, and a clock that is behind."""
    numbers = profile.changes(current, before)
    last = summary["event_time"]["last"]
    if config.max_age_days is not None and last is not None:
        numbers["newest_event_age_days"] = (until - datetime.fromisoformat(last)).total_seconds() / DAY_S
    if config.now or not summary["window"]["end"]:  # the end of a window is not a clock
        numbers |= profile.clock_behind(before, until)
    return numbers


def _reference_time(config: ValidateConfig, summary: dict[str, Any]) -> datetime:
    """The time before which every event must have happened."""
    stated = config.now or summary["window"]["end"]
    return datetime.fromisoformat(stated) if stated else datetime.now(UTC)


def _describe(result: Result) -> str:
    """A failed expectation in one line, with its numbers."""
    if result["error"]:
        return f"{result['table']}: {result['sentence']}: could not be evaluated ({result['error']})"
    if result["unexpected_count"] is None:
        return f"{result['table']}: {result['sentence']}: found {result['observed']}"
    values = [str(example) for example in result["examples"] if example is not None]
    examples = ", ".join(dict.fromkeys(values))
    return (
        f"{result['table']}: {result['sentence']}: "
        f"fails for {result['unexpected_count']} of {result['rows']} rows" + (f" ({examples})" if examples else "")
    )


def _validation_error(critical: list[Result], report: Path, summary: dict[str, Any]) -> ValidationFailed:
    beyond_scale = (each for each in critical if each["expectation"] == "expect_column_values_to_be_between")
    known = {*LABELS, *labels.declared(summary)}
    label = next((column for each in beyond_scale for column in each["columns"] if column in known), "")
    more = f" (and {len(critical) - 1} more critical failures)" if len(critical) > 1 else ""
    return ValidationFailed(
        _describe(critical[0]) + more,
        expected="no critical failure",
        found="; ".join(_describe(result) for result in critical),
        where=str(report / "index.html"),
        hint="correct the source and run again, or change the limits"
        + (f": {labels.hint(label, summary)}" if label else " (`rankline step validate --help`)"),
    )
