"""Where features come from: files or tables, with the moment a row holds from, and the moment it was known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import FileSource, PushSource

# A row older than this is as good as none; it also bounds what a point-in-time join has to look through.
TTL = timedelta(days=365)

# The name under which fresh events enter the online store.
PUSH_SOURCE = "user_events_push"


@dataclass(frozen=True)
class Tables:
    """Postgres tables that hold what the Parquet files of a project do."""

    project: str

    def table_name(self, view: str) -> str:
        """The table of a feature view."""
        return f"{self.project}_{view}"


def batch_source(sources: Path | Tables, name: str) -> Any:
    """What featurize wrote for a feature view of this name."""
    times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "known_at"}
    if isinstance(sources, Tables):
        from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

        return PostgreSQLSource(name=f"{name}_rows", table=sources.table_name(name), **times)
    return FileSource(name=f"{name}_rows", path=str(sources / f"{name}.parquet"), **times)


def user_events_push(sources: Path | Tables) -> PushSource:
    """A user's history, pushed whole the moment an event arrives, in place of the last row of the file."""
    return PushSource(name=PUSH_SOURCE, batch_source=batch_source(sources, "user_history"))
