"""The champion's features in Feast's online store: one folder for each feature-service version."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankline.errors import RepositoryError, StorageError
from rankline.storage import FeatureStoreConfig

PROJECT = "rankline"
# the first view's rows bear the very moments at which something became known, the others' whole days; without users
# the first one is empty
_LAST_KNOWN = ("user_history", "item_popularity", "item_content")


@contextmanager
def alone(folder: Path, *, timeout_s: float) -> Iterator[None]:
    """No other process of this machine promotes into ``folder`` meanwhile; whoever comes second waits.

    Raises:
        RepositoryError: the other one takes longer than that.
    """
    from filelock import FileLock, Timeout

    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=timeout_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise RepositoryError(
            "another promotion is writing the online store",
            expected=f"it to be done within {timeout_s:g} s",
            found="it still has the lock",
            where=str(folder),
            hint="run again when it is done; the champion has not changed",
        ) from error
    try:
        yield
    finally:
        lock.release()


def bring_online(features: Path, folder: Path, *, stores: FeatureStoreConfig | None = None) -> dict[str, Any]:
    """Materialize a run's feature sources into ``folder``; the watermark, and whether it moved.

    Done `alone`. A store that already knows more is left as it is, so an older
    model promoted later does not take features back. Killed half-way, the next try does it again.

    Raises:
        RepositoryError: it could not be done; who serves has not changed.
        StorageError: Postgres or Redis is away, or the registry locked; who serves has not changed.
    """
    from feature_repo.backends import told
    from feature_repo.store import SOURCES, WATERMARK, apply, materialize

    # joins are featurize's: what goes online comes out of the run's own files
    stores = (stores or FeatureStoreConfig()).model_copy(update={"offline": "duckdb"})
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sources = features / "feast" / SOURCES
    try:
        until = _last_known(sources)
        watermark = _watermark(folder / WATERMARK)
        if watermark and datetime.fromisoformat(watermark["until"]) > until:
            return {**watermark, "moved": False}
        (folder / SOURCES).mkdir(exist_ok=True)
        for source in sorted(sources.glob("*.parquet")):
            partial = folder / SOURCES / f".{source.name}"
            shutil.copyfile(source, partial)
            os.replace(partial, folder / SOURCES / source.name)
        apply(folder, project=_project(folder.name, stores), sources=folder / SOURCES, stores=stores)
        with told(stores):
            return {**materialize(folder, until=until), "moved": True}
    except StorageError:
        raise
    except Exception as error:  # Feast, DuckDB and SQLite each have their own
        raise RepositoryError(
            "the features of this model could not be brought online",
            expected="every feature view materialized",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            where=str(folder),
            hint="run again; the champion has not changed",
        ) from error


def _project(service: str, stores: FeatureStoreConfig) -> str:
    """A file is one service's alone; in a store that is shared, the name keeps services and catalogues apart."""
    shared = stores.online == "redis" or stores.registry == "postgres"
    return f"{stores.project}_{service}" if shared else PROJECT


def _last_known(sources: Path) -> datetime:
    """The end of the data: when its newest event became known; the beginning of time where there is none."""
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    for view in _LAST_KNOWN:
        newest = compute.max(parquet.read_table(sources / f"{view}.parquet", columns=["known_at"])["known_at"]).as_py()
        if newest is not None:
            return newest.astimezone(UTC)
    return datetime.fromtimestamp(0, UTC)


def _watermark(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value
