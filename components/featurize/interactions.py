"""The log of users' events as arrays, and its split by the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from components.featurize import split
from components.featurize.config import FeaturizeConfig
from components.featurize.feedback import Feedback, read_shown
from components.featurize.split import Ints, Log, Split
from rankline import contracts
from rankline.errors import TooSmall, ValidationFailed

WITHIN_BASKETS = 0.5  # share of the test requests from which on featurize warns that they ask for lines of an order


@dataclass(frozen=True)
class Interactions:
    """The log of users' events, with the ids and items that its codes stand for.

    ``ratings`` [n], ``queries`` [n] and ``rows`` [n] are in the log's order: 0 without a rating, -1 without a query,
    and the row of each event in events.parquet. ``feedback`` is none if every event is a positive.
    """

    log: Log
    user_ids: pa.Array
    items: pa.Table
    ratings: np.ndarray
    queries: Ints
    query_ids: pa.Array
    rows: Ints
    feedback: Feedback | None = None

    @property
    def item_ids(self) -> pa.Array:
        """[I] item ids by code: an item's row is its code."""
        return self.items["item_id"].combine_chunks()


def read_log(db: Any, clean: Path) -> Interactions:
    """Read users' events from the table `events`, and items from the clean folder.

    Raises:
        ValidationFailed: events name unknown items.
    """
    items = parquet.read_table(clean / "items.parquet")
    has_feedback = "exposure" in db.table("events").columns
    feedback_columns = ", feedback::FLOAT AS feedback, own_rating, exposure" if has_feedback else ""
    events = db.sql(
        f"SELECT user_id, query_id, item_id, at_us, known_us, coalesce(rating, 0)::FLOAT AS rating, row"
        f"{feedback_columns} FROM events WHERE user_id IS NOT NULL ORDER BY at_us, row"
    ).to_arrow_table()
    item_codes = pc.index_in(events["item_id"], value_set=items["item_id"])
    if item_codes.null_count:
        unknown = events["item_id"].filter(pc.is_null(item_codes))
        raise ValidationFailed(
            "events name items that are not in the catalogue",
            expected="every item_id of events.parquet in items.parquet",
            found=f"{len(unknown)} events, such as item {unknown[0].as_py()!r}",
            where=str(clean),
            hint="run ingest again, which rejects such events",
        )
    # sorted, so that an event that was not known yet cannot change the order of users
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
    feedback = _feedback(db, events, order, items["item_id"]) if has_feedback else None
    ratings, rows = events["rating"].to_numpy()[order], events["row"].to_numpy()[order]
    return Interactions(log, user_ids, items, ratings, queries[order], query_ids, rows, feedback)


def _feedback(db: Any, events: pa.Table, order: Ints, item_ids: pa.ChunkedArray) -> Feedback:
    """What the log's positives weigh, and what was shown beside them."""
    shown = read_shown(db)
    codes = pc.index_in(shown["item_id"], value_set=item_ids)
    in_catalogue = pc.is_valid(codes)
    owners = shown["exposure"].filter(in_catalogue).to_numpy().astype(np.int64)
    exposures = events["exposure"].to_numpy().astype(np.int64)[order]
    count = int(max(exposures.max(initial=-1), owners.max(initial=-1))) + 1
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))])
    items = codes.filter(in_catalogue).to_numpy().astype(np.int64)
    weights, ratings = (events[name].to_numpy()[order] for name in ("feedback", "own_rating"))
    return Feedback(weights, ratings, exposures, items, offsets)


def log_split(log: Log, config: FeaturizeConfig) -> Split:
    """Split the log as the settings say."""
    settings: dict[str, Any] = {
        "min_history": config.min_history,
        "per_user": config.train_requests_per_user,
        "baskets": config.baskets,
    }
    if config.split == "leave_last_out":
        return split.leave_last_out(log, **settings)
    return split.time_cut(log, **settings, **_cut_times(log, config))


def basket_warning(share: float) -> dict[str, Any]:
    """What the step's result says of a split that asks for the next line of an order; nothing where it hardly does."""
    if share < WITHIN_BASKETS:
        return {}
    return {
        "warning": f"{share:.0%} of the test requests ask for the next line of an order: their history has events of "
        "the same time. What is measured is not what a user orders next: set featurize.baskets=true, or "
        "featurize.split=time_cut"
    }


def _cut_times(log: Log, config: FeaturizeConfig) -> dict[str, Any]:
    if not len(log.time_us):
        return dict.fromkeys(("cut", "valid_until", "test_until"), 0)
    if config.cut is None or config.valid_until is None:
        times = split.quantile_cuts(log.time_us, train_share=config.train_share, valid_share=config.valid_share)
    else:
        end = _us(config.test_until) if config.test_until else int(log.time_us.max()) + 1
        times = (_us(config.cut), _us(config.valid_until), end)
    return dict(zip(("cut", "valid_until", "test_until"), times))


def split_definition(log: Log, config: FeaturizeConfig) -> dict[str, Any]:
    """How the log was split, with the times in use."""
    names = {"split", "min_history", "train_requests_per_user", "seed", *(["baskets"] if config.baskets else [])}
    settings = config.model_dump(mode="json", include=names)
    if config.split == "leave_last_out":
        return settings
    return {**settings, **{name: iso(time) for name, time in _cut_times(log, config).items()}}


def counts(log_split: Split, query_counts: Mapping[str, int]) -> dict[str, Any]:
    """Requests per split, of users and of queries together, and the number of train events."""
    log_counts = split.counts(log_split)
    return {
        **log_counts,
        "requests": {name: number + query_counts[name] for name, number in log_counts["requests"].items()},
    }


def check_split_sizes(counts: Mapping[str, int], config: FeaturizeConfig) -> None:
    """Raise TooSmall if a split has fewer requests than ``config.min_requests``."""
    if min(counts.values()) < config.min_requests:
        raise TooSmall(
            f"the data is too small to split by {config.split}",
            expected=f"at least {config.min_requests} requests in each of {', '.join(contracts.SPLITS)}",
            found=", ".join(f"{count} {name}" for name, count in counts.items()),
            hint="add events (a wider data window) or queries, or lower featurize.min_requests; for requests of users "
            "you can also lower featurize.min_history or choose the other featurize.split",
        )


def train_counts(interactions: Interactions, log_split: Split) -> Ints:
    """[I] train events per item."""
    return np.bincount(interactions.log.items[log_split.train], minlength=len(interactions.items))


def categories(items: pa.Table) -> list[str]:
    """Every category of an item, sorted."""
    names = pc.unique(pc.list_flatten(items["category"].combine_chunks()))
    return sorted(name for name in names.to_pylist() if name is not None)


def iso(time_us: int) -> str:
    """Microseconds since 1970 as an ISO time in UTC."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()


def _us(time: datetime) -> int:
    return round(time.timestamp() * 1e6)
