"""The champion's features in Feast's online store: one folder for each feature-service version."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankline.errors import RepositoryError

PROJECT = "rankline"
# the view whose rows bear the very moments at which something became known; the others hold whole days
_LAST_KNOWN = "user_history"


def bring_online(features: Path, folder: Path, *, lock_timeout_s: float) -> dict[str, Any]:
    """Materialize a run's feature sources into ``folder``; the watermark, and whether it moved.

    Whoever promotes at the same time waits. A store that already knows more is left as it is, so an older
    model promoted later does not take features back. Killed half-way, the next try does it again.

    Raises:
        RepositoryError: it could not be done; who serves has not changed.
    """
    from filelock import FileLock, Timeout

    from feature_repo.store import SOURCES, WATERMARK, apply, materialize

    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sources = features / "feast" / SOURCES
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=lock_timeout_s):
            until = _last_known(sources / f"{_LAST_KNOWN}.parquet")
            watermark = _watermark(folder / WATERMARK)
            if watermark and datetime.fromisoformat(watermark["until"]) > until:
                return {**watermark, "moved": False}
            (folder / SOURCES).mkdir(exist_ok=True)
            for source in sorted(sources.glob("*.parquet")):
                partial = folder / SOURCES / f".{source.name}"
                shutil.copyfile(source, partial)
                os.replace(partial, folder / SOURCES / source.name)
            apply(folder, project=PROJECT, sources=folder / SOURCES)
            return {**materialize(folder, until=until), "moved": True}
    except Timeout as error:
        raise RepositoryError(
            "another promotion is writing the online store",
            expected=f"it to be done within {lock_timeout_s:g} s",
            found="it still has the lock",
            where=str(folder),
            hint="run again when it is done; the champion has not changed",
        ) from error
    except Exception as error:  # Feast, DuckDB and SQLite each have their own
        raise RepositoryError(
            "the features of this model could not be brought online",
            expected="every feature view materialized",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            where=str(folder),
            hint="run again; the champion has not changed",
        ) from error


def _last_known(history: Path) -> datetime:
    """The end of the data: when its newest event became known."""
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    newest: datetime = compute.max(parquet.read_table(history, columns=["known_at"])["known_at"]).as_py()
    return newest.astimezone(UTC)


def _watermark(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value
