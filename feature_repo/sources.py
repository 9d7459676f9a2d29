"""Where features come from: Parquet files with the moment a row holds from, and the moment it was known."""

from datetime import timedelta
from pathlib import Path

from feast import FileSource, PushSource

# A row older than this is as good as none; it also bounds what a point-in-time join has to look through.
TTL = timedelta(days=365)

# The name under which fresh events enter the online store.
PUSH = "user_events_push"


def parquet(sources: Path, name: str) -> FileSource:
    """The file that featurize wrote for a feature view of this name."""
    return FileSource(
        name=f"{name}_rows",
        path=str(sources / f"{name}.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="known_at",
    )


def user_events_push(sources: Path) -> PushSource:
    """A user's history, pushed whole the moment an event arrives, in place of the last row of the file."""
    return PushSource(name=PUSH, batch_source=parquet(sources, "user_history"))
