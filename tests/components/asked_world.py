"""A small clean folder of queries and what answers them, for tests of the steps that read words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from rankline import contracts
from rankline.io import digest

INSTANT = datetime(2000, 1, 1, tzinfo=UTC)
ENTRIES = ("kettle", "lamp", "chair", "scarf", "drum", "kite")
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "purple", "orange")
ASKING = ("where is the {}", "i want a {}", "{} please", "do you have a {}")


def items() -> list[dict[str, Any]]:
    """48 items, each with a colour and a thing in its title."""
    return [
        {"item_id": f"{colour}-{entry}", "title": f"{colour} {entry}", "category": [entry]}
        for entry in ENTRIES
        for colour in COLOURS
    ]


def queries() -> list[dict[str, Any]]:
    """Four wordings of a wish for each item."""
    return [
        {"query_id": f"{item['item_id']}:{n}", "text": wording.format(item["title"])}
        for item in items()
        for n, wording in enumerate(ASKING)
    ]


def events(**more: Any) -> list[dict[str, Any]]:
    """Each query and the item that it wishes for."""
    return [
        {
            "event_id": f"{n:012d}",
            "event_timestamp": INSTANT,
            "known_at": INSTANT,
            "query_id": query["query_id"],
            "item_id": query["query_id"].partition(":")[0],
            **more,
        }
        for n, query in enumerate(queries())
    ]


def write_asked(
    folder: Path,
    *,
    asked: list[dict[str, Any]] | None = None,
    answered: list[dict[str, Any]] | None = None,
    columns: tuple[pa.Field, ...] = (),
) -> Path:
    """The clean artifact of these queries and events, as validate leaves it; ``columns`` are events' own."""
    folder.mkdir(parents=True)
    tables = {
        "items": pa.Table.from_pylist(items(), schema=contracts.ITEMS),
        "users": contracts.USERS.empty_table(),
        "queries": pa.Table.from_pylist(queries() if asked is None else asked, schema=contracts.QUERIES),
        "events": pa.Table.from_pylist(
            events() if answered is None else answered, schema=pa.schema([*contracts.EVENTS, *columns])
        ),
    }
    for name, table in tables.items():
        parquet.write_table(table, folder / f"{name}.parquet")
    reported = {"data_digest": digest.tree_digest(folder), "event_time": {"first": None, "last": None}}
    (folder / "summary.json").write_text(json.dumps(reported))
    return folder
