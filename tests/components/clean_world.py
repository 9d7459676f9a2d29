"""A small clean folder for tests of featurize: random users who come on random days and return to tastes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from rankline import contracts
from rankline.io import digest

BEGIN = datetime(2024, 3, 1, tzinfo=UTC).timestamp()
DAY = 86_400.0
CATEGORIES = ("action", "comedy", "drama", "war")


@dataclass(frozen=True)
class Event:
    """One event; times in unix seconds."""

    user: str | None
    item: str
    at: float
    rating: float = 0.0
    known: float | None = None


def random_events(*, users: int = 24, items: int = 30, days: int = 60, seed: int = 3) -> list[Event]:
    """Events in time order, some sharing their time, a tenth of them known days later."""
    random = np.random.default_rng(seed)
    events = []
    for u in range(users):
        chosen = random.permutation(items)[: random.integers(4, 16)]
        visits = np.sort(random.uniform(0, days, 4))
        for n, item in enumerate(chosen):
            # several events of a visit share their second; an event on midnight is the next day's
            at = BEGIN + DAY * (np.floor(visits[n % 4]) if n == 5 else visits[n % 4]) + 60 * (n // 8)
            known = float(np.floor(at + DAY * random.uniform(0, 20))) if random.random() < 0.1 else None
            events.append(Event(f"u{u}", f"i{item}", float(np.floor(at)), float(random.integers(1, 6)), known))
    return sorted(events, key=lambda event: event.at)


def write_clean(folder: Path, events: Sequence[Event], *, items: int = 30) -> Path:
    """The clean artifact of these events, as validate leaves it."""
    folder.mkdir(parents=True)
    micro = lambda times: pa.array([round(t * 1e6) for t in times]).cast(contracts.UTC_TIMESTAMP)  # noqa: E731
    table = pa.table(
        {
            "event_id": [str(n) for n in range(len(events))],
            "event_timestamp": micro([e.at for e in events]),
            "known_at": micro([e.at if e.known is None else e.known for e in events]),
            "user_id": pa.array([e.user for e in events], pa.string()),
            "query_id": pa.nulls(len(events), pa.string()),
            "item_id": pa.array([e.item for e in events], pa.string()),
            "rating": pa.array([e.rating for e in events], pa.float64()),
        }
    )
    parquet.write_table(table, folder / "events.parquet")
    rows = [
        {
            "item_id": f"i{i}",
            "title": f"Title {i}",
            "text": "word " * (i + 1),
            "language": "en",
            "category": sorted({CATEGORIES[i % 4], CATEGORIES[(i // 4) % 4]}) if i else [],
            "price": None if i % 3 == 0 else float(i),
            "available": True,
            "created_at": None,
        }
        for i in range(items)
    ]
    parquet.write_table(pa.Table.from_pylist(rows, schema=contracts.ITEMS), folder / "items.parquet")
    last = datetime.fromtimestamp(max(e.at for e in events), UTC).isoformat() if events else None
    reported = {
        "data_digest": digest.file_digests(folder)["events.parquet"],
        "event_time": {"first": None, "last": last},
    }
    (folder / "summary.json").write_text(json.dumps(reported))
    return folder
