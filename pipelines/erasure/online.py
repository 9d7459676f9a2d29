"""Erasing users from the stores of Feast: online stores of every kind, their sources, and tables in Postgres."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from components.promote.store_lock import store_lock
from feature_repo import backends, removal
from feature_repo.definitions import VIEWS
from feature_repo.store import SETTINGS, SOURCES, open_store
from pipelines.erasure import rewriting, search
from pipelines.erasure.ids import UserIds
from rankline.io.files import write_bytes
from rankline.io.storage import FeatureStoreConfig
from rankline.runtime.bucket_workspace import BucketWorkspace

LOCK_TIMEOUT_S = 600.0
_USER_VIEWS = tuple(view for view in VIEWS if view.startswith("user_"))


def erase_online(folder: Path, ids: UserIds, *, bucket: BucketWorkspace | None, dry_run: bool) -> int:
    """Erase users from an online store and its sources; how many users had rows in the store.

    Raises:
        RegistryError: another process holds the store's lock for too long.
        StorageError: Redis or Postgres does not answer.
    """
    with store_lock(folder, timeout_s=LOCK_TIMEOUT_S, who="rankline users erase", bucket=bucket) as publish:
        if not (folder / SETTINGS).is_file():
            return 0
        with backends.translate_errors(FeatureStoreConfig()):
            store = open_store(folder)
            users = removal.erase_users(store, folder, ids.forms, dry_run=dry_run)
        for source in sorted((folder / SOURCES).glob("*.parquet")) if not dry_run else ():
            content = source.read_bytes()
            if search.holds(source.name, content, ids):
                write_bytes(source, rewriting.without_rows(content, ids) or b"")
        publish()
    return users


def remaining_online(folder: Path, ids: UserIds) -> int:
    """How many of the users still have rows in an online store."""
    if not (folder / SETTINGS).is_file():
        return 0
    return removal.erase_users(open_store(folder), folder, ids.forms, dry_run=True)


def erase_from_tables(stores: FeatureStoreConfig, ids: UserIds, *, dry_run: bool) -> int:
    """Erase users from the tables of an offline store in Postgres; how many rows they have there.

    Raises:
        StorageError: Postgres does not answer, or refuses.
    """
    from psycopg import sql

    pattern = f"^rankline_[0-9a-f]+_({'|'.join(_USER_VIEWS)})$"
    rows = 0
    with backends.translate_errors(stores), backends.connect(stores) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE tablename ~ %s", [pattern]).fetchall()
        for (name,) in names:
            statement = (
                "SELECT 1 FROM {} WHERE user_id = ANY(%s)" if dry_run else "DELETE FROM {} WHERE user_id = ANY(%s)"
            )
            rows += connection.execute(sql.SQL(statement).format(sql.Identifier(name)), [sorted(ids.forms)]).rowcount
    return rows


def online_folders(workspace: Path) -> Collection[Path]:
    """The online stores of a workspace."""
    return [path.parent for path in sorted((workspace / "online").glob(f"*/{SETTINGS}"))]


def postgres_stores(storages: Collection[Any]) -> list[FeatureStoreConfig]:
    """The feature stores whose offline store is in Postgres, each address once."""
    stores = {each.features.postgres: each.features for each in storages if each.features.offline == "postgres"}
    return list(stores.values())
