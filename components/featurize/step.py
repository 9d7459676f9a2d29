"""Features as they were known at every moment, and the requests to learn from and to be judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.featurize.config import FeaturizeConfig
from rankline.progress import Progress


def featurize(
    clean: Path, features: Path, *, config: FeaturizeConfig, progress: Progress = Progress()
) -> dict[str, Any]:
    """Turn clean tables into feature sources, a Feast store, requests with their features, and negatives.

    Reads items.parquet and events.parquet of ``clean``. Writes to ``features``: items.parquet,
    sequences.parquet, requests.parquet, item_features.parquet, negatives.parquet, feast/ and summary.json.
    No value in a request was known later than the request's moment.

    Raises:
        TooSmall: a split would have fewer requests than ``config.min_requests``.
        ValidationFailed: events name items that the catalogue lacks.
        IntegrityError: the feature store lost rows in a join.
    """
    import duckdb
    import pyarrow.parquet as parquet

    from components.featurize import negatives, snapshots, split, tables
    from components.featurize.join import as_of
    from feature_repo.store import SOURCES, apply, open_store, standing_in
    from rankline import digest, ledger
    from rankline.features import SERVICE

    features.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        snapshots.read(db, clean)

        progress.phase("split")
        people = tables.read_log(db, clean)
        cut = tables.cut(people.log, config)
        tables.refuse_if_too_small(cut, config)

        progress.phase("snapshots")
        feast = features / "feast"
        source_rows = snapshots.write(
            db,
            feast / SOURCES,
            max_history=config.max_history,
            affinity_categories=config.affinity_categories,
        )

    progress.phase("feast apply")
    # The project is named by what is in it: runs over other data, or other settings, have other projects.
    project = f"rankline_{digest.of_value([digest.of_tree(feast / SOURCES), config.model_dump(mode='json')])[:12]}"
    apply(feast, project=project, sources=feast / SOURCES)
    store = open_store(feast)

    requests = tables.requests(people, cut, max_history=config.max_history)
    with standing_in(feast):
        progress.phase("user features")
        user_features = as_of(
            store, tables.user_moments(requests), tables.USER_SIDE, chunk=config.join_chunk, progress=progress
        )
        progress.phase("item features")
        pairs = tables.item_moments(requests, people, feast / SOURCES)
        item_features = as_of(store, pairs, tables.ITEM_SIDE, chunk=config.join_chunk, progress=progress)

    progress.phase("negatives")
    drawn = negatives.sample(
        people.log,
        cut.requests,
        weights=tables.train_counts(people, cut),
        count=config.negatives,
        popular_share=config.popular_negatives,
        seed=config.seed,
    )

    progress.phase("writing")
    written = {
        "items": people.items,
        "sequences": tables.sequences(people, cut),
        "requests": tables.with_features(requests, user_features),
        "item_features": tables.with_item_features(pairs, item_features),
        "negatives": tables.negatives(people, requests, drawn),
    }
    for name, table in written.items():
        parquet.write_table(table, features / f"{name}.parquet", compression="zstd")
    summary = {
        "data_digest": json.loads((clean / "summary.json").read_text())["data_digest"],
        **split.counts(cut),
        "rows": {name: len(table) for name, table in written.items()},
        "source_rows": source_rows,
        "joined": {"user": len(user_features), "item": len(item_features)},
        "split": tables.definition(people.log, config),
        "train_end": tables.iso(cut.train_end),
        "service": SERVICE,
        "project": project,
        **tables.feature_lists(),
        "categories": tables.categories(people.items),
    }
    ledger.write_json(features / "summary.json", summary)
    return {name: summary[name] for name in ("requests", "train_events", "rows", "joined", "train_end")}
