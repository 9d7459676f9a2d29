"""Features as they were known at every moment, and the requests to learn from and to be judged by."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.featurize.config import FeaturizeConfig
from rankline.io.storage import FeatureStoreConfig
from rankline.runtime.progress import Progress

EXECUTION_SETTINGS = {
    "join",
    "check_rows",
    "join_chunk",
    "memory_limit_mb",
}  # settings that change no value, only the way to it


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
    sequences.parquet, requests.parquet, item_features.parquet, negatives.parquet, feast/ and summary.json.
    No value in a request was known later than the request's moment. ``stores`` is what Feast stands on.

    Raises:
        TooSmall: a split would have fewer requests than ``config.min_requests``.
        ValidationFailed: events name items that the catalogue lacks, or queries without words.
        IntegrityError: the feature store lost rows in a join, or the fast join and Feast do not agree.
        StorageError: Postgres is away, refuses, or its registry is locked.
    """
    import numpy as np

    from components.featurize import negatives, queries, snapshots, tables
    from components.featurize.join import PointInTimeJoin
    from components.featurize.parts import ParquetWriters
    from feature_repo.store import SOURCES, apply, open_store, working_directory
    from rankline.features.transforms import SERVICE
    from rankline.io import digest
    from rankline.runtime import ledger

    features.mkdir(parents=True, exist_ok=True)
    features = features.resolve()  # joins stand in the store's folder
    with snapshots.database(features, memory_mb=config.memory_limit_mb) as db:
        snapshots.load_tables(db, clean)

        progress.phase("split")
        interactions = tables.read_log(db, clean)
        log_split = tables.log_split(interactions.log, config)
        query_texts = queries.query_texts(clean, turns=config.turns)
        query_requests = queries.requests(db, clean, query_texts, config)
        counts = tables.counts(log_split, query_requests.counts())
        tables.check_split_sizes(counts["requests"], config)

        progress.phase("snapshots")
        feast = features / "feast"
        source_rows = snapshots.write(
            db,
            feast / SOURCES,
            max_history=config.max_history,
            affinity_categories=config.affinity_categories,
            history_days=config.history_days,
        )

    progress.phase("feast apply")
    # The project is named by what is in it: runs over other data, or other settings, have other projects; how it is
    # joined and checked changes no value.
    settings = config.model_dump(mode="json", exclude=EXECUTION_SETTINGS)
    project = f"rankline_{digest.json_digest([digest.tree_digest(feast / SOURCES), settings])[:12]}"
    apply(feast, project=project, sources=feast / SOURCES, stores=stores)
    store = open_store(feast)

    sampler = negatives.Sampler(
        interactions.log,
        weights=tables.train_counts(interactions, log_split),
        count=config.negatives,
        popular_share=config.popular_negatives,
        seed=config.seed,
    )
    position = log_split.requests.position
    time_us = np.concatenate([interactions.log.time_us[position], query_requests.request_table.time_us])
    item_row_count, item_parts = tables.item_entity_rows(
        time_us, interactions, feast / SOURCES, chunk=config.join_chunk
    )
    in_files = stores is None or stores.offline == "duckdb"  # Postgres joins its own tables, through Feast
    join_settings = {
        "way": config.join if in_files else "feast",
        "check_rows": config.check_rows,
        "seed": config.seed,
        "chunk": config.join_chunk,
    }
    with (
        ParquetWriters(features) as writers,
        snapshots.spill_folder(features) as spill,
        working_directory(feast),
    ):
        writers.write("items", interactions.items)
        writers.write("sequences", tables.sequences(interactions, log_split))

        progress.phase("requests")
        users = PointInTimeJoin(
            store,
            tables.USER_FEATURE_REFS,
            rows=len(position),
            spill=spill,
            memory_mb=config.memory_limit_mb,
            **join_settings,
        )
        for start in range(0, len(position), config.join_chunk):
            part = replace(log_split, requests=log_split.requests.part(start, start + config.join_chunk))
            request_table = tables.requests(interactions, part, query_texts, max_history=config.max_history)
            writers.write(
                "requests", tables.with_features(request_table, users.join(tables.user_entity_rows(request_table)))
            )
            writers.write("negatives", tables.negatives(interactions, request_table, sampler.draw(part.requests)))
            progress.update(start + len(request_table.table), len(position))
        checked = {"user": users.check()}
        writers.write("requests", queries.with_features(query_requests.request_table))
        writers.write("negatives", tables.empty_negatives())

        progress.phase("item features")
        items = PointInTimeJoin(
            store,
            tables.ITEM_FEATURE_REFS,
            rows=item_row_count,
            spill=spill,
            memory_mb=config.memory_limit_mb,
            **join_settings,
        )
        for item_part in item_parts:
            writers.write("item_features", tables.with_item_features(item_part, items.join(item_part)))
            progress.update(writers.rows["item_features"], item_row_count)
        checked["item"] = items.check()

    values = json.loads((clean / "summary.json").read_text())
    summary = {
        "data_digest": values["data_digest"],
        # of the events and not of the window asked for: the same data under another window is reused
        "data_end": _utc(values["event_time"]["last"]),
        **counts,
        "rows": writers.rows,
        "source_rows": source_rows,
        "joined": {"user": len(position), "item": item_row_count},
        "split": tables.split_definition(interactions.log, config),
        "train_end": tables.iso(max(log_split.train_end, query_requests.train_end)),
        "turns": config.turns,
        "service": SERVICE,
        "project": project,
        **tables.feature_lists(),
        "categories": tables.categories(interactions.items),
    }
    ledger.write_json(features / "summary.json", summary)
    values = {name: summary[name] for name in ("requests", "train_events", "rows", "joined", "train_end")}
    return {**values, "checked_against_feast": checked}


def _utc(time: str | None) -> str:
    """An ISO time as UTC; empty for none."""
    return datetime.fromisoformat(time).astimezone(UTC).isoformat() if time else ""
