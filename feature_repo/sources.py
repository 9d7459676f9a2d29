"""Data sources of the feature views: Parquet files or Postgres tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import FileSource, PushSource

# Older rows are ignored, which also bounds what a point-in-time join reads.
TTL = timedelta(days=365)

# Pushes fresh events to the online store.
PUSH_SOURCE = "user_events_push"


@dataclass(frozen=True)
class Tables:
    """Postgres tables with the content of a project's Parquet files."""

    project: str

    def table_name(self, view: str) -> str:
        return f"{self.project}_{view}"


def batch_source(sources: Path | Tables, name: str) -> Any:
    """The source of a feature view, as featurize wrote it."""
    times: dict[str, Any] = {"timestamp_field": "event_timestamp", "created_timestamp_column": "known_at"}
    if isinstance(sources, Tables):
        from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

        return PostgreSQLSource(name=f"{name}_rows", table=sources.table_name(name), **times)
    return FileSource(name=f"{name}_rows", path=str(sources / f"{name}.parquet"), **times)


def user_events_push(sources: Path | Tables) -> PushSource:
    """A user's complete history, pushed with each event to replace the row from the file."""
    return PushSource(name=PUSH_SOURCE, batch_source=batch_source(sources, "user_history"))
