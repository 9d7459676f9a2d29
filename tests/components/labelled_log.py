"""Small event logs with labels, written as CSV and read by ingest."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.ingest.config import IngestConfig
from components.ingest.step import ingest
from rankline.io.sources import Tables

ABSENT = {"title": "", "category": "", "created_year": "", "user_attributes": ()}


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as a CSV file; a value of None is an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def ingest_log(
    folder: Path, rows: Sequence[dict[str, Any]], columns: dict[str, Any], labels: dict[str, Any] | None = None
) -> Path:
    """`raw` of a log whose items are those that it names."""
    write_csv(folder / "source/log.csv", rows)
    config = IngestConfig(
        source=str(folder / "source"),
        format="tables",
        tables=Tables(events="log.csv"),
        items_from_events=True,
        columns={**ABSENT, "user_id": "user", "item_id": "item", "timestamp": "at", **columns},
        labels=labels or {},
    )
    ingest(folder / "raw", config=config)
    return folder / "raw"


def events(raw: Path) -> list[dict[str, Any]]:
    """The events, in their order."""
    return list(pq.read_table(raw / "events.parquet").to_pylist())


def summary(raw: Path) -> dict[str, Any]:
    """What ingest reports of them."""
    return dict(json.loads((raw / "summary.json").read_text()))
