"""Compute features as they were known at each request's time, and the requests to train on and evaluate with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.featurize import exposures, interactions, negatives, queries, snapshots, split, tables
from components.featurize.config import FeaturizeConfig
from components.featurize.exposures import Exposures
from components.featurize.feedback import Labels
from components.featurize.interactions import Interactions
from components.featurize.join import JoinSettings, PointInTimeJoin
from components.featurize.parquet_writers import ParquetWriters
from components.featurize.profiles import Profiles
from components.featurize.queries import QueryRequests
from components.featurize.split import Split
from components.featurize.tables import RequestTable
from rankline.contracts import TIME_ZONE
from rankline.io import digest
from rankline.io.files import write_json
from rankline.io.sql import spill_folder, temporary_database
from rankline.io.storage import FeatureStoreConfig
from rankline.runtime.progress import Progress

# settings that change how values are computed and checked, not the values
EXECUTION_SETTINGS = {"join", "check_rows", "join_chunk", "memory_limit_mb"}
# settings of what is written beside the store, not of its values
REQUEST_SETTINGS = {"impression_window_s", "exposure_requests"}

Join = Callable[..., PointInTimeJoin]  # of features and the number of rows


@dataclass(frozen=True)
class SplitData:
    """The clean tables as requests: users by their events and split, queries that no user asked, exposures, and the
    declared fields of users and of requests.

    ``constant`` are the labels that count in every exposure or in none, because of which no exposures are kept.
    """

    interactions: Interactions
    log_split: Split
    query_texts: dict[str, str]
    query_requests: QueryRequests
    counts: dict[str, Any]
    exposures: Exposures | None
    constant: list[str]
    profiles: Profiles


def featurize(
    clean: Path,
    features: Path,
    *,
    config: FeaturizeConfig,
    stores: FeatureStoreConfig | None = None,
    progress: Progress = Progress(),
) -> dict[str, Any]:
    """Turn clean tables into feature sources, a Feast store, requests with their features, and negatives.

    Reads items.parquet, events.parquet and queries.parquet of ``clean``. Writes to ``features``: items.parquet,
    sequences.parquet, requests.parquet, item_features.parquet, negatives.parquet, exposures.parquet (if labels are
    declared), feast/ and summary.json.
    No value of a request became known after the request's time. ``stores`` are Feast's back ends.

    Raises:
        TooSmall: a split would have fewer requests than ``config.min_requests``, or a label has one outcome.
        UsageError: a declared feature has no column that can be encoded.
        ValidationFailed: events name unknown items or queries without words, or request ids recur on other days.
        IntegrityError: a join lost rows, or the fast join and Feast do not agree.
        StorageError: Postgres does not answer, refuses, or its registry is locked.
    """
    from feature_repo.store import SOURCES, working_directory  # Feast takes seconds to import

    features.mkdir(parents=True, exist_ok=True)
    features = features.resolve()  # joins change the working directory to the store's folder
    feast = features / "feast"
    with temporary_database(features, memory_mb=config.memory_limit_mb) as db:
        labels, config = snapshots.load_tables(db, clean, config)
        progress.phase("split")
        data = _split_requests(db, clean, labels, config)
        progress.phase("snapshots")
        source_rows = snapshots.write(
            db,
            feast / SOURCES,
            max_history=config.max_history,
            affinity_categories=config.affinity_categories,
            history_days=config.history_days,
        )
        data.profiles.write_sources(feast / SOURCES)

    progress.phase("feast apply")
    project = _apply_definitions(feast, config, stores)
    with ParquetWriters(features) as writers, spill_folder(features) as spill, working_directory(feast):
        join = _joins(feast, config, stores, spill)
        writers.write("items", data.interactions.items)
        writers.write("sequences", tables.sequences(data.interactions, data.log_split))
        progress.phase("requests")
        user_rows, users_checked = _write_requests(writers, join, data, config, progress)
        if data.exposures:
            _write_exposures(writers, join, data.exposures, data.profiles, config)
        progress.phase("item features")
        item_rows, items_checked = _write_item_features(writers, join, data, feast / SOURCES, config, progress)

    summary = {
        **_of_the_source(clean, labels),
        **data.counts,
        "rows": writers.rows,
        "source_rows": source_rows,
        "joined": {"user": user_rows, "item": item_rows},
        **_definitions(data, config),
        "project": project,
    }
    write_json(features / "summary.json", summary)
    return {**_result(summary, data), "checked_against_feast": {"user": users_checked, "item": items_checked}}


def _result(summary: dict[str, Any], data: SplitData) -> dict[str, Any]:
    result = {name: summary[name] for name in ("requests", "train_events", "rows", "joined", "train_end")}
    within = split.asked_within_baskets(data.interactions.log, data.log_split.requests)
    result |= {"asked_within_baskets": round(within, 4), **interactions.basket_warning(within)}
    if data.constant:
        result["no_chances"] = f"{', '.join(data.constant)}: the same in every impression, so no chance is learnt"
    return result


def _of_the_source(clean: Path, labels: Labels) -> dict[str, Any]:
    """What the summary of the clean tables says of the source, and the labels that it declares."""
    summary = json.loads((clean / "summary.json").read_text())
    known = {"data_digest": summary["data_digest"]}
    # of the events, not of the requested window: the same data under another window can be reused
    known["data_end"] = _utc(summary["event_time"]["last"])
    if "hash_users" in summary:
        known["hash_users"] = summary["hash_users"]
    if labels.declared:
        known["labels"] = {name: label.model_dump(mode="json") for name, label in labels.declared.items()}
    return known


def _split_requests(db: Any, clean: Path, labels: Labels, config: FeaturizeConfig) -> SplitData:
    profiles = Profiles.read(clean, config)
    events = interactions.read_log(db, clean)
    log_split = interactions.log_split(events.log, config)
    query_texts = queries.query_texts(clean, turns=config.turns)
    query_requests = queries.requests(db, clean, query_texts, config, labels)
    counts = interactions.counts(log_split, query_requests.counts())
    interactions.check_split_sizes(counts["requests"], config)
    known = exposures.Known(events, log_split, query_requests, query_texts)
    shown = exposures.read(db, labels, known, config)
    constant = exposures.labels_of_one_outcome(db, labels)
    return SplitData(events, log_split, query_texts, query_requests, counts, shown, constant, profiles)


def _apply_definitions(feast: Path, config: FeaturizeConfig, stores: FeatureStoreConfig | None) -> str:
    """Register the feature definitions with the run's own store; returns the Feast project.

    The project is named by its content: runs over other data, or with other settings, have other projects.
    """
    from feature_repo.store import SOURCES, apply

    unset = {name for name in ("user_features", "context_features", "baskets") if not getattr(config, name)}
    settings = config.model_dump(mode="json", exclude=EXECUTION_SETTINGS | REQUEST_SETTINGS | unset)
    project = f"rankline_{digest.json_digest([digest.tree_digest(feast / SOURCES), settings])[:12]}"
    apply(feast, project=project, sources=feast / SOURCES, stores=stores)
    return project


def _joins(feast: Path, config: FeaturizeConfig, stores: FeatureStoreConfig | None, spill: Path) -> Join:
    from feature_repo.store import open_store

    in_files = stores is None or stores.offline == "duckdb"  # Postgres joins its own tables, through Feast
    settings = JoinSettings(
        method=config.join if in_files else "feast",
        check_rows=config.check_rows,
        seed=config.seed,
        memory_mb=config.memory_limit_mb,
        spill=spill,
        chunk=config.join_chunk,
    )
    return partial(PointInTimeJoin, open_store(feast), settings=settings)


def _write_requests(
    writers: ParquetWriters, join: Join, data: SplitData, config: FeaturizeConfig, progress: Progress
) -> tuple[int, int]:
    """Write requests and negatives in parts; returns the rows joined, and those checked against Feast."""
    from components.featurize.feature_refs import user_feature_refs

    sampler = negatives.Sampler(
        data.interactions.log,
        weights=interactions.train_counts(data.interactions, data.log_split),
        count=config.negatives,
        popular_share=config.popular_negatives,
        seed=config.seed,
    )
    requests = data.log_split.requests
    count = len(requests.position)
    users = join(user_feature_refs(data.profiles.fields), rows=count)
    for start in range(0, count, config.join_chunk):
        part = replace(data.log_split, requests=requests.part(start, start + config.join_chunk))
        request_table = tables.requests(data.interactions, part, data.query_texts, max_history=config.max_history)
        writers.write("requests", _with_user_features(request_table, users, data.profiles))
        writers.write("negatives", tables.negatives(data.interactions, request_table, sampler.draw(part.requests)))
        progress.update(start + len(request_table.table), count)
    checked = users.check()
    writers.write("requests", queries.with_features(data.query_requests.request_table, data.profiles))
    writers.write("negatives", tables.empty_negatives())
    return count, checked


def _with_user_features(request_table: RequestTable, users: PointInTimeJoin, profiles: Profiles) -> pa.Table:
    """Requests of users with the features that were known at their times."""
    entity_rows = profiles.with_inputs(tables.user_entity_rows(request_table), request_table.event_rows)
    user_features = users.join(entity_rows)
    if TIME_ZONE in entity_rows.column_names:
        request_table = request_table.with_column(TIME_ZONE, entity_rows[TIME_ZONE])
    return tables.with_features(request_table, user_features)


def _write_exposures(
    writers: ParquetWriters, join: Join, shown: Exposures, profiles: Profiles, config: FeaturizeConfig
) -> None:
    """Write the exposures with the features that were known when each began."""
    from components.featurize.feature_refs import user_feature_refs

    count = len(shown.of_users.time_us)
    users = join(user_feature_refs(profiles.fields), rows=count)
    for start in range(0, count, config.join_chunk):
        part = shown.of_users.part(start, start + config.join_chunk)
        writers.write("exposures", _with_user_features(part, users, profiles))
    users.check()
    writers.write("exposures", queries.with_features(shown.of_queries, profiles))


def _write_item_features(
    writers: ParquetWriters, join: Join, data: SplitData, sources: Path, config: FeaturizeConfig, progress: Progress
) -> tuple[int, int]:
    """Write the items' features on each request day in parts; returns the rows joined, and those checked."""
    from components.featurize.feature_refs import ITEM_FEATURE_REFS

    log_times_us = data.interactions.log.time_us[data.log_split.requests.position]
    shown_us = data.exposures.time_us if data.exposures else log_times_us[:0]
    time_us = np.concatenate([log_times_us, data.query_requests.request_table.time_us, shown_us])
    count, parts = tables.item_entity_rows(time_us, data.interactions, sources, chunk=config.join_chunk)
    items = join(ITEM_FEATURE_REFS, rows=count)
    for part in parts:
        writers.write("item_features", tables.with_item_features(part, items.join(part)))
        progress.update(writers.rows["item_features"], count)
    return count, items.check()


def _definitions(data: SplitData, config: FeaturizeConfig) -> dict[str, Any]:
    """How the requests were made, and which features they have."""
    fields = data.profiles.fields
    return {
        "split": interactions.split_definition(data.interactions.log, config),
        "train_end": interactions.iso(max(data.log_split.train_end, data.query_requests.train_end)),
        "turns": config.turns,
        "service": fields.service,
        **tables.feature_lists(),
        **({"profile": fields.model_dump()} if fields.any else {}),
        "categories": interactions.categories(data.interactions.items),
    }


def _utc(time: str | None) -> str:
    """An ISO time in UTC; empty for none."""
    return datetime.fromisoformat(time).astimezone(UTC).isoformat() if time else ""
