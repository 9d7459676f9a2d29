"""A Feast store with a handful of rows, as promotion writes it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from rankline.contracts import UTC_TIMESTAMP as STAMP
from rankline.features import transforms
from rankline.features.profile import DECLARED, PROFILE, ProfileFields

DAY = datetime(2026, 1, 10, tzinfo=UTC)
NOON = DAY.timestamp() - 43_200
# the history of user u1; the last event is after NOON
HISTORY = {
    "history_items": ["i1", "i2", "i3"],
    "history_times": [NOON - 7200, NOON - 3600, NOON + 60],
    "history_ratings": [5.0, 0.0, 4.0],
    "seen_items": ["i0", "i1", "i2", "i3"],
}


@contextmanager
def feature_server(store: Path) -> Iterator[str]:
    """Feast's own feature server over a store, on a real port; its URL."""
    import feast
    import uvicorn
    from feast.feature_server import get_app

    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = get_app(feast.FeatureStore(repo_path=str(store)))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def make_store(
    folder: Path,
    *,
    popular: dict[str, float],
    until: datetime = DAY,
    fields: ProfileFields | None = None,
    profile: dict[str, Any] | None = None,
) -> Path:
    """Write a store with user u1 and the last week's events of some items; return ``folder``.

    With declared ``fields`` it has the ``profile`` of u1.
    """
    from feature_repo import materialize, store

    sources = folder / store.SOURCES
    sources.mkdir(parents=True, exist_ok=True)
    users: list[dict[str, Any]] = [{"user_id": "u1"}]
    items: list[dict[str, Any]] = [{"item_id": item} for item in popular]
    activity = dict.fromkeys(transforms.USER, 3.0)
    counts = dict.fromkeys((name for name in transforms.ITEM if name.startswith("item_events")), 0.0)
    rates = {"item_rating_mean": 4.0, "item_trend": 0.5}
    content = {"item_price": 0.0, "item_text_length": 20.0, "item_category_count": 1.0}
    rows = {
        "user_activity": [{**user, **activity} for user in users],
        "user_category_affinity": [
            {**user, "affinity_categories": ["Comedy", "Drama"], "affinity_shares": [0.75, 0.25]} for user in users
        ],
        "user_history": [{**user, **HISTORY} for user in users],
        "item_popularity": [{**item, **counts, **rates, "item_events_7d": popular[item["item_id"]]} for item in items],
        "item_content": [{**item, **content} for item in items],
    }
    if fields is not None:
        (sources / DECLARED).write_text(fields.model_dump_json())
        rows["user_profile"] = [{**user, **{f"{PROFILE}{k}": v for k, v in (profile or {}).items()}} for user in users]
    for view, view_rows in rows.items():
        table = pa.Table.from_pylist(view_rows)
        for name in ("event_timestamp", "known_at"):
            table = table.append_column(name, pa.array([until] * len(view_rows), STAMP))
        parquet.write_table(table, sources / f"{view}.parquet")
    store.apply(folder, project="tiny", sources=sources)
    materialize.materialize(folder, until=until)
    return folder
