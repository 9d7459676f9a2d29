"""The labels of the events, and the exposures in which they happened: what one request showed.

The rows of one request and item (it was shown, clicked, bought) are one exposure; its labels are the largest of them.
Rows with a request id are of the request that it names. Without one, what was shown to a user, or for a query, belongs
to the positive that follows within a window, and what follows a positive begins the next request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as parquet

from components.featurize.split import DAY_US, Ints, Lists, Requests
from rankline import label_sql
from rankline.contracts import LABELS
from rankline.errors import ValidationFailed
from rankline.io.sql import identifier
from rankline.labels import FEEDBACK, Label, effective_labels

MAX_RECURRING = 0.05  # share of the requests of a user whose id may be used again on another day
MAX_SHOWN = 200  # rows of a request without an id, after which the next one begins


@dataclass(frozen=True)
class Labels:
    """The labels of a clean folder: declared by the recipe, and those that decide what a positive is.

    ``types`` says whether each row is of one type, so that what was shown and what followed are rows of their own;
    ``quantiles`` are the limits that were declared as such.
    """

    declared: Mapping[str, Label]
    effective: Mapping[str, Label]
    types: bool
    quantiles: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, clean: Path) -> Labels:
        """The labels of the events in a clean folder; none, if every event is a positive."""
        columns = parquet.read_schema(clean / "events.parquet").names
        summary = json.loads((clean / "summary.json").read_text()) if FEEDBACK in columns else {}
        if "feedback" not in summary:  # a column of that name may be the user's own
            return cls({}, {}, types=False)
        known = summary["labels"] if isinstance(summary["labels"], dict) else {}
        declared = {name: Label(**settings) for name, settings in known.items()}
        present = [name for name in LABELS if name in columns]
        has_types, quantiles = "event_types" in summary["feedback"], summary.get("quantiles", {})
        return cls(declared, effective_labels(declared, present), types=has_types, quantiles=quantiles)


def label_column(name: str) -> str:
    """The column of a label in the tables of DuckDB."""
    return identifier(f"label_{name}")


@dataclass(frozen=True)
class Feedback:
    """What the log's n positives weigh, their ratings on their own scale, and which of the E exposures each is in.

    Exposure e also showed the items ``shown[offsets[e]:offsets[e + 1]]`` (codes), of which none was a positive.
    """

    weights: npt.NDArray[np.float32]
    ratings: npt.NDArray[np.float32]
    exposures: Ints
    shown: Ints
    offsets: Ints

    def shown_lists(self, requests: Requests, items: Ints, *, count: int) -> Lists:
        """Codes of the items that the exposures of each request's targets showed, without targets; of ``count`` items.

        ``items`` [n] are the log's.
        """
        exposures, owners = self.exposures[requests.targets.values], requests.targets.owners
        lengths = np.diff(self.offsets)[exposures]
        starts = np.repeat(self.offsets[exposures] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        shown = self.shown[starts + np.arange(len(starts))] if len(exposures) else np.zeros(0, np.int64)
        cells = np.unique(np.repeat(owners, lengths) * count + shown)
        cells = cells[~np.isin(cells, owners * count + items[requests.targets.values])]
        return Lists.from_owners(cells % count, cells // count, len(requests.position))


def create_tables(db: Any, labels: Labels, *, window_s: int) -> None:
    """Create `grouped` (row, exposure), `exposed` (one row per exposure and item) and `events`, the positives.

    They are made from `logged`. A positive that a label of its own exposure takes back (it was put into the cart and
    removed again) is none. What happens later than the window says nothing of a positive: a return of next week is not
    known to the histories of this week.

    Raises:
        ValidationFailed: request ids recur on other days.
    """
    window_us = window_s * 1_000_000
    _refuse_recurring_requests(db, labels)
    db.execute(f"CREATE TABLE grouped AS {_grouped_query(labels, window_us)}")
    values = ", ".join(f"max({label_column(name)}) AS {label_column(name)}" for name in labels.effective)
    feedback = label_sql.feedback(labels.effective, label_column)
    db.execute(
        f"""
        CREATE TABLE exposed AS SELECT *, {feedback} AS feedback FROM (
            SELECT exposure, item_id, min(row) AS row, max(own_rating) AS rating, min(position) AS position, {values}
            FROM grouped JOIN logged USING (row) GROUP BY exposure, item_id);
        CREATE TABLE events AS
        WITH positives AS (
            SELECT row, exposure, item_id, at_us + {window_us} AS until_us FROM grouped JOIN logged USING (row)
            WHERE feedback > 0),
        weighed AS (
            SELECT positive AS row, {feedback} AS feedback FROM (
                SELECT positives.row AS positive, {values}
                FROM positives JOIN grouped ON grouped.exposure = positives.exposure
                JOIN logged ON logged.row = grouped.row AND logged.item_id = positives.item_id AND at_us <= until_us
                GROUP BY positives.row))
        SELECT logged.* EXCLUDE (feedback), exposure, weighed.feedback
        FROM logged JOIN grouped USING (row) JOIN weighed USING (row)
        WHERE weighed.feedback > 0 ORDER BY logged.row
        """
    )


def _refuse_recurring_requests(db: Any, labels: Labels) -> None:
    """Refuse request ids that name a page rather than a request: days later they show items to the same user again."""
    in_vain = f"feedback = 0 AND NOT {label_sql.is_against(labels.effective, label_column)}"
    requests, recurring, example = db.sql(
        f"""
        SELECT count(*), count(*) FILTER (spread_us > {DAY_US}), any_value(request_id) FILTER (spread_us > {DAY_US})
        FROM (
            SELECT request_id, max(at_us) FILTER ({in_vain}) - min(at_us) FILTER ({in_vain}) AS spread_us
            FROM logged WHERE request_id IS NOT NULL GROUP BY user_id, request_id)
        """
    ).fetchall()[0]
    if recurring > MAX_RECURRING * requests:
        raise ValidationFailed(
            "request ids are used again on other days",
            expected=f"ids of one request each, but for {MAX_RECURRING:.0%} of them",
            found=f"{recurring} of {requests} requests of a user show items more than a day apart, such as {example!r}",
            where="ingest.columns.request_id",
            hint="leave it empty, so that time tells requests apart, or join the id with the day in the source",
        )


def _grouped_query(labels: Labels, window_us: int) -> str:
    """(row, exposure) of every row that has a label."""
    known = " OR ".join(f"{label_column(name)} IS NOT NULL" for name in labels.effective)
    # the same item in the same request: what was shown belongs to the positive that follows it, what takes a positive
    # back or tells more of it, to the one before
    same_item = "PARTITION BY user_id, query_id, item_id, request_id ORDER BY at_us RANGE BETWEEN"
    positive = "CASE WHEN feedback > 0 THEN at_us END"
    request = "PARTITION BY user_id, party, request_id"
    return f"""
        WITH steps AS (
            SELECT row, user_id, query_id, item_id, request_id, at_us, feedback,
                {label_sql.is_against(labels.effective, label_column)} AS against
            FROM logged WHERE {known}),
        near AS (
            SELECT *, CASE
                WHEN request_id IS NOT NULL OR feedback > 0 THEN at_us
                WHEN against OR feedback IS NULL
                    THEN max({positive}) OVER ({same_item} {window_us} PRECEDING AND CURRENT ROW)
                ELSE min({positive}) OVER ({same_item} CURRENT ROW AND {window_us} FOLLOWING) END AS positive_us
            FROM steps),
        placed AS (
            SELECT row, user_id, CASE WHEN request_id IS NULL THEN query_id END AS party, request_id,
                coalesce(positive_us, at_us) AS place_us, positive_us IS NOT NULL AS answered
            FROM near WHERE NOT (feedback IS NULL AND positive_us IS NULL)),
        cuts AS (
            SELECT *, request_id IS NULL AND coalesce(
                place_us - lag(place_us) OVER run > {window_us}
                OR NOT answered AND lag(answered) OVER run AND place_us > lag(place_us) OVER run, false) AS cut
            FROM placed WINDOW run AS ({request} ORDER BY place_us, answered, row)),
        runs AS (
            SELECT *, sum(cut::INTEGER) OVER ({request} ORDER BY place_us, answered, row) AS run FROM cuts),
        parts AS (
            SELECT *, CASE WHEN request_id IS NULL THEN
                (row_number() OVER ({request}, run ORDER BY place_us, answered, row) - 1) // {MAX_SHOWN} END AS part
            FROM runs)
        SELECT row, dense_rank() OVER (ORDER BY user_id, party, request_id, run, part) - 1 AS exposure FROM parts"""


def read_shown(db: Any) -> Any:
    """(exposure, item_id): what the exposures of users' positives showed in vain."""
    return db.sql(
        """
        SELECT exposure, item_id FROM exposed
        WHERE feedback = 0 AND exposure IN (SELECT exposure FROM events WHERE user_id IS NOT NULL)
        ORDER BY exposure, row
        """
    ).to_arrow_table()
