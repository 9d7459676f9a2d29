"""The features artifact of a small world, written directly: users who go through a shelf in its order.

Whoever has seen two things of a shelf can tell the third, so that a tower learns it within a few epochs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from rankline.contracts import ITEMS
from rankline.features import transforms

CATEGORY_NAMES = ("books", "garden", "music", "toys")
COLOURS = ("red", "blue", "green", "small", "large", "soft", "fine", "old", "new", "round")
BEGAN = datetime(2024, 1, 1, tzinfo=UTC)


def names(categories_of_items: Sequence[str] = CATEGORY_NAMES) -> list[str]:
    """The ids of the items, category by category."""
    return [f"{category}-{colour}" for category in categories_of_items for colour in COLOURS]


def write_features(
    folder: Path,
    *,
    days: int = 0,
    users: int = 60,
    categories_of_items: Sequence[str] = CATEGORY_NAMES,
    without: Sequence[str] = (),
    seed: int = 0,
    **reported: Any,
) -> Path:
    """Features of a window that ends ``days`` later than the first one's; ``reported`` changes their summary."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, days])
    ids = [name for name in names(categories_of_items) if name not in without]
    items = [{"item_id": name, "title": name.replace("-", " "), "category": [name.split("-")[0]]} for name in ids]
    parquet.write_table(pa.Table.from_pylist(items, schema=ITEMS), folder / "items.parquet")

    by_category = {category: [name for name in ids if name.startswith(category)] for category in categories_of_items}
    end = BEGAN + timedelta(days=days)
    sequences, requests = [], []
    for user in range(users):
        category = by_category[categories_of_items[user % len(categories_of_items)]]
        start = int(rng.integers(len(category)))
        walk = [category[(start + step) % len(category)] for step in range(8)]
        times = [end.timestamp() - 3600.0 * (8 - step) - user for step in range(8)]
        sequences.append({"user_id": f"u{user}", "item_ids": walk[:6], "times": times[:6], "ratings": [5.0] * 6})
        for split, step in (("train", 4), ("train", 5), ("valid", 6), ("test", 7)):
            requests.append(_request(f"{split}:u{user}:{step}", split, user, walk, times, step))
    parquet.write_table(pa.Table.from_pylist(sequences), folder / "sequences.parquet")
    worded = {"query": pa.string(), "query_id": pa.string()}
    schema = pa.Table.from_pylist(requests).schema
    fields = [pa.field(field.name, worded.get(field.name, field.type)) for field in schema]
    parquet.write_table(pa.Table.from_pylist(requests, schema=pa.schema(fields)), folder / "requests.parquet")
    sampled = [{"request_id": each["request_id"], "item_ids": ids[:3]} for each in requests]
    parquet.write_table(pa.Table.from_pylist(sampled), folder / "negatives.parquet")
    daily = [
        {"snapshot": 0.0, "item_id": name, **dict.fromkeys(transforms.ITEM, float(n))} for n, name in enumerate(ids)
    ]
    parquet.write_table(pa.Table.from_pylist(daily), folder / "item_features.parquet")
    summary = {
        "data_digest": f"{seed} {days} {users} {','.join(ids)}",
        "train_end": (end - timedelta(hours=2)).isoformat(),
        "data_end": end.isoformat(),
        "split": {"split": "leave_last_out", "seed": 7},
        "service": transforms.SERVICE,
        "turns": 3,
        **reported,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _request(name: str, split: str, user: int, walk: list[str], times: list[float], step: int) -> dict[str, Any]:
    return {
        "request_id": name, "split": split, "user_id": f"u{user}", "query_id": None, "query": None, "at": times[step],
        "history_items": walk[:step], "history_times": times[:step], "history_ratings": [5.0] * step,
        "seen": walk[:step], "targets": [walk[step]], "target_ratings": [5.0], "snapshot": 0.0,
        **dict.fromkeys(transforms.USER, float(step)), **dict.fromkeys(transforms.CONTEXT, 0.5 + step),
        "affinity_categories": [walk[0].split("-")[0]], "affinity_shares": [1.0],
    }  # fmt: skip
