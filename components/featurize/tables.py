"""Between a log in arrays and the tables that other steps read (the `features` artifact).

Shapes: n events of users, R requests, I items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from components.featurize import split
from components.featurize.config import FeaturizeConfig
from components.featurize.split import Ints, Lists, Log, Requests, Split
from feature_repo.item import CONTENT
from rankline import contracts
from rankline.errors import TooSmall, ValidationFailed
from rankline.features import transforms

DAY_US = 86_400 * 1_000_000

USER_FEATURE_REFS = (
    *(f"user_activity:{name}" for name in transforms.USER),
    "user_category_affinity:affinity_categories",
    "user_category_affinity:affinity_shares",
    *(f"request_context:{name}" for name in transforms.CONTEXT),
)
ITEM_FEATURE_REFS = tuple(f"item_{'content' if name in CONTENT else 'popularity'}:{name}" for name in transforms.ITEM)


@dataclass(frozen=True)
class Interactions:
    """The log of users' events and what its codes stand for.

    ``ratings`` [n] and ``queries`` [n] are in the log's order: 0 where nothing was rated, and the code of what was
    asked in words, -1 where nothing was.
    """

    log: Log
    user_ids: pa.Array
    items: pa.Table
    ratings: np.ndarray
    queries: Ints
    query_ids: pa.Array

    @property
    def item_ids(self) -> pa.Array:
        """[I] the row of an item is its code."""
        return self.items["item_id"].combine_chunks()


@dataclass(frozen=True)
class RequestTable:
    """The requests as a table, without the features that come from the store, and their moments in µs."""

    table: pa.Table
    time_us: Ints


def read_log(db: Any, clean: Path) -> Interactions:
    """Users' events from the table `events`, items from the clean folder.

    Raises:
        ValidationFailed: events name items that the catalogue lacks.
    """
    items = parquet.read_table(clean / "items.parquet")
    events = db.sql(
        "SELECT user_id, query_id, item_id, at_us, known_us, coalesce(rating, 0)::FLOAT AS rating "
        "FROM events WHERE user_id IS NOT NULL ORDER BY at_us, row"
    ).to_arrow_table()
    item_codes = pc.index_in(events["item_id"], value_set=items["item_id"])
    if item_codes.null_count:
        unknown = events["item_id"].filter(pc.is_null(item_codes))
        raise ValidationFailed(
            "events name items that the catalogue lacks",
            expected="every item_id of events.parquet in items.parquet",
            found=f"{len(unknown)} events, such as item {unknown[0].as_py()!r}",
            where=str(clean),
            hint="run validate, which sets such events aside",
        )
    # sorted, so that an event nobody knew of yet does not even change the order of users
    user_ids = pc.unique(events["user_id"]).sort()
    codes = pc.index_in(events["user_id"], value_set=user_ids).to_numpy().astype(np.int64)
    log = Log.of(
        users=codes,
        items=item_codes.to_numpy().astype(np.int64),
        time_us=events["at_us"].to_numpy(),
        known_us=events["known_us"].to_numpy(),
    )
    order = np.argsort(codes, kind="stable")
    query_ids = pc.unique(events["query_id"]).drop_null()
    queries = pc.fill_null(pc.index_in(events["query_id"], value_set=query_ids), -1).to_numpy().astype(np.int64)
    return Interactions(log, user_ids, items, events["rating"].to_numpy()[order], queries[order], query_ids)


def log_split(log: Log, config: FeaturizeConfig) -> Split:
    """The split that the config asks for."""
    settings = {"min_history": config.min_history, "per_user": config.train_requests_per_user}
    if config.split == "leave_last_out":
        return split.leave_last_out(log, **settings)
    return split.time_cut(log, **_cut_times(log, config), **settings)


def _cut_times(log: Log, config: FeaturizeConfig) -> dict[str, int]:
    if not len(log.time_us):
        return dict.fromkeys(("cut", "valid_until", "test_until"), 0)
    if config.cut is None or config.valid_until is None:
        times = split.quantile_cuts(log.time_us, train_share=config.train_share, valid_share=config.valid_share)
    else:
        end = _us(config.test_until) if config.test_until else int(log.time_us.max()) + 1
        times = (_us(config.cut), _us(config.valid_until), end)
    return dict(zip(("cut", "valid_until", "test_until"), times))


def split_definition(log: Log, config: FeaturizeConfig) -> dict[str, Any]:
    """What was done, for people to read."""
    settings = config.model_dump(mode="json", include={"split", "min_history", "train_requests_per_user", "seed"})
    if config.split == "leave_last_out":
        return settings
    return {**settings, **{name: iso(time) for name, time in _cut_times(log, config).items()}}


def counts(log_split: Split, query_counts: Mapping[str, int]) -> dict[str, Any]:
    """Requests a split, those of users and those in words together, and the events to learn from."""
    log_counts = split.counts(log_split)
    return {
        **log_counts,
        "requests": {name: number + query_counts[name] for name, number in log_counts["requests"].items()},
    }


def check_split_sizes(found: Mapping[str, int], config: FeaturizeConfig) -> None:
    """Raise TooSmall where a split has fewer requests than the config asks for."""
    if min(found.values()) < config.min_requests:
        raise TooSmall(
            f"the data is too small to split by {config.split}",
            expected=f"at least {config.min_requests} requests in each of {', '.join(contracts.SPLITS)}",
            found=", ".join(f"{count} {name}" for name, count in found.items()),
            hint="give more events (a wider data window) or queries, or lower featurize.min_requests; where users ask, "
            "lower featurize.min_history or choose the other featurize.split",
        )


def _arrow_lists(lists: Lists, values: Any) -> pa.ListArray:
    """Arrow lists with ``values`` [n] (of the log's events) in place of positions."""
    selected = values.take(pa.array(lists.values)) if isinstance(values, pa.Array) else pa.array(values[lists.values])
    if pa.types.is_dictionary(selected.type):
        selected = selected.dictionary_decode()
    return pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), selected)


def requests(
    interactions: Interactions, log_split: Split, query_texts: Mapping[str, str], *, max_history: int
) -> RequestTable:
    """The R requests: who, when, in which words, with which history, what was seen by then, what followed.

    Where words were asked (``said``: query id -> words), only what answered these words is a target.
    """
    log, matching = interactions.log, _matching_targets(log_split.requests, interactions.queries)
    codes = interactions.queries[matching.position]
    query_ids = interactions.query_ids.take(pa.array(codes, mask=codes < 0))
    time_us = log.time_us[matching.position]
    users = interactions.user_ids.take(pa.array(log.users[matching.position]))
    names = [contracts.SPLITS[code] for code in matching.split]
    positions = matching.position - log.starts[matching.position]
    # only the names that are asked for are written out: this is called for a part of the requests at a time
    items = pa.DictionaryArray.from_arrays(pa.array(log.items), interactions.item_ids, safe=False)
    history = matching.seen.last(max_history)
    table = pa.table(
        {
            "request_id": [
                f"{name}:{user}:{position}" for name, user, position in zip(names, users.to_pylist(), positions)
            ],
            "split": names,
            "user_id": users,
            "query_id": query_ids,
            "query": pa.array([query_texts.get(each) if each else None for each in query_ids.to_pylist()], pa.string()),
            "at": time_us / 1e6,
            "history_items": _arrow_lists(history, items),
            "history_times": _arrow_lists(history, log.seconds),
            "history_ratings": _arrow_lists(history, interactions.ratings),
            "seen": _arrow_lists(matching.seen, items),
            "targets": _arrow_lists(matching.targets, items),
            "target_ratings": _arrow_lists(matching.targets, interactions.ratings),
            "snapshot": (time_us // DAY_US) * 86_400.0,
        }
    )
    return RequestTable(table, time_us)


def _matching_targets(requests: Requests, queries: Ints) -> Requests:
    """The requests with only those targets that share their request's query; all of them where it has none."""
    wanted = queries[requests.position][requests.targets.owners]
    keep = (wanted < 0) | (queries[requests.targets.values] == wanted)
    targets = Lists.from_owners(requests.targets.values[keep], requests.targets.owners[keep], len(requests.position))
    return replace(requests, targets=targets)


def user_entity_rows(request_table: RequestTable) -> pa.Table:
    """What the store is asked about users: who, when, and the request's own data."""
    history = request_table.table["history_times"]
    lengths = pc.list_value_length(history).to_numpy()
    # min_history is at least 1, so every request has a last event
    ends = np.cumsum(lengths) - 1
    return pa.table(
        {
            "user_id": request_table.table["user_id"],
            "event_timestamp": pa.array(request_table.time_us).cast(contracts.UTC_TIMESTAMP),
            "request_time": request_table.table["at"],
            "last_event_time": pc.list_flatten(history).to_numpy()[ends],
            "history_length": lengths.astype(np.float64),
        }
    )


def item_entity_rows(
    at: Ints, interactions: Interactions, sources: Path, *, chunk: int
) -> tuple[int, Iterator[pa.Table]]:
    """What the store is asked about items: each day of ``at`` with every item of which something was known.

    How many rows there are, and about ``chunk`` of them at a time: item by item in the order of their names,
    so that each part needs only its part of the sources.
    """
    first = np.full(len(interactions.items), np.iinfo(np.int64).max)
    for view in ("item_popularity", "item_content"):
        with parquet.ParquetFile(sources / f"{view}.parquet") as file:
            for batch in file.iter_batches(1 << 20, columns=["item_id", "event_timestamp"]):
                codes = pc.index_in(batch["item_id"], value_set=interactions.item_ids).to_numpy()
                np.minimum.at(first, codes, batch["event_timestamp"].cast(pa.int64()).to_numpy())
    days = np.unique(at // DAY_US) * DAY_US
    order = pc.sort_indices(interactions.item_ids).to_numpy().astype(np.int64)
    begins = np.searchsorted(days, first[order])  # the first of the days at which something is known

    def parts() -> Iterator[pa.Table]:
        at_once = max(1, chunk // max(len(days), 1))
        for start in range(0, max(len(order), 1), at_once):
            codes, day_rows = np.nonzero(np.arange(len(days)) >= begins[start : start + at_once, None])
            yield pa.table(
                {
                    "item_id": interactions.item_ids.take(pa.array(order[start : start + at_once][codes])),
                    "event_timestamp": pa.array(days[day_rows]).cast(contracts.UTC_TIMESTAMP),
                }
            )

    return int((len(days) - begins).sum()), parts()


def _fill_missing(columns: pa.Table) -> dict[str, Any]:
    """Columns with 0, or an empty list, where nothing was known."""
    out: dict[str, Any] = {}
    for name in columns.column_names:
        column = columns[name]
        if pa.types.is_list(column.type):
            lists = column.combine_chunks()
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            out[name] = pa.ListArray.from_arrays(offsets, pc.list_flatten(lists))
        else:
            out[name] = pc.fill_null(column.cast(pa.float64()), 0.0)
    return out


def with_features(request_table: RequestTable, features_table: pa.Table) -> pa.Table:
    """The requests with what the store knew of their users and moments."""
    return pa.table({**_columns(request_table.table), **_fill_missing(features_table)})


def with_item_features(item_rows: pa.Table, features_table: pa.Table) -> pa.Table:
    """(snapshot, item_id, features): what the store knew of each item on each request day."""
    seconds = item_rows["event_timestamp"].cast(pa.int64()).to_numpy() / 1e6
    return pa.table({"snapshot": seconds, "item_id": item_rows["item_id"], **_fill_missing(features_table)})


def sequences(interactions: Interactions, log_split: Split) -> pa.Table:
    """One row a user who has train events: those events, oldest first."""
    log = interactions.log
    train = np.flatnonzero(log_split.train)
    users, owners = np.unique(log.users[train], return_inverse=True)
    lists = Lists.from_owners(train, owners, len(users))
    return pa.table(
        {
            "user_id": interactions.user_ids.take(pa.array(users)),
            "item_ids": _arrow_lists(lists, interactions.item_ids.take(pa.array(log.items))),
            "times": _arrow_lists(lists, log.seconds),
            "ratings": _arrow_lists(lists, interactions.ratings),
        }
    )


def train_counts(interactions: Interactions, log_split: Split) -> Ints:
    """[I] how often each item occurs in train."""
    return np.bincount(interactions.log.items[log_split.train], minlength=len(interactions.items))


def negatives(interactions: Interactions, request_table: RequestTable, drawn: Lists) -> pa.Table:
    """The items drawn for each request."""
    return pa.table(
        {"request_id": request_table.table["request_id"], "item_ids": _arrow_lists(drawn, interactions.item_ids)}
    )


def empty_negatives() -> pa.Table:
    """None: what queries are told apart from is found by their words."""
    return pa.table({"request_id": pa.array([], pa.string()), "item_ids": pa.array([], pa.list_(pa.string()))})


def categories(items: pa.Table) -> list[str]:
    """Every category that an item is in, sorted."""
    names = pc.unique(pc.list_flatten(items["category"].combine_chunks()))
    return sorted(name for name in names.to_pylist() if name is not None)


def feature_lists() -> dict[str, Mapping[str, Any]]:
    """The features by what they are of."""
    return {
        "features": {
            "user": list(transforms.USER),
            "item": list(transforms.ITEM),
            "context": list(transforms.CONTEXT),
            "affinity": ["affinity_categories", "affinity_shares"],
        }
    }


def iso(time_us: int) -> str:
    """Microseconds since 1970 as an ISO time in UTC."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()


def _us(time: datetime) -> int:
    return round(time.timestamp() * 1e6)


def _columns(table: pa.Table) -> dict[str, Any]:
    return {name: table[name] for name in table.column_names}
