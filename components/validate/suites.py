"""What is expected of every table, one sentence an expectation.

Every expectation here is seen to fail on data made bad for it (tests/components/test_validate.py).
"""

from datetime import UTC, datetime
from typing import Any

from components.validate.config import ValidateConfig


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


def items(config: ValidateConfig, *, until: datetime) -> list[Any]:
    """Of the catalogue."""
    import great_expectations.expectations as gxe

    return [
        *_keyed("item_id", at_least=config.min_items),
        _warning(
            f"at least {config.min_described_share:.0%} of the items have a title or a text",
            gxe.ExpectColumnValuesToNotBeNull,
            column="words",
            mostly=config.min_described_share,
        ),
        _critical("no price is negative", gxe.ExpectColumnValuesToBeBetween, column="price", min_value=0),
        _warning(
            f"no item came out after {until:%Y-%m-%d %H:%M}",
            gxe.ExpectColumnValuesToBeBetween,
            column="created_at",
            max_value=until,
        ),
    ]


def users(config: ValidateConfig) -> list[Any]:
    """Of the users."""
    return _keyed("user_id", at_least=config.min_users)


def queries() -> list[Any]:
    """Of the queries."""
    import great_expectations.expectations as gxe

    return [
        *_keyed("query_id", at_least=1),
        _critical("every query has words", gxe.ExpectColumnValuesToNotBeNull, column="words"),
    ]


def events(config: ValidateConfig, *, until: datetime, present: list[str], labels: list[str]) -> list[Any]:
    """Of the events."""
    import great_expectations.expectations as gxe

    since = datetime(config.min_year, 1, 1, tzinfo=UTC)
    references = {
        "items": ("item", "item_id"),
        "users": ("user", "user_id"),
        "queries": ("query", "query_id"),
    }
    return [
        *_keyed("event_id", at_least=config.min_events),
        *(
            _critical(f"every {column} is there", gxe.ExpectColumnValuesToNotBeNull, column=column)
            for column in ("event_timestamp", "known_at", "item_id")
        ),
        _critical("every event has a user or a query", gxe.ExpectColumnValuesToBeNull, column="nobody"),
        *(
            _critical(f"every {key} is one of {table}", gxe.ExpectColumnValuesToBeNull, column=f"unknown_{noun}")
            for table, (noun, key) in references.items()
            if table in present
        ),
        _critical(
            "no event is there twice (user, query, item, moment)",
            gxe.ExpectCompoundColumnsToBeUnique,
            column_list=["user_id", "query_id", "item_id", "event_timestamp"],
            ignore_row_if="never",
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
            for label in labels
        ),
    ]


def changes(config: ValidateConfig, numbers: dict[str, float]) -> list[Any]:
    """Of how this data differs from the last good run's, and of its age: one column a number."""
    import great_expectations.expectations as gxe

    told = _critical if config.changes == "critical" else _warning
    expectations = []
    for column in numbers:
        if column == "newest_event_age_days":
            severity, limit = _critical, config.max_age_days
            sentence = f"the newest event is at most {limit:g} days old"
        elif table := _before(column, "_rows_change"):
            severity, limit = told, config.max_volume_change
            sentence = f"the rows of {table} changed by a share of at most {limit:g} since the last good run"
        else:
            severity, limit = told, config.max_drift
            label = _before(column, "_drift")
            sentence = f"a share of at most {limit:g} of the values of {label} moved since the last good run"
        lowest = -limit if column.endswith("_rows_change") else None
        expectations.append(
            severity(sentence, gxe.ExpectColumnMaxToBeBetween, column=column, min_value=lowest, max_value=limit)
        )
    return expectations


def _before(text: str, suffix: str) -> str:
    """What stands before a suffix; empty where the text does not end so."""
    return text.removesuffix(suffix) if text.endswith(suffix) else ""


def _keyed(key: str, *, at_least: int) -> list[Any]:
    """Of a table with a key: enough rows, and a key that is there and unique."""
    import great_expectations.expectations as gxe

    return [
        _critical(f"there are at least {at_least} rows", gxe.ExpectTableRowCountToBeBetween, min_value=at_least),
        _critical(f"every {key} is there", gxe.ExpectColumnValuesToNotBeNull, column=key),
        _critical(f"every {key} is unique", gxe.ExpectColumnValuesToBeUnique, column=key),
    ]


def _critical(sentence: str, expectation: Any, **settings: Any) -> Any:
    meta = {"severity": "critical", "sentence": sentence}
    return expectation(**settings, severity="critical", description=sentence, meta=meta)


def _warning(sentence: str, expectation: Any, **settings: Any) -> Any:
    meta = {"severity": "warning", "sentence": sentence}
    return expectation(**settings, severity="warning", description=sentence, meta=meta)
