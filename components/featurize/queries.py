"""Requests of queries without a user: each query once, with the items that answer it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from components.featurize.config import FeaturizeConfig
from components.featurize.feedback import Labels, label_column
from components.featurize.profiles import Profiles
from components.featurize.split import DAY_US, TEST, TRAIN, VALID, Ints, quantile_cuts
from components.featurize.tables import RequestTable
from rankline import contracts, label_sql
from rankline.contracts import TIME_ZONE
from rankline.errors import ValidationFailed
from rankline.features import rating_scale, transforms
from rankline.io.sql import identifier
from rankline.labels import FEEDBACK
from rankline.text import query_text

NEVER = np.iinfo(np.int64).max
MIN_VALID_REQUESTS = 50  # a small source gives up to a quarter of its queries for this many


def query_texts(clean: Path, *, turns: int) -> dict[str, str]:
    """Query id -> its words; of a conversation the last ``turns`` turns."""
    path = clean / "queries.parquet"
    if not path.is_file():
        return {}
    table = parquet.read_table(path, columns=["query_id", "text", "turns"])
    return {row["query_id"]: query_text(row["text"], row["turns"], last=turns) for row in table.to_pylist()}


@dataclass(frozen=True)
class QueryRequests:
    """R requests; ``split`` [R] are codes, ``known_us`` [R] when the last answer of each became known."""

    request_table: RequestTable
    split: Ints
    known_us: Ints

    @property
    def train_end(self) -> int:
        """When the last answer of a train request became known (µs); 0 without any."""
        return int(self.known_us[self.split == TRAIN].max(initial=0))

    def counts(self) -> dict[str, int]:
        """Requests per split."""
        return dict(zip(contracts.SPLITS, map(int, np.bincount(self.split, minlength=len(contracts.SPLITS)))))


def requests(
    db: Any, clean: Path, query_texts: dict[str, str], config: FeaturizeConfig, labels: Labels | None = None
) -> QueryRequests:
    """The queries that no user asked, with their time, their words and the items that answer them.

    Raises:
        ValidationFailed: an event names a query without words, or an unknown split.
    """
    labels = labels or Labels.of(clean)
    answers = _judged_items(clean, labels) if labels.effective else _answers(clean)
    rows = db.sql(
        f"""
        SELECT query_id, epoch_us(min(event_timestamp) FILTER (grade > 0)) AS at_us,
            epoch_us(max(known_at) FILTER (grade > 0)) AS known_us, any_value(split) FILTER (grade > 0) AS split,
            min(row) FILTER (grade > 0) AS first_row,
            list(item_id ORDER BY grade DESC, row) FILTER (grade > 0) AS targets,
            list(rating::FLOAT ORDER BY grade DESC, row) FILTER (grade > 0) AS ratings,
            list(grade::FLOAT ORDER BY grade DESC, row) FILTER (grade > 0) AS weights,
            coalesce(list(item_id ORDER BY row) FILTER (grade = 0), []) AS shown
        FROM ({answers}) GROUP BY query_id HAVING max(grade) > 0 ORDER BY at_us, query_id
        """,
        params={"path": str(clean / "events.parquet")},
    ).to_arrow_table()
    ids = rows["query_id"].to_pylist()
    if without_text := [each for each in ids if not query_texts.get(each)]:
        raise ValidationFailed(
            "events name queries without words",
            expected="a text, or turns, for every query_id of events.parquet in queries.parquet",
            found=f"{len(without_text)} without, such as query {without_text[0]!r}",
            where=str(clean),
            hint="set ingest.columns.query_text to the column of the words, or leave out such events",
        )
    words = [query_texts[each] for each in ids]
    time_us = rows["at_us"].to_numpy().astype(np.int64)
    split = _assign_splits(words, time_us, rows["split"].to_pylist(), config)
    no_items = pa.array([[]] * len(ids), pa.list_(pa.string()))
    no_numbers = pa.array([[]] * len(ids), pa.list_(pa.float64()))
    table = pa.table(
        {
            "request_id": [f"{contracts.SPLITS[code]}:q:{each}" for code, each in zip(split, ids)],
            "split": pa.array([contracts.SPLITS[code] for code in split], pa.string()),
            "user_id": pa.nulls(len(ids), pa.string()),
            "query_id": pa.array(ids, pa.string()),
            "query": pa.array(words, pa.string()),
            "at": time_us / 1e6,
            "history_items": no_items,
            "history_times": no_numbers,
            "history_ratings": no_numbers,
            "seen": no_items,
            "targets": rows["targets"],
            "target_ratings": rows["ratings"],
            "snapshot": (time_us // DAY_US) * 86_400.0,
        }
    )
    if labels.effective:
        table = table.append_column("target_weights", rows["weights"]).append_column("shown", rows["shown"])
    known_us, event_rows = (rows[name].to_numpy().astype(np.int64) for name in ("known_us", "first_row"))
    return QueryRequests(RequestTable(table, time_us, event_rows), split, known_us)


_EVENTS_OF_QUERIES = """(SELECT *, file_row_number AS row FROM read_parquet($path, file_row_number = true))
        WHERE user_id IS NULL AND query_id IS NOT NULL"""


def _answers(clean: Path) -> str:
    """SQL of what answers a query, where every event does whose label is above 0."""
    columns = parquet.read_schema(clean / "events.parquet").names
    grade = f"coalesce({', '.join([*(label for label in contracts.LABELS if label in columns), '1'])})"
    rating = "coalesce(rating, 0)" if "rating" in columns else "0"
    split_column = contracts.SPLIT if contracts.SPLIT in columns else "NULL"
    return f"""
        SELECT query_id, item_id, event_timestamp, known_at, {split_column} AS split, {grade} AS grade,
            {rating} AS rating, row
        FROM {_EVENTS_OF_QUERIES} AND {grade} > 0"""


def _judged_items(clean: Path, labels: Labels) -> str:
    """SQL of the items that labels judge for a query, each once: a grade of 0 is a negative."""
    columns = parquet.read_schema(clean / "events.parquet").names
    values = ", ".join(f"max({identifier(name)}) AS {label_column(name)}" for name in labels.effective)
    rating = rating_scale.history_label(labels.declared) or ("" if labels.declared else "rating")
    own_rating = f"coalesce(max({identifier(rating)}), 0)" if rating in columns else "0"
    split_column = contracts.SPLIT if contracts.SPLIT in columns else "NULL"
    return f"""
        SELECT *, {label_sql.feedback(labels.effective, label_column)} AS grade FROM (
            SELECT query_id, item_id, min(event_timestamp) AS event_timestamp, max(known_at) AS known_at,
                any_value({split_column}) AS split, {values}, {own_rating} AS rating, min(row) AS row
            FROM {_EVENTS_OF_QUERIES} AND {FEEDBACK} IS NOT NULL GROUP BY query_id, item_id)"""


def with_features(request_table: RequestTable, profiles: Profiles) -> pa.Table:
    """The requests with their context features; user features, affinity and declared fields of users are empty."""
    known = profiles.of_events(request_table.event_rows)
    count = len(request_table.time_us)
    zeros = np.zeros(count)
    context = transforms.request_context(
        request_time=request_table.time_us / 1e6,
        last_event_time=zeros,
        history_length=zeros,
        time_zones=known[TIME_ZONE].to_pylist() if TIME_ZONE in known else (),
    )
    columns = {name: request_table.table[name] for name in request_table.table.column_names}
    no_affinity = {
        "affinity_categories": pa.array([[]] * count, pa.list_(pa.string())),
        "affinity_shares": pa.array([[]] * count, pa.list_(pa.float32())),
    }
    return pa.table({**columns, **dict.fromkeys(transforms.USER, zeros), **no_affinity, **context, **known})


def _assign_splits(texts: list[str], time_us: Ints, stated: list[str | None], config: FeaturizeConfig) -> Ints:
    """[R] each query's split; the same words are never in two splits, unless the source says so."""
    method = config.query_split
    if method == "auto":
        method = "given" if any(stated) else "random"
    if method == "time" and len(time_us):
        cut, valid_until, _ = quantile_cuts(time_us, train_share=config.train_share, valid_share=config.valid_share)
        return np.where(time_us < cut, TRAIN, np.where(time_us < valid_until, VALID, TEST))
    fraction = np.array([_hash_fraction(text, config.seed) for text in texts])
    if method != "given":
        until_valid = config.train_share + config.valid_share
        return np.where(fraction < config.train_share, TRAIN, np.where(fraction < until_valid, VALID, TEST))
    codes = {name: code for code, name in enumerate(contracts.SPLITS)}
    if unknown := sorted({each for each in stated if each not in (None, *codes)}, key=str):
        raise ValidationFailed(
            "events name an unknown split",
            expected=", ".join(codes),
            found=", ".join(map(str, unknown[:3])),
            hint=f"write one of them into the column {contracts.SPLIT}, or set featurize.query_split=random",
        )
    given = np.array([codes[each or "train"] for each in stated], np.int64)
    train = given == TRAIN
    if train.any() and not (given == VALID).any():  # the source has only train and test
        share = config.valid_share / (config.train_share + config.valid_share)
        min_share = min(MIN_VALID_REQUESTS, int(train.sum()) // 4) / train.sum()
        given[train & (fraction <= np.quantile(fraction[train], max(share, min_share)))] = VALID
    return given


def exposure_splits(
    requests: QueryRequests,
    ids: list[str],
    words: list[str],
    stated: list[str | None],
    time_us: Ints,
    config: FeaturizeConfig,
) -> Ints:
    """The splits of what was shown for queries: those of their requests, as far as they have any.

    The others were never answered: they are split as the source says, by time, or by their words.
    """
    table = requests.request_table.table
    known = dict(zip(table["query_id"].to_pylist(), requests.split.tolist()))
    known_words = dict(zip(table["query"].to_pylist(), requests.split.tolist()))
    alone = np.array([known.get(each, known_words.get(text, -1)) for each, text in zip(ids, words)], np.int64)
    until_valid = config.train_share + config.valid_share
    if config.query_split == "time" and len(requests.split):
        times = (
            int(requests.request_table.time_us[requests.split == each].min(initial=NEVER)) for each in (VALID, TEST)
        )
        valid_us, test_us = times
        other = np.where(time_us < valid_us, TRAIN, np.where(time_us < test_us, VALID, TEST))
    else:
        fraction = np.array([_hash_fraction(text, config.seed) for text in words])
        other = np.where(fraction < config.train_share, TRAIN, np.where(fraction < until_valid, VALID, TEST))
        if config.query_split in ("auto", "given"):
            codes = {name: code for code, name in enumerate(contracts.SPLITS)}
            other = np.array([codes.get(each or "", code) for each, code in zip(stated, other.tolist())], np.int64)
    return np.where(alone >= 0, alone, other)


def _hash_fraction(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the words alone."""
    key = f"{seed}:{' '.join(text.casefold().split())}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) / 2**64
