"""A tiny shop's tables as a source holds them, written in any format: the same rows, so the same tables come out."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]

EVENTS: Rows = [
    {
        "customer": f"u{n % 3}",
        "sku": f"i{n % 4}",
        "at": 1_700_000_000_000 + n * 61_001,
        "kind": ("view", "buy", "shown")[n % 3],
        "device": 'a "phone", or\nso' if n == 3 else None if n == 4 else "phone",
    }
    for n in range(12)
]
ITEMS: Rows = [
    {
        "sku": f"i{n}",
        "name": f"Thing {n}",
        "words": None if n == 2 else f"a thing of kind {n}",
        "tags": ["toys", "wood and steel", "sale"][:n],
        "cost": 1.5 * n,
        "stock": n != 1,
        "lang": "en",
        "since": f"2023-0{n + 1}-05T10:00:00+02:00",
        "weight": 10 * n,
        "image": [0.5 * n, 1.0, -2.0],
    }
    for n in range(4)
]
USERS: Rows = [{"customer": f"u{n}", "city": "Ghent", "age": 30 + n} for n in (0, 1, 7)]
COLUMNS: dict[str, Any] = {
    "user_id": "customer",
    "item_id": "sku",
    "timestamp": "at",
    "timestamp_unit": "ms",
    "labels": {},
    "event_type": "kind",
    "event_types": {"view": "click", "buy": "purchase", "shown": "impression"},
    "title": "name",
    "text": ("words",),
    "category": "tags",
    "price": "cost",
    "available": "stock",
    "language": "lang",
    "created_year": "",
    "created_at": "since",
    "item_numbers": ("weight",),
    "item_vectors": ("image",),
    "user_attributes": ("city",),
    "user_numbers": ("age",),
    "event_attributes": ("device",),
}


def write(path: Path, rows: Rows) -> Path:
    """Rows as a file of the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.name.split(".")[1]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    data = as_csv(rows).encode() if kind == "csv" else "".join(json.dumps(row) + "\n" for row in rows).encode()
    codec = {"gz": "gzip", "zst": "zstd"}.get(path.suffix[1:])
    if codec:
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), codec) as stream:
            stream.write(data)
    else:
        path.write_bytes(data)
    return path


def as_csv(rows: Rows, *, delimiter: str = ",") -> str:
    """Rows as CSV; lists as JSON, true and false as such."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, list | bool) else v for k, v in row.items()})
    return out.getvalue()
