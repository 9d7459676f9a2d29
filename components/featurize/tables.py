"""Arrow tables of featurize: requests, entity rows for the feature store, sequences and negatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from components.featurize.interactions import Interactions
from components.featurize.split import DAY_US, Ints, Lists, Requests, Split
from rankline import contracts
from rankline.features import transforms
from rankline.features.profile import CONTEXT, PROFILE


@dataclass(frozen=True)
class RequestTable:
    """Requests without the features of the store, their times in µs, and the rows of the events they are made at."""

    table: pa.Table
    time_us: Ints
    event_rows: Ints

    def part(self, start: int, stop: int) -> RequestTable:
        """The requests ``start`` to ``stop``."""
        rows = slice(start, stop)
        return RequestTable(self.table.slice(start, stop - start), self.time_us[rows], self.event_rows[rows])

    def with_column(self, name: str, values: Any) -> RequestTable:
        """The same requests with another column."""
        return replace(self, table=self.table.append_column(name, values))


def arrow_lists(lists: Lists, values: Any) -> pa.ListArray:
    """Arrow lists of the ``values`` [n] of the log's events at the lists' positions."""
    selected = values.take(pa.array(lists.values)) if isinstance(values, pa.Array) else pa.array(values[lists.values])
    if pa.types.is_dictionary(selected.type):
        selected = selected.dictionary_decode()
    return pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), selected)


def requests(
    interactions: Interactions, log_split: Split, query_texts: Mapping[str, str], *, max_history: int
) -> RequestTable:
    """The R requests: user, time, query, history, items seen by then, and targets.

    A request with a query (``query_texts``: query id -> words) has only the items that answered it as targets.
    """
    log, matching = interactions.log, _matching_targets(log_split.requests, interactions.queries)
    codes = interactions.queries[matching.position]
    query_ids = interactions.query_ids.take(pa.array(codes, mask=codes < 0))
    time_us = log.time_us[matching.position]
    users = interactions.user_ids.take(pa.array(log.users[matching.position]))
    names = [contracts.SPLITS[code] for code in matching.split]
    positions = matching.position - log.starts[matching.position]
    # dictionary-encoded: only the names that this part of the requests needs are written out
    items = pa.DictionaryArray.from_arrays(pa.array(log.items), interactions.item_ids, safe=False)
    history = matching.seen.last(max_history)
    target_ratings = interactions.feedback.ratings if interactions.feedback else interactions.ratings
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
            "history_items": arrow_lists(history, items),
            "history_times": arrow_lists(history, log.seconds),
            "history_ratings": arrow_lists(history, interactions.ratings),
            "seen": arrow_lists(matching.seen, items),
            "targets": arrow_lists(matching.targets, items),
            "target_ratings": arrow_lists(matching.targets, target_ratings),
            "snapshot": (time_us // DAY_US) * 86_400.0,
        }
    )
    if interactions.feedback is not None:
        weights, count = interactions.feedback.weights, len(interactions.items)
        shown = interactions.feedback.shown_lists(matching, log.items, count=count)
        table = table.append_column("target_weights", arrow_lists(matching.targets, weights))
        table = table.append_column("shown", arrow_lists(shown, interactions.item_ids))
    return RequestTable(table, time_us, interactions.rows[matching.position])


def _matching_targets(requests: Requests, queries: Ints) -> Requests:
    """The requests with only the targets that share their query; a request without a query keeps all targets."""
    wanted = queries[requests.position][requests.targets.owners]
    keep = (wanted < 0) | (queries[requests.targets.values] == wanted)
    targets = Lists.from_owners(requests.targets.values[keep], requests.targets.owners[keep], len(requests.position))
    return replace(requests, targets=targets)


def user_entity_rows(request_table: RequestTable) -> pa.Table:
    """The entity rows of users: user, time, and the request's own data."""
    history = request_table.table["history_times"]
    lengths = pc.list_value_length(history).to_numpy()
    # the last entry stands for no event: what is shown to a user may be the first
    times = np.append(pc.list_flatten(history).to_numpy(), 0.0)
    ends = np.where(lengths > 0, np.cumsum(lengths) - 1, len(times) - 1)
    return pa.table(
        {
            "user_id": request_table.table["user_id"],
            "event_timestamp": pa.array(request_table.time_us).cast(contracts.UTC_TIMESTAMP),
            "request_time": request_table.table["at"],
            "last_event_time": times[ends],
            "history_length": lengths.astype(np.float64),
        }
    )


def item_entity_rows(
    time_us: Ints, interactions: Interactions, sources: Path, *, chunk: int
) -> tuple[int, Iterator[pa.Table]]:
    """The entity rows of items: each request day with every item that the store knew by then.

    Returns the number of rows, and parts of about ``chunk`` rows. The rows go item by item in the order of ids, so
    that each part needs only its part of the sources.
    """
    first = np.full(len(interactions.items), np.iinfo(np.int64).max)
    for view in ("item_popularity", "item_content"):
        with parquet.ParquetFile(sources / f"{view}.parquet") as file:
            for batch in file.iter_batches(1 << 20, columns=["item_id", "event_timestamp"]):
                codes = pc.index_in(batch["item_id"], value_set=interactions.item_ids).to_numpy()
                np.minimum.at(first, codes, batch["event_timestamp"].cast(pa.int64()).to_numpy())
    days = np.unique(time_us // DAY_US) * DAY_US
    order = pc.sort_indices(interactions.item_ids).to_numpy().astype(np.int64)
    begins = np.searchsorted(days, first[order])  # index of the first day on which the item is known

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
    """The columns with 0, or an empty list, in place of nulls."""
    out: dict[str, Any] = {}
    for name in columns.column_names:
        column = columns[name]
        if name.startswith((PROFILE, CONTEXT)):  # what is unknown stays unknown
            out[name] = column
        elif pa.types.is_list(column.type):
            lists = column.combine_chunks()
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            out[name] = pa.ListArray.from_arrays(offsets, pc.list_flatten(lists))
        else:
            out[name] = pc.fill_null(column.cast(pa.float64()), 0.0)
    return out


def with_features(request_table: RequestTable, features_table: pa.Table) -> pa.Table:
    """The requests with the features of their users and times."""
    return pa.table({**_columns(request_table.table), **_fill_missing(features_table)})


def with_item_features(item_rows: pa.Table, features_table: pa.Table) -> pa.Table:
    """(snapshot, item_id, features) of each item on each request day."""
    seconds = item_rows["event_timestamp"].cast(pa.int64()).to_numpy() / 1e6
    return pa.table({"snapshot": seconds, "item_id": item_rows["item_id"], **_fill_missing(features_table)})


def sequences(interactions: Interactions, log_split: Split) -> pa.Table:
    """One row per user with train events: those events, oldest first."""
    log = interactions.log
    train = np.flatnonzero(log_split.train)
    users, owners = np.unique(log.users[train], return_inverse=True)
    lists = Lists.from_owners(train, owners, len(users))
    columns = {
        "user_id": interactions.user_ids.take(pa.array(users)),
        "item_ids": arrow_lists(lists, interactions.item_ids.take(pa.array(log.items))),
        "times": arrow_lists(lists, log.seconds),
        "ratings": arrow_lists(lists, interactions.ratings),
    }
    if interactions.feedback is not None:
        columns["weights"] = arrow_lists(lists, interactions.feedback.weights)
    return pa.table(columns)


def negatives(interactions: Interactions, request_table: RequestTable, drawn: Lists) -> pa.Table:
    """The sampled items of each request."""
    return pa.table(
        {"request_id": request_table.table["request_id"], "item_ids": arrow_lists(drawn, interactions.item_ids)}
    )


def empty_negatives() -> pa.Table:
    """No rows: the negatives of a query are found by its words, in training."""
    return pa.table({"request_id": pa.array([], pa.string()), "item_ids": pa.array([], pa.list_(pa.string()))})


def feature_lists() -> dict[str, Mapping[str, Any]]:
    return {
        "features": {
            "user": list(transforms.USER),
            "item": list(transforms.ITEM),
            "context": list(transforms.CONTEXT),
            "affinity": ["affinity_categories", "affinity_shares"],
        }
    }


def _columns(table: pa.Table) -> dict[str, Any]:
    return {name: table[name] for name in table.column_names}
