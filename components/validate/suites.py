"""What is expected of every table, one sentence an expectation.

Every expectation here is seen to fail on data made bad for it (tests/components/test_validate.py).
"""

from datetime import UTC, datetime
from typing import Any

from components.validate.config import ValidateConfig
from components.validate.frames import REFERENCES, DatasetInfo
from rankline.contracts import SPLIT, SPLITS


def schema() -> list[Any]:
    """Of the columns of a table (one row a column)."""
    import great_expectations.expectations as gxe

    return [
        _critical(
            "every column is there with its type",
            gxe.ExpectColumnPairValuesToBeEqual,
            column_A="expected",
            column_B="found",
            ignore_row_if="neither",
        )
    ]


def items(config: ValidateConfig, dataset: DatasetInfo, *, until: datetime) -> list[Any]:
    """Of the catalogue."""
    import great_expectations.expectations as gxe

    row_count_sentence = ""
    if dataset.only_item and config.min_items > 1:
        row_count_sentence = f"every text has the label {dataset.only_item!r}; {config.min_items} or more are needed"
    return [
        *_key_expectations("items", "item_id", at_least=config.min_items, row_count_sentence=row_count_sentence),
        _warning(
            f"at least {config.min_described_share:.0%} of the items have a title or a text",
            gxe.ExpectColumnValuesToBeNull,
            column="wordless",
            mostly=config.min_described_share,
        ),
        _critical("no price is negative", gxe.ExpectColumnValuesToBeBetween, column="price", min_value=0),
        _warning(
            f"no item came out after {until:%Y-%m-%d %H:%M}",
            gxe.ExpectColumnValuesToBeBetween,
            column="created_at",
            max_value=until,
        ),
        _warning("every language is a code such as en or zh-CN", gxe.ExpectColumnValuesToBeNull, column="no_language"),
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
    """Of the users; a source whose events name none may have none."""
    import great_expectations.expectations as gxe

    return [
        *_key_expectations("users", "user_id", at_least=config.min_users if dataset.names_users else 0),
        _warning(
            f"at least {config.min_active_share:.0%} of the users have a history",
            gxe.ExpectColumnValuesToBeNull,
            column="idle",
            mostly=config.min_active_share,
        ),
    ]


def queries(config: ValidateConfig) -> list[Any]:
    """Of the queries; a source without any has an empty table."""
    import great_expectations.expectations as gxe

    return [
        *_key_expectations("queries", "query_id", at_least=config.min_queries),
        _critical("every query has a text or turns", gxe.ExpectColumnValuesToBeNull, column="wordless"),
    ]


def events(config: ValidateConfig, dataset: DatasetInfo, *, until: datetime) -> list[Any]:
    """Of the events."""
    import great_expectations.expectations as gxe

    since = datetime(config.min_year, 1, 1, tzinfo=UTC)
    return [
        *_key_expectations("events", "event_id", at_least=config.min_events),
        *(
            _critical(f"every {column} is there", gxe.ExpectColumnValuesToNotBeNull, column=column)
            for column in ("event_timestamp", "known_at", "item_id")
        ),
        _critical("every event has a user or a query", gxe.ExpectColumnValuesToBeNull, column="nobody"),
        *(
            _critical(f"every {key} is one of {table}", gxe.ExpectColumnValuesToBeNull, column=f"unknown_{noun}")
            for table, (key, noun) in REFERENCES.items()
            if table in dataset.tables
        ),
        _critical(
            "no event is there twice (user, query, item, moment)",
            gxe.ExpectColumnValuesToBeNull,
            column="twice",
        ),
        _critical(
            f"every event lies in [{since:%Y-%m-%d}, {until:%Y-%m-%d %H:%M})",
            gxe.ExpectColumnValuesToBeBetween,
            column="event_timestamp",
            min_value=since,
            max_value=until,
            strict_max=True,
        ),
        _critical("no event is known before it happens", gxe.ExpectColumnValuesToBeNull, column="known_too_early"),
        _critical("the events are in the order of time", gxe.ExpectColumnValuesToBeNull, column="out_of_order"),
        *(
            _critical(
                f"every {label} lies in [{config.scales[label][0]:g}, {config.scales[label][1]:g}]",
                gxe.ExpectColumnValuesToBeBetween,
                column=label,
                min_value=config.scales[label][0],
                max_value=config.scales[label][1],
            )
            for label in dataset.labels
        ),
        *(
            _warning(
                f"{label} is not the same everywhere (a label of one class teaches nothing by itself: "
                "what was chosen is told from drawn negatives alone)",
                gxe.ExpectColumnUniqueValueCountToBeBetween,
                column=label,
                min_value=2,
            )
            for label in dataset.labels
        ),
        *(
            [
                _critical(
                    f"every {SPLIT} is {', '.join(SPLITS[:-1])} or {SPLITS[-1]}",
                    gxe.ExpectColumnValuesToBeNull,
                    column="no_split",
                )
            ]
            if dataset.split
            else []
        ),
    ]


def columns(config: ValidateConfig) -> list[Any]:
    """Of the columns of all tables (one row a column of the last good run)."""
    import great_expectations.expectations as gxe

    expectation_of = _critical if config.changes == "critical" else _warning
    return [
        expectation_of(
            "every column of the last good run is still there", gxe.ExpectColumnValuesToBeNull, column="gone"
        )
    ]


def changes(config: ValidateConfig, numbers: dict[str, float]) -> list[Any]:
    """Of how this data differs from the last good run's, and of its age: one column a number."""
    import great_expectations.expectations as gxe

    expectation_of = _critical if config.changes == "critical" else _warning
    expectations = []
    for column in numbers:
        if column == "newest_event_age_days":
            severity, limit = _critical, config.max_age_days
            sentence = f"the newest event is at most {limit:g} days old"
        elif column == "clock_behind_days":
            severity, limit = _critical, 0
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
    """What stands before a suffix; empty where the text does not end so."""
    return text.removesuffix(suffix) if text.endswith(suffix) else ""


def _key_expectations(table: str, key: str, *, at_least: int, row_count_sentence: str = "") -> list[Any]:
    """Of a table with a key: enough rows (``enough`` says it better), and a key that is there and unique."""
    import great_expectations.expectations as gxe

    expectations = [
        _critical(
            row_count_sentence or f"there are at least {at_least} rows",
            gxe.ExpectTableRowCountToBeBetween,
            min_value=at_least,
        ),
        _critical(f"every {key} is there", gxe.ExpectColumnValuesToNotBeNull, column=key),
        _critical(f"every {key} is unique", gxe.ExpectColumnValuesToBeNull, column=f"repeated_{key}"),
    ]
    if table != "events":
        expectations.append(
            _critical(
                f"no {key} is there with and without a fraction (12 and 12.0: mixed types)",
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
