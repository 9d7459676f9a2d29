"""The expectations of every table, with one sentence each.

Every expectation is seen to fail on data that is made bad for it (tests/components/test_validate.py).
"""

from datetime import UTC, datetime
from typing import Any

from components.validate.config import ValidateConfig
from components.validate.frames import REFERENCES, DatasetInfo
from rankline.contracts import SPLIT, SPLITS


def _library() -> Any:
    from great_expectations import expectations

    return expectations  # untyped: its expectations are not exported explicitly


def schema() -> list[Any]:
    """Expectations of a table's columns (one row per column)."""
    gxe = _library()

    return [
        _critical(
            "every column is present with its type",
            gxe.ExpectColumnPairValuesToBeEqual,
            column_A="expected",
            column_B="found",
            ignore_row_if="neither",
        )
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
    """Expectations of the items."""
    gxe = _library()

    row_count_sentence = ""
    if dataset.only_item and config.min_items > 1:
        row_count_sentence = f"every text has the label {dataset.only_item!r}; {config.min_items} or more are needed"
    return [
        *_key_expectations("items", "item_id", at_least=config.min_items, row_count_sentence=row_count_sentence),
        _warning(
            f"at least {config.min_described_share:.0%} of the items have a title or a text",
            gxe.ExpectColumnValuesToBeNull,
            column="without_text",
            mostly=config.min_described_share,
        ),
        _critical("no price is negative", gxe.ExpectColumnValuesToBeBetween, column="price", min_value=0),
        _warning(
            f"no item was created after {until:%Y-%m-%d %H:%M}",
            gxe.ExpectColumnValuesToBeBetween,
            column="created_at",
            max_value=until,
        ),
        _warning(
            "every language is a code such as en or zh-CN", gxe.ExpectColumnValuesToBeNull, column="unknown_language"
        ),
        _warning(
            f"at most {config.max_unavailable_share:.0%} of the items are unavailable",
            gxe.ExpectColumnValuesToBeNull,
            column="unavailable",
            mostly=1 - config.max_unavailable_share,
        ),
        *(
            _critical(
                f"every {vector} is as long as the others", gxe.ExpectColumnValuesToBeNull, column=f"length_of_{vector}"
            )
            for vector in dataset.vectors
        ),
    ]


def users(config: ValidateConfig, dataset: DatasetInfo) -> list[Any]:
    """Expectations of the users; a source whose events have no users may have none."""
    gxe = _library()

    return [
        *_key_expectations("users", "user_id", at_least=config.min_users if dataset.names_users else 0),
        _warning(
            f"at least {config.min_active_share:.0%} of the users have a history",
            gxe.ExpectColumnValuesToBeNull,
            column="without_events",
            mostly=config.min_active_share,
        ),
    ]


def queries(config: ValidateConfig) -> list[Any]:
    """Expectations of the queries; a source without any has an empty table."""
    gxe = _library()

    return [
        *_key_expectations("queries", "query_id", at_least=config.min_queries),
        _critical("every query has a text or turns", gxe.ExpectColumnValuesToBeNull, column="without_text"),
    ]


def events(config: ValidateConfig, dataset: DatasetInfo, *, until: datetime) -> list[Any]:
    """Expectations of the events."""
    return [
        *_key_expectations("events", "event_id", at_least=config.min_events),
        *_reference_expectations(dataset),
        *_time_expectations(config, until=until),
        *_label_expectations(config, dataset),
    ]


def _reference_expectations(dataset: DatasetInfo) -> list[Any]:
    """Events have an item, a user or a query, all of them known, and are no duplicates."""
    gxe = _library()

    return [
        *(
            _critical(f"every {column} is present", gxe.ExpectColumnValuesToNotBeNull, column=column)
            for column in ("event_timestamp", "known_at", "item_id")
        ),
        _critical("every event has a user or a query", gxe.ExpectColumnValuesToBeNull, column="without_entity"),
        *(
            _critical(f"every {key} is one of {table}", gxe.ExpectColumnValuesToBeNull, column=f"unknown_{noun}")
            for table, (key, noun) in REFERENCES.items()
            if table in dataset.tables
        ),
        _critical(
            "no event is a duplicate (user, query, item, time)", gxe.ExpectColumnValuesToBeNull, column="duplicate"
        ),
    ]


def _time_expectations(config: ValidateConfig, *, until: datetime) -> list[Any]:
    """Events are in the expected range of time, in order, and not known before they happen."""
    gxe = _library()

    since = datetime(config.min_year, 1, 1, tzinfo=UTC)
    return [
        _critical(
            f"every event is in [{since:%Y-%m-%d}, {until:%Y-%m-%d %H:%M})",
            gxe.ExpectColumnValuesToBeBetween,
            column="event_timestamp",
            min_value=since,
            max_value=until,
            strict_max=True,
        ),
        _critical("no event is known before it happens", gxe.ExpectColumnValuesToBeNull, column="known_before_event"),
        _critical("the events are in order of time", gxe.ExpectColumnValuesToBeNull, column="out_of_order"),
    ]


def _label_expectations(config: ValidateConfig, dataset: DatasetInfo) -> list[Any]:
    """Labels are on their scale and have more than one value; splits are known."""
    gxe = _library()

    expectations = []
    for label in dataset.labels:
        low, high = config.scales[label]
        expectations.append(
            _critical(
                f"every {label} is in [{low:g}, {high:g}]",
                gxe.ExpectColumnValuesToBeBetween,
                column=label,
                min_value=low,
                max_value=high,
            )
        )
    for label in dataset.labels:
        expectations.append(
            _warning(
                f"{label} has more than one value (a label with one value teaches nothing by itself: "
                "only sampled negatives differ from it)",
                gxe.ExpectColumnUniqueValueCountToBeBetween,
                column=label,
                min_value=2,
            )
        )
    if dataset.split:
        sentence = f"every {SPLIT} is {', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
        expectations.append(_critical(sentence, gxe.ExpectColumnValuesToBeNull, column="unknown_split"))
    return expectations


def columns(config: ValidateConfig) -> list[Any]:
    """Expectations of all tables' columns (one row per column of the last good run)."""
    gxe = _library()

    expectation_of = _critical if config.changes == "critical" else _warning
    return [
        expectation_of(
            "every column of the last good run is still there", gxe.ExpectColumnValuesToBeNull, column="missing_column"
        )
    ]


def changes(config: ValidateConfig, numbers: dict[str, float]) -> list[Any]:
    """Expectations of the changes since the last good run, and of the data's age: one column per number."""
    gxe = _library()

    expectation_of = _critical if config.changes == "critical" else _warning
    expectations = []
    for column in numbers:
        if column == "newest_event_age_days":
            assert config.max_age_days is not None, "the number is there only if the setting is"
            severity, limit = _critical, config.max_age_days
            sentence = f"the newest event is at most {limit:g} days old"
        elif column == "clock_behind_days":
            severity, limit = _critical, 0.0
            sentence = "the clock is not behind the newest event of the last good run"
        elif table := _without_suffix(column, "_rows_change"):
            severity, limit = expectation_of, config.max_volume_change
            sentence = f"the rows of {table} changed by a share of at most {limit:g} since the last good run"
        else:
            severity, limit = expectation_of, config.max_drift
            label = _without_suffix(column, "_drift")
            sentence = f"a share of at most {limit:g} of the values of {label} moved since the last good run"
        lowest = -limit if column.endswith("_rows_change") else None
        expectations.append(
            severity(sentence, gxe.ExpectColumnMaxToBeBetween, column=column, min_value=lowest, max_value=limit)
        )
    return expectations


def _without_suffix(text: str, suffix: str) -> str:
    """A text without its suffix; empty if it does not end with it."""
    return text.removesuffix(suffix) if text.endswith(suffix) else ""


def _key_expectations(table: str, key: str, *, at_least: int, row_count_sentence: str = "") -> list[Any]:
    """Expectations of a table with a key: enough rows, and a key that is present and unique."""
    gxe = _library()

    expectations = [
        _critical(
            row_count_sentence or f"there are at least {at_least} rows",
            gxe.ExpectTableRowCountToBeBetween,
            min_value=at_least,
        ),
        _critical(f"every {key} is present", gxe.ExpectColumnValuesToNotBeNull, column=key),
        _critical(f"every {key} is unique", gxe.ExpectColumnValuesToBeNull, column=f"repeated_{key}"),
    ]
    if table != "events":
        expectations.append(
            _critical(
                f"no {key} is present with and without a fraction (12 and 12.0: mixed types)",
                gxe.ExpectColumnValuesToBeNull,
                column=f"mixed_{key}",
            )
        )
    return expectations


def _critical(sentence: str, expectation: Any, **settings: Any) -> Any:
    meta = {"severity": "critical", "sentence": sentence}
    return expectation(**settings, severity="critical", description=sentence, meta=meta)


def _warning(sentence: str, expectation: Any, **settings: Any) -> Any:
    meta = {"severity": "warning", "sentence": sentence}
    return expectation(**settings, severity="warning", description=sentence, meta=meta)
