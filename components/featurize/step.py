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

HOW = {"join", "check_rows", "join_chunk", "memory_limit_mb"}  # settings that change no value, only the way to it


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
    from components.featurize.join import AsOf
    from components.featurize.parts import Parts
    from feature_repo.store import SOURCES, apply, open_store, standing_in
    from rankline.features.transforms import SERVICE
    from rankline.io import digest
    from rankline.runtime import ledger

    features.mkdir(parents=True, exist_ok=True)
    features = features.resolve()  # joins stand in the store's folder
    with snapshots.database(features, memory_mb=config.memory_limit_mb) as db:
        snapshots.read(db, clean)

        progress.phase("split")
        people = tables.read_log(db, clean)
        cut = tables.cut(people.log, config)
        said = queries.texts(clean, turns=config.turns)
        worded = queries.requests(db, clean, said, config)
        counts = tables.counts(cut, worded.counts())
        tables.refuse_if_too_small(counts["requests"], config)

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
    settings = config.model_dump(mode="json", exclude=HOW)
    project = f"rankline_{digest.of_value([digest.of_tree(feast / SOURCES), settings])[:12]}"
    apply(feast, project=project, sources=feast / SOURCES, stores=stores)
    store = open_store(feast)

    sampler = negatives.Sampler(
        people.log,
        weights=tables.train_counts(people, cut),
        count=config.negatives,
        popular_share=config.popular_negatives,
        seed=config.seed,
    )
    position = cut.requests.position
    at = np.concatenate([people.log.at[position], worded.asked.at])
    days, pairs = tables.item_moments(at, people, feast / SOURCES, chunk=config.join_chunk)
    in_files = stores is None or stores.offline == "duckdb"  # Postgres joins its own tables, through Feast
    asking = {
        "way": config.join if in_files else "feast",
        "check_rows": config.check_rows,
        "seed": config.seed,
        "chunk": config.join_chunk,
    }
    with (
        Parts(features) as written,
        snapshots.spilling(features) as spill,
        standing_in(feast),
    ):
        written.write("items", people.items)
        written.write("sequences", tables.sequences(people, cut))

        progress.phase("requests")
        users = AsOf(
            store, tables.USER_SIDE, rows=len(position), spill=spill, memory_mb=config.memory_limit_mb, **asking
        )
        for start in range(0, len(position), config.join_chunk):
            part = replace(cut, requests=cut.requests.part(start, start + config.join_chunk))
            asked = tables.requests(people, part, said, max_history=config.max_history)
            written.write("requests", tables.with_features(asked, users.of(tables.user_moments(asked))))
            written.write("negatives", tables.negatives(people, asked, sampler.draw(part.requests)))
            progress.update(start + len(asked.table), len(position))
        checked = {"user": users.check()}
        written.write("requests", queries.with_features(worded.asked))
        written.write("negatives", tables.no_negatives())

        progress.phase("item features")
        items = AsOf(store, tables.ITEM_SIDE, rows=days, spill=spill, memory_mb=config.memory_limit_mb, **asking)
        for pair in pairs:
            written.write("item_features", tables.with_item_features(pair, items.of(pair)))
            progress.update(written.rows["item_features"], days)
        checked["item"] = items.check()

    told = json.loads((clean / "summary.json").read_text())
    summary = {
        "data_digest": told["data_digest"],
        # of the events and not of the window asked for: the same data under another window is reused
        "data_end": _utc(told["event_time"]["last"]),
        **counts,
        "rows": written.rows,
        "source_rows": source_rows,
        "joined": {"user": len(position), "item": days},
        "split": tables.definition(people.log, config),
        "train_end": tables.iso(max(cut.train_end, worded.train_end)),
        "turns": config.turns,
        "service": SERVICE,
        "project": project,
        **tables.feature_lists(),
        "categories": tables.categories(people.items),
    }
    ledger.write_json(features / "summary.json", summary)
    told = {name: summary[name] for name in ("requests", "train_events", "rows", "joined", "train_end")}
    return {**told, "checked_against_feast": checked}


def _utc(moment: str | None) -> str:
    """An ISO time as UTC; empty for none."""
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat() if moment else ""
