"""The champion's features in Feast's online store: one folder for each feature-service version.

online/ranking_v1/watermark.json          the time up to which the store is complete, and what wrote it last:
                                          a promotion or a materialization, in which run, and when
"""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankline.errors import RegistryError, StorageError, UsageError
from rankline.io.files import first_line, read_json_object, replacing, write_json
from rankline.io.storage import FeatureStoreConfig
from rankline.utc import parse_utc

PROJECT = "rankline"
# The rows of the first view have the exact times at which events became known, those of the others whole days. The
# first view is empty where there are no users.
_LAST_KNOWN_VIEWS = ("user_history", "item_popularity", "item_content")


def feature_service(features: Path) -> str:
    """The feature service that a run's features were computed for."""
    service: str = json.loads((features / "summary.json").read_text())["service"]
    return service


def materialize_online(
    features: Path,
    folder: Path,
    *,
    stores: FeatureStoreConfig | None = None,
    owner: dict[str, Any] | None = None,
    champion_reads: bool = False,
    replace_later: bool = False,
) -> dict[str, Any]:
    """Materialize a run's feature sources into ``folder``; returns the watermark, `moved` and `seconds`.

    The caller holds `store_lock`.

    A store with a later watermark stays as it is, so that promoting an older model does not take features back, unless
    ``replace_later``. What the sources do not hold any more, or what has outlived its lifetime, leaves the store. An
    interrupted materialization is done again by the next one. ``owner`` is written beside the watermark.
    ``champion_reads`` says that the champion reads this store: then its definitions may not change.

    Raises:
        UsageError: the champion reads other definitions under the same name.
        RegistryError: the features could not be materialized; the champion is unchanged.
        StorageError: Postgres or Redis does not answer, or the registry is locked; the champion is unchanged.
    """
    stores = (stores or FeatureStoreConfig()).model_copy(update={"offline": "duckdb"})
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        if champion_reads:
            _check_definitions(features, folder, stores)
        watermark = _materialize(features, folder, stores, owner, replace_later=replace_later)
        return {**watermark, "seconds": round(time.monotonic() - started, 2)}
    except (StorageError, UsageError):
        raise
    except Exception as error:  # Feast, DuckDB and SQLite each have their own
        raise RegistryError(
            "the features of this model could not be materialized online",
            expected="every feature view materialized",
            found=f"{type(error).__name__}: {first_line(error) if str(error) else ''}",
            where=str(folder),
            hint="run again; the champion has not changed",
        ) from error


def _check_definitions(features: Path, folder: Path, stores: FeatureStoreConfig) -> None:
    from feature_repo.backends import translate_errors
    from feature_repo.changes import definition_changes
    from feature_repo.store import SOURCES

    with translate_errors(stores):
        changed = definition_changes(folder, features / "feast" / SOURCES)
    if changed:
        raise UsageError(
            f"these are other feature definitions than the champion reads under the name {folder.name}",
            expected="the same views, features and types",
            found="; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
            where=str(folder),
            hint="give your definitions a new version (SERVICE in rankline/features/transforms.py): its store lies "
            "beside this one",
        )


def _materialize(
    features: Path, folder: Path, stores: FeatureStoreConfig, owner: dict[str, Any] | None, *, replace_later: bool
) -> dict[str, Any]:
    from feature_repo.backends import translate_errors
    from feature_repo.materialize import materialize
    from feature_repo.store import SOURCES, apply, open_store
    from rankline.features.profile import DECLARED
    from rankline.features.watermark import FILE as WATERMARK
    from rankline.features.watermark import read_shared

    sources = features / "feast" / SOURCES
    until = _last_known(sources)
    watermark = read_json_object(folder / WATERMARK)
    if watermark and _parse_time(watermark.get("until")) > until and not replace_later:
        return {**watermark, "moved": False}
    for source in sorted([*sources.glob("*.parquet"), *sources.glob(DECLARED)]):
        with replacing(folder / SOURCES / source.name) as partial:
            shutil.copyfile(source, partial)
    apply(folder, project=_project(folder.name, stores), sources=folder / SOURCES, stores=stores)
    with translate_errors(stores):
        shared_watermark = read_shared(open_store(folder))  # another machine may have materialized more
        if shared_watermark and datetime.fromisoformat(shared_watermark["until"]) > until and not replace_later:
            write_json(folder / WATERMARK, shared_watermark)
            return {**shared_watermark, "moved": False}
        hash_users = read_json_object(features / "summary.json").get("hash_users")
        return {**materialize(folder, until=until, owner=owner, hash_users=hash_users), "moved": True}


def _project(service: str, stores: FeatureStoreConfig) -> str:
    """The Feast project: in a store that services or catalogues share, its name keeps them apart."""
    shared = stores.online == "redis" or stores.registry == "postgres"
    return f"{stores.project}_{service}" if shared else PROJECT


def _last_known(sources: Path) -> datetime:
    """When the newest event became known; 1970 without events."""
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    for view in _LAST_KNOWN_VIEWS:
        known_at = parquet.read_table(sources / f"{view}.parquet", columns=["known_at"])["known_at"]
        newest: datetime | None = compute.max(known_at).as_py()
        if newest is not None:
            return newest.astimezone(UTC)
    return datetime.fromtimestamp(0, UTC)


def _parse_time(value: Any) -> datetime:
    """A watermark's time; 1970 if it cannot be read, so that the store is written again."""
    try:
        return parse_utc(value)
    except (ValueError, TypeError):
        return datetime.fromtimestamp(0, UTC)
