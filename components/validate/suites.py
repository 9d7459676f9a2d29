"""The expectations of every table, with one sentence each.

Every expectation is seen to fail on data that is made bad for it (tests/components/test_validate.py).
"""

from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal

from components.validate.checkpoint import escape
from components.validate.config import ValidateConfig
from components.validate.frames import REFERENCES, DatasetInfo
from rankline.contracts import SPLIT, SPLITS
from rankline.labels import FEEDBACK

Severity = Literal["critical", "warning"]


def schema() -> list[Any]:
    """Expectations of a table's columns (one row per column)."""
    sentence = "every column is present with its type"
    return [
        expect(sentence, "ColumnPairValuesToBeEqual", column_A="expected", column_B="found", ignore_row_if="neither")
    ]


def by_table(config: ValidateConfig, dataset: DatasetInfo, *, until: datetime) -> dict[str, list[Any]]:
    """The expectations of each table's rows; everything must have happened before ``until``."""
    return {
        "items": items(config, dataset, until=until),
        "users": users(config, dataset),
        "queries": queries(config),
        "events": events(config, dataset, until=until),
    }


def items(config: ValidateConfig, dataset: DatasetInfo, *, until: datetime) -> list[Any]:
    described, unavailable = config.min_described_share, config.max_unavailable_share
    enough = ""
    if dataset.only_item and config.min_items > 1:
        enough = f"every text has the label {dataset.only_item!r}; {config.min_items} or more are needed"
    sentence = f"at least {described:.0%} of the items have a title or a text"
    return [
        *_key("items", "item_id", at_least=config.min_items, enough=enough),
        _no_row(sentence, "without_text", mostly=described, severity="warning"),
        expect("no price is negative", "ColumnValuesToBeBetween", column="price", min_value=0),
        expect(
            f"no item was created after {until:%Y-%m-%d %H:%M}",
            "ColumnValuesToBeBetween",
            column="created_at",
            max_value=until,
            severity="warning",
        ),
        _no_row("every language is a code such as en or zh-CN", "unknown_language", severity="warning"),
        _no_row(
            f"at most {unavailable:.0%} of the items are unavailable",
            "unavailable",
            mostly=1 - unavailable,
            severity="warning",
        ),
        *(_no_row(f"every {vector} is as long as the others", f"length_of_{vector}") for vector in dataset.vectors),
    ]


def users(config: ValidateConfig, dataset: DatasetInfo) -> list[Any]:
    """Expectations of the users; a source whose events have no users may have none."""
    active = config.min_active_share
    sentence = f"at least {active:.0%} of the users have a history"
    return [
        *_key("users", "user_id", at_least=config.min_users if dataset.names_users else 0),
        _no_row(sentence, "without_events", mostly=active, severity="warning"),
    ]


def queries(config: ValidateConfig) -> list[Any]:
    """Expectations of the queries; a source without any has an empty table."""
    return [
        *_key("queries", "query_id", at_least=config.min_queries),
        _no_row("every query has a text or turns", "without_text"),
    ]


def events(config: ValidateConfig, dataset: DatasetInfo, *, until: datetime) -> list[Any]:
    since = datetime(config.min_year, 1, 1, tzinfo=UTC)
    references = [(table, *names) for table, names in REFERENCES.items() if table in dataset.tables]
    return [
        *_key("events", "event_id", at_least=config.min_events),
        *(_present(column) for column in ("event_timestamp", "known_at", "item_id")),
        _no_row("every event has a user or a query", "without_entity"),
        *(_no_row(f"every {key} is one of {table}", f"unknown_{noun}") for table, key, noun in references),
        _no_row("no event is a duplicate (user, query, item, time)", "duplicate"),
        expect(
            f"every event is in [{since:%Y-%m-%d}, {until:%Y-%m-%d %H:%M})",
            "ColumnValuesToBeBetween",
            column="event_timestamp",
            min_value=since,
            max_value=until,
            strict_max=True,
        ),
        _no_row("no event is known before it happens", "known_before_event"),
        _no_row("the events are in order of time", "out_of_order"),
        *_labels(config, dataset),
    ]


def _labels(config: ValidateConfig, dataset: DatasetInfo) -> list[Any]:
    """Labels are on their scale and have more than one value; splits are known."""
    expectations = []
    for label, (low, high) in dataset.labels.items():
        sentence = f"every {label} is in [{low:g}, {high:g}]"
        bounds: dict[str, Any] = {
            "min_value": low if isfinite(low) else None,
            "max_value": high if isfinite(high) else None,
        }
        if any(bound is not None for bound in bounds.values()):
            expectations.append(expect(sentence, "ColumnValuesToBeBetween", column=label, **bounds))
    for label in dataset.labels:
        sentence = (
            f"{label} has more than one value (a label with one value teaches nothing by itself: "
            "only sampled negatives differ from it)"
        )
        settings = {"column": label, "min_value": 2}
        expectations.append(expect(sentence, "ColumnUniqueValueCountToBeBetween", severity="warning", **settings))
    if dataset.feedback:
        expectations += _feedback(config)
    if dataset.split:
        expectations.append(_no_row(f"every {SPLIT} is {', '.join(SPLITS[:-1])} or {SPLITS[-1]}", "unknown_split"))
    return expectations


def _feedback(config: ValidateConfig) -> list[Any]:
    """Some events are positives, and labels say of most what they are."""
    positive, unused = config.min_positive_share, config.max_unused_share
    return [
        expect("some event is a positive", "ColumnMaxToBeBetween", column=FEEDBACK, min_value=0, strict_min=True),
        expect("no feedback is below 0", "ColumnValuesToBeBetween", column=FEEDBACK, min_value=0),
        _no_row(
            f"at least {positive:.2%} of the events are positives", "no_positive", mostly=positive, severity="warning"
        ),
        _no_row(
            f"labels make at most {unused:.0%} of the events neither positive nor negative",
            "unused",
            mostly=1 - unused,
            severity="warning",
        ),
    ]


def columns(config: ValidateConfig) -> list[Any]:
    """Expectations of all tables' columns (one row per column of the last good run)."""
    sentence = "every column of the last good run is still there"
    return [_no_row(sentence, "missing_column", severity=config.changes)]


def changes(config: ValidateConfig, numbers: dict[str, float]) -> list[Any]:
    """Expectations of the changes since the last good run, and of the data's age: one column per number."""
    expectations = []
    for column in numbers:
        severity: Severity = config.changes
        lowest: float | None = None
        if column == "newest_event_age_days":
            assert config.max_age_days is not None, "the number is there only if the setting is"
            severity, limit = "critical", config.max_age_days
            sentence = f"the newest event is at most {limit:g} days old"
        elif column == "clock_behind_days":
            severity, limit = "critical", 0.0
            sentence = "the clock is not behind the newest event of the last good run"
        elif column.endswith("_rows_change"):
            limit = config.max_volume_change
            lowest, table = -limit, column.removesuffix("_rows_change")
            sentence = f"the rows of {table} changed by a share of at most {limit:g} since the last good run"
        else:
            limit, label = config.max_drift, column.removesuffix("_drift")
            sentence = f"a share of at most {limit:g} of the values of {label} moved since the last good run"
        limits = {"min_value": lowest, "max_value": limit}
        expectations.append(expect(sentence, "ColumnMaxToBeBetween", severity=severity, column=column, **limits))
    return expectations


def _key(table: str, key: str, *, at_least: int, enough: str = "") -> list[Any]:
    """Enough rows (``enough`` is the sentence), and a key that is present and unique."""
    enough = enough or f"there are at least {at_least} rows"
    expectations = [
        expect(enough, "TableRowCountToBeBetween", min_value=at_least),
        _present(key),
        _no_row(f"every {key} is unique", f"repeated_{key}"),
    ]
    if table != "events":
        mixed = f"no {key} is present with and without a fraction (12 and 12.0: mixed types)"
        expectations.append(_no_row(mixed, f"mixed_{key}"))
    return expectations


def _present(column: str) -> Any:
    return expect(f"every {column} is present", "ColumnValuesToNotBeNull", column=column)


def _no_row(sentence: str, check: str, *, mostly: float = 1.0, severity: Severity = "critical") -> Any:
    """No row, or at most a share of 1 - ``mostly``, fails a check of frames.py."""
    return expect(sentence, "ColumnValuesToBeNull", column=check, mostly=mostly, severity=severity)


def expect(sentence: str, name: str, *, severity: Severity = "critical", **settings: Any) -> Any:
    """Great Expectations' Expect<name> with a sentence."""
    from components.validate.gx import gx

    sentence = escape(sentence)
    settings = {name: escape(value) for name, value in settings.items()}
    meta = {"severity": severity, "sentence": sentence}
    return getattr(gx.expectations, f"Expect{name}")(**settings, severity=severity, description=sentence, meta=meta)
