"""A tiny catalogue with users, queries and events: what ingest writes, made by hand."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankline.contracts import EVENTS, ITEMS, QUERIES, REJECTED, USERS
from rankline.io import digest

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ITEM_COUNT, USER_COUNT, EVENT_COUNT = 12, 6, 60

Rows = dict[str, list[dict[str, Any]]]
SCHEMAS = {
    "items": pa.schema([*ITEMS, pa.field("release_year", pa.int32())]),
    "users": USERS,
    "queries": QUERIES,
    "events": pa.schema([*EVENTS, pa.field("click", pa.float64()), pa.field("rating", pa.float64())]),
}


def rows() -> Rows:
    """Good rows of every table; a test changes what it wants to be bad."""
    return {
        "items": [
            {
                "item_id": f"i{n}",
                "title": f"Title {n} (2001)",
                "category": ["Drama"] if n % 2 else ["Comedy", "Drama"],
                "price": float(n),
                "available": True,
                "created_at": datetime(2001, 1, 1, tzinfo=UTC),
                "release_year": 2001,
            }
            for n in range(ITEM_COUNT)
        ],
        "users": [{"user_id": f"u{n}"} for n in range(USER_COUNT)],
        "queries": [{"query_id": f"q{n}", "text": f"a film like {n}"} for n in range(3)],
        "events": [
            {
                "event_id": f"{n:012d}",
                "event_timestamp": START + n * HOUR,
                "known_at": START + n * HOUR,
                "user_id": f"u{n % USER_COUNT}",
                "query_id": f"q{n % 3}" if n % 4 == 0 else None,
                "item_id": f"i{n % ITEM_COUNT}",
                "click": float(n % 2),
                "rating": float(1 + n % 5),
            }
            for n in range(EVENT_COUNT)
        ],
    }


def write(raw: Path, rows: Rows, *, types: dict[str, pa.Schema] | None = None) -> Path:
    """Lay tables down as ingest does, with a summary of them; ``types`` replaces the schema of a table."""
    raw.mkdir(parents=True)
    for table, values in rows.items():
        schema = (types or {}).get(table, SCHEMAS[table])
        # bad data is the point: nothing is refused here
        schema = pa.schema([field.with_nullable(True) for field in schema])
        pq.write_table(pa.Table.from_pylist(values, schema=schema), raw / f"{table}.parquet")
    pq.write_table(REJECTED.empty_table(), raw / "rejected.parquet")
    times = [row["event_timestamp"] for row in rows["events"] if row["event_timestamp"] is not None]
    summary = {
        "rows": {table: len(values) for table, values in rows.items()},
        "labels": ["click", "rating"],
        "window": {"start": None, "end": (START + EVENT_COUNT * HOUR).isoformat()},
        "event_time": {"first": min(times).isoformat(), "last": max(times).isoformat()},
        "data_digest": digest.tree_digest(raw),
    }
    (raw / "summary.json").write_text(json.dumps(summary))
    return raw
