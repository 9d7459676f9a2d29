"""The champion's features in Feast's online store: one folder for each feature-service version.

online/ranking_v1/watermark.json          up to what it knows everything, and who saw to that: promotion or a
                                          materialization, which run, when
online/.ranking_v1.lock, .holder.json     whoever writes it has the lock, and says who they are
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankline.errors import RegistryError, StorageError, UsageError
from rankline.io.storage import FeatureStoreConfig
from rankline.runtime import ledger

PROJECT = "rankline"
# the first view's rows bear the very moments at which something became known, the others' whole days; without users
# the first one is empty
_LAST_KNOWN_VIEWS = ("user_history", "item_popularity", "item_content")


@contextmanager
def store_lock(folder: Path, *, timeout_s: float, who: str = "somebody", run: str = "") -> Iterator[None]:
    """No other process of this machine writes the store in ``folder`` meanwhile; whoever comes second waits.

    ``who`` and ``run`` are what the others are told of whom they wait for.

    Raises:
        RepositoryError: the other one takes longer than that.
    """
    from filelock import FileLock, Timeout

    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=timeout_s)
    holder = folder.with_name(f".{folder.name}.holder.json")
    try:
        lock.acquire()
    except Timeout as error:
        raise RegistryError(
            "somebody else is writing the online store",
            expected=f"them to be done within {timeout_s:g} s",
            found=_describe_holder(_read_json(holder)),
            where=str(folder),
            hint="run again when they are done; nothing has changed",
        ) from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        ledger.write_json(
            holder, {"who": who, "run": run, "pid": os.getpid(), "host": socket.gethostname(), "since": since}
        )
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def lock_holder(folder: Path) -> str:
    """Who writes the store in ``folder`` at this moment; empty where nobody does."""
    from filelock import FileLock, Timeout

    folder = folder.resolve()
    path = folder.with_name(f".{folder.name}.lock")
    if not path.is_file():
        return ""
    try:
        with FileLock(path, timeout=0):
            return ""
    except (Timeout, OSError) as error:  # a workspace that may only be read has no writers that could be asked for
        return (
            _describe_holder(_read_json(folder.with_name(f".{folder.name}.holder.json")))
            if isinstance(error, Timeout)
            else ""
        )


def _describe_holder(holder: dict[str, Any] | None) -> str:
    """Who has the lock, in words."""
    if not holder:
        return "somebody who does not say who they are"
    run = f", run {holder['run']}" if holder.get("run") else ""
    return f"{holder.get('who')}{run}: process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"


def materialize_online(
    features: Path,
    folder: Path,
    *,
    stores: FeatureStoreConfig | None = None,
    owner: dict[str, Any] | None = None,
    champion_reads: bool = False,
) -> dict[str, Any]:
    """Materialize a run's feature sources into ``folder``; the watermark, and whether it moved.

    Done `alone`. A store that already knows more is left as it is, so an older
    model promoted later does not take features back. Killed half-way, the next try does it again. ``owner`` is
    written beside the watermark. ``read`` says that the champion reads this store: then nothing of what its
    definitions are may change.

    Raises:
        UsageError: it is read, and the definitions of this code are others under the same name.
        RepositoryError: it could not be done; who serves has not changed.
        StorageError: Postgres or Redis is away, or the registry locked; who serves has not changed.
    """
    from feature_repo.backends import translate_errors
    from feature_repo.changes import definition_changes
    from feature_repo.materialize import materialize
    from feature_repo.store import SOURCES, apply, open_store
    from rankline.features.watermark import FILE as WATERMARK
    from rankline.features.watermark import read_shared

    # joins are featurize's: what goes online comes out of the run's own files
    stores = (stores or FeatureStoreConfig()).model_copy(update={"offline": "duckdb"})
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sources = features / "feast" / SOURCES
    try:
        with translate_errors(stores):
            changed = definition_changes(folder) if champion_reads else []
        if changed:
            raise UsageError(
                f"these are other feature definitions than the champion reads under the name {folder.name}",
                expected="the same views, features and types",
                found="; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
                where=str(folder),
                hint="give them a version of their own (rankline/features/transforms.py, SERVICE): its store lies beside this one",
            )
        until = _last_known(sources)
        watermark = _read_json(folder / WATERMARK)
        if watermark and _parse_time(watermark.get("until")) > until:
            return {**watermark, "moved": False}
        (folder / SOURCES).mkdir(exist_ok=True)
        for source in sorted(sources.glob("*.parquet")):
            partial = folder / SOURCES / f".{source.name}"
            shutil.copyfile(source, partial)
            os.replace(partial, folder / SOURCES / source.name)
        apply(folder, project=_project(folder.name, stores), sources=folder / SOURCES, stores=stores)
        with translate_errors(stores):
            shared_watermark = read_shared(open_store(folder))  # another machine may have been here
            if shared_watermark and datetime.fromisoformat(shared_watermark["until"]) > until:
                ledger.write_json(folder / WATERMARK, shared_watermark)
                return {**shared_watermark, "moved": False}
            return {**materialize(folder, until=until, owner=owner), "moved": True}
    except (StorageError, UsageError):
        raise
    except Exception as error:  # Feast, DuckDB and SQLite each have their own
        raise RegistryError(
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

    for view in _LAST_KNOWN_VIEWS:
        newest = compute.max(parquet.read_table(sources / f"{view}.parquet", columns=["known_at"])["known_at"]).as_py()
        if newest is not None:
            return newest.astimezone(UTC)
    return datetime.fromtimestamp(0, UTC)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _parse_time(value: Any) -> datetime:
    """When a watermark says; the beginning of time where that cannot be read, so that it is written anew."""
    try:
        time = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return datetime.fromtimestamp(0, UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
