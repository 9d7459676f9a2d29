"""Exposures: everything that a request showed, with the labels of each item and the features of its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.featurize import queries
from components.featurize.config import FeaturizeConfig
from components.featurize.feedback import Labels, label_column
from components.featurize.interactions import Interactions
from components.featurize.queries import QueryRequests
from components.featurize.split import DAY_US, TRAIN, Bools, Ints, Log, Split, known_between
from components.featurize.tables import RequestTable, arrow_lists
from rankline import contracts, label_sql
from rankline.errors import TooSmall


@dataclass(frozen=True)
class Exposures:
    """The exposures of users, and those of queries that no user asked, as requests without their features."""

    of_users: RequestTable
    of_queries: RequestTable

    @property
    def time_us(self) -> Ints:
        """The times of all of them."""
        return np.concatenate([self.of_users.time_us, self.of_queries.time_us])


@dataclass(frozen=True)
class Known:
    """What exposures are built from: the users' log, the requests of queries, and the splits of both."""

    interactions: Interactions
    log_split: Split
    query_requests: QueryRequests
    query_texts: Mapping[str, str]


def read(db: Any, labels: Labels, known: Known, config: FeaturizeConfig) -> Exposures | None:
    """The latest exposures of each split; none without declared labels, or if they tell nothing apart.

    Raises:
        TooSmall: something was shown in vain, and a binary label counts in every exposure, or in none.
    """
    if not labels.declared or not _labels_differ(db, labels) or labels_of_one_outcome(db, labels):
        return None
    table = _times(db, labels)
    users = _user_codes(table, known.interactions)
    split, usable = _splits(table, users, known, config)
    rows = _latest(table["until_us"].to_numpy(), split, usable, config.exposure_requests)
    table, users, split = table.take(pa.array(rows)), users[rows], split[rows]
    requests = _requests(table, users, split, known, max_history=config.max_history)
    shown = _shown_items(db, labels, table["exposure"])
    for name in shown.column_names:
        requests = requests.append_column(name, shown[name])
    requests_of = [
        RequestTable(requests.filter(pa.array(rows)), table["at_us"].to_numpy()[rows], table["row"].to_numpy()[rows])
        for rows in (pc.is_valid(table["user_id"]).to_numpy(), pc.is_null(table["user_id"]).to_numpy())
    ]
    return Exposures(*requests_of)


def _labels_differ(db: Any, labels: Labels) -> bool:
    """Whether something was shown in vain, or a label has two values: positives alone say nothing more."""
    differ = [f"min({label_column(name)}) < max({label_column(name)})" for name in labels.declared]
    return any(db.sql(f"SELECT bool_or(feedback = 0), {', '.join(differ)} FROM exposed").fetchall()[0])


def labels_of_one_outcome(db: Any, labels: Labels) -> list[str]:
    """The binary labels that count in every exposure, or in none: their chance cannot be learnt. Empty without labels.

    Raises:
        TooSmall: there are such labels, and exposures in which something was shown in vain.
    """
    binary = {name: label for name, label in labels.declared.items() if label.type == "binary"}
    if not binary:
        return []
    counts = [f"({label_sql.counts(label_column(name), label)})" for name, label in binary.items()]
    outcomes = ", ".join(f"bool_and({each}), coalesce(bool_or({each}), false)" for each in counts)
    in_vain, *values = db.sql(f"SELECT bool_or(feedback = 0), {outcomes} FROM exposed").fetchall()[0]
    constant = {name: some for name, every, some in zip(binary, values[::2], values[1::2]) if every or not some}
    for name, counted in constant.items() if in_vain else ():
        missing, has = ("without", 1) if counted else ("with", 0)
        raise TooSmall(
            f"the log has no impression {missing} {name}, so its chance cannot be learnt",
            expected=f"impressions with and without {name}, once the rows of one request and item are joined",
            found=f"{name} = {has} in every impression in which it is known",
            where=f"ingest.labels.{name}",
            hint=f"add the impressions with {name} = {1 - has}, or take [labels.{name}] and what is mapped to it out "
            "of the map",
        )
    return list(constant)


def _times(db: Any, labels: Labels) -> pa.Table:
    """One row per exposure: whose it is, when it began and ended, when all of it was known."""
    shown = f"coalesce(feedback = 0, false) AND NOT {label_sql.is_against(labels.effective, label_column)}"
    if labels.types:  # without rows of what was shown, a log of types has no exposures beyond those that it shows
        (has_impressions,) = db.sql(f"SELECT coalesce(bool_or({shown}), false) FROM logged").fetchall()[0]
    condition = f"AND bool_or({shown})" if labels.types and has_impressions else ""
    return db.sql(
        f"""
        SELECT exposure, any_value(user_id) AS user_id, any_value(query_id) AS query_id, any_value(split) AS split,
            min(at_us) AS at_us, max(at_us) AS until_us, max(known_us) AS known_us, min(row) AS row
        FROM grouped JOIN logged USING (row) GROUP BY exposure
        HAVING count(feedback) > 0 {condition} ORDER BY exposure
        """
    ).to_arrow_table()


def _user_codes(table: pa.Table, interactions: Interactions) -> Ints:
    """The codes of users in the log, -1 for all others."""
    codes = pc.index_in(table["user_id"], value_set=interactions.user_ids)
    return np.asarray(pc.fill_null(codes, -1).to_numpy(), np.int64)


def _splits(table: pa.Table, users: Ints, known: Known, config: FeaturizeConfig) -> tuple[Ints, Bools]:
    """The split of each exposure, and whether it can be used: known when training ends, and with words for a query.

    An exposure is of the split in which its last event is, so that no label of a later split is learnt from.
    """
    until_us = table["until_us"].to_numpy()
    split = known.log_split.split_of(users, until_us)
    usable = np.ones(len(table), bool)
    if config.split == "time_cut":
        usable = (split != TRAIN) | (table["known_us"].to_numpy() <= known.log_split.train_end)
    alone = np.flatnonzero(pc.is_null(table["user_id"]).to_numpy())
    if len(alone):
        ids = table["query_id"].take(pa.array(alone)).to_pylist()
        words = [known.query_texts.get(each, "") for each in ids]
        stated = table["split"].take(pa.array(alone)).to_pylist()
        split[alone] = queries.exposure_splits(known.query_requests, ids, words, stated, until_us[alone], config)
        usable[alone] = [bool(each) for each in words]
    return split, usable


def _latest(until_us: Ints, split: Ints, usable: Bools, most: int) -> Ints:
    """The usable rows with the latest times, at most so many per split; split by split, by time."""
    rows = np.flatnonzero(usable)
    rows = rows[np.lexsort((until_us[rows], split[rows]))]
    from_end = np.searchsorted(split[rows], split[rows], side="right") - np.arange(len(rows))
    return rows[from_end <= most]


def _requests(table: pa.Table, users: Ints, split: Ints, known: Known, *, max_history: int) -> pa.Table:
    """The exposures as requests at the time at which each began, with what was known of its user by then."""
    interactions, log = known.interactions, known.interactions.log
    time_us = table["at_us"].to_numpy()
    starts = np.searchsorted(log.users, users)
    seen = known_between(log, starts, _positions(log, users, time_us), time_us)
    history = seen.last(max_history)
    items = pa.DictionaryArray.from_arrays(pa.array(log.items), interactions.item_ids, safe=False)
    names = [contracts.SPLITS[code] for code in split]
    owners = pc.coalesce(table["user_id"], pc.binary_join_element_wise("q", table["query_id"], ":")).to_pylist()
    query_ids = table["query_id"].to_pylist()
    return pa.table(
        {
            "request_id": [
                f"{name}:{owner}:e{exposure}"
                for name, owner, exposure in zip(names, owners, table["exposure"].to_pylist())
            ],
            "split": pa.array(names, pa.string()),
            "user_id": table["user_id"],
            "query_id": table["query_id"],
            "query": pa.array([known.query_texts.get(each) if each else None for each in query_ids], pa.string()),
            "at": time_us / 1e6,
            "history_items": arrow_lists(history, items),
            "history_times": arrow_lists(history, log.seconds),
            "history_ratings": arrow_lists(history, interactions.ratings),
            "seen": arrow_lists(seen, items),
            "snapshot": (time_us // DAY_US) * 86_400.0,
        }
    )


def _positions(log: Log, users: Ints, time_us: Ints) -> Ints:
    """The position in the log of the first event of each user that is not before a time."""
    times = np.unique(log.time_us)
    factor = len(times) + 1
    keys = log.users * factor + np.searchsorted(times, log.time_us)
    wanted: Ints = np.searchsorted(keys, users * factor + np.searchsorted(times, time_us))
    return np.where(users < 0, 0, wanted)


def _shown_items(db: Any, labels: Labels, exposures: pa.ChunkedArray) -> pa.Table:
    """Targets, and all that was shown with its place, feedback and labels, of some exposures in their order."""
    by_place, by_weight = "ORDER BY position NULLS LAST, row", "ORDER BY feedback DESC, row"
    values = ", ".join(
        f"list(coalesce({label_column(name)}, 'nan')::FLOAT {by_place}) AS {label_column(name)}"
        for name in labels.declared
    )
    chosen = pa.table({"exposure": exposures, "place": np.arange(len(exposures))})
    db.register("chosen", chosen)
    table = db.sql(
        f"""
        SELECT coalesce(list(item_id {by_weight}) FILTER (feedback > 0), []) AS targets,
            coalesce(list(coalesce(rating, 0)::FLOAT {by_weight}) FILTER (feedback > 0), []) AS target_ratings,
            coalesce(list(feedback::FLOAT {by_weight}) FILTER (feedback > 0), []) AS target_weights,
            coalesce(list(item_id ORDER BY row) FILTER (feedback = 0), []) AS shown,
            list(item_id {by_place}) AS items, list(coalesce(position, 0)::INTEGER {by_place}) AS positions,
            list(coalesce(feedback, 'nan')::FLOAT {by_place}) AS feedback, {values}
        FROM exposed JOIN chosen USING (exposure) GROUP BY place ORDER BY place
        """
    ).to_arrow_table()
    db.unregister("chosen")
    return table
