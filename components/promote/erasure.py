"""Erasing users from the stores of Feast: online stores of every kind, their sources, and tables in Postgres."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from components.promote.store_lock import store_lock
from rankline.io.files import replacing
from rankline.io.storage import FeatureStoreConfig
from rankline.runtime.bucket_workspace import BucketWorkspace

LOCK_TIMEOUT_S = 600.0


def erase_online(folder: Path, ids: Collection[str], *, bucket: BucketWorkspace | None, dry_run: bool) -> set[str]:
    """Erase users from an online store and its sources; the users who had rows in the store.

    Raises:
        RegistryError: another process holds the store's lock for too long.
        StorageError: Redis or Postgres does not answer.
    """
    from feature_repo.store import SOURCES

    with store_lock(folder, timeout_s=LOCK_TIMEOUT_S, who="rankline users erase", bucket=bucket) as publish:
        users = _erase_from_store(folder, ids, dry_run=dry_run)
        if not dry_run:
            for source in sorted((folder / SOURCES).glob("*.parquet")):
                _erase_from_source(source, ids)
            publish()
    return users


def remaining_online(folder: Path, ids: Collection[str]) -> int:
    """How many of the users still have rows in an online store."""
    return len(_erase_from_store(folder, ids, dry_run=True))


def online_folders(workspace: Path) -> Sequence[Path]:
    """The online stores of a workspace."""
    return [path.parent for path in sorted((workspace / "online").glob("*/feature_store.yaml"))]


def store_files(folder: Path) -> list[Path]:
    """The files of an online store that have rows of users: its SQLite file and its sources."""
    from feature_repo.store import SOURCES

    return [*folder.glob("online.db"), *sorted((folder / SOURCES).glob("*.parquet"))]


def entity_keys(ids: Collection[str]) -> set[bytes]:
    """Users as online stores name them."""
    from feature_repo.removal import entity_key

    return {entity_key("user_id", each) for each in ids}


def erase_from_tables(stores: FeatureStoreConfig, ids: Collection[str], *, dry_run: bool) -> list[str]:
    """Erase users from the tables of an offline store in Postgres; the user of each row that was there.

    Raises:
        StorageError: Postgres does not answer, or refuses.
    """
    from psycopg import sql

    from feature_repo import backends
    from feature_repo.definitions import VIEWS
    from feature_repo.profile import USER_PROFILE

    views = "|".join(view for view in (*VIEWS, USER_PROFILE) if view.startswith("user_"))
    statement = sql.SQL(
        "SELECT user_id FROM {} WHERE user_id = ANY(%s)"
        if dry_run
        else "DELETE FROM {} WHERE user_id = ANY(%s) RETURNING user_id"
    )
    users: list[str] = []
    with backends.translate_errors(stores), backends.connect(stores) as connection:
        query = "SELECT tablename FROM pg_tables WHERE tablename ~ %s"
        for (name,) in connection.execute(query, [f"^rankline_[0-9a-f]+_({views})$"]).fetchall():
            rows = connection.execute(statement.format(sql.Identifier(name)), [sorted(ids)]).fetchall()
            users += [user for (user,) in rows]
    return users


def _erase_from_store(folder: Path, ids: Collection[str], *, dry_run: bool) -> set[str]:
    from feature_repo import backends, removal
    from feature_repo.store import SETTINGS, open_store

    if not (folder / SETTINGS).is_file():
        return set()
    with backends.translate_errors(FeatureStoreConfig()):
        return removal.erase_users(open_store(folder), folder, ids, dry_run=dry_run)


def _erase_from_source(source: Path, ids: Collection[str]) -> None:
    import pyarrow as pa
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    table = parquet.read_table(source)
    if "user_id" not in table.column_names:
        return
    is_user = compute.is_in(table["user_id"], pa.array(sorted(ids)))
    if compute.any(is_user).as_py():
        with replacing(source) as partial:
            parquet.write_table(table.filter(compute.invert(is_user)), partial, compression="zstd")
