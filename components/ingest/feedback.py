"""What each event says of the item that was shown: the column `feedback`, from the labels and their limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.ingest.config import EVENT_TYPE, IngestConfig
from components.ingest.staging import column_names
from rankline import label_sql
from rankline.errors import SourceError
from rankline.io.sql import fetch_row, identifier
from rankline.labels import FEEDBACK, Label

Labels = dict[str, Label]
GROUPS = {"positives": f"{FEEDBACK} > 0", "negatives": f"{FEEDBACK} = 0", "neither": f"{FEEDBACK} IS NULL"}


def create_scored_events(db: Any, config: IngestConfig) -> Labels:
    """Create the view `scored_events`: `window_events` with their feedback, if they have labels; returns the labels.

    A limit that is a quantile, and a scale that is not set, become those of the data.
    """
    columns = column_names(db, "window_events")
    labels = {} if config.only_items else {k: each for k, each in config.effective_labels().items() if k in columns}
    labels = {name: _resolved(db, name, label) for name, label in labels.items()}
    scored = f", {label_sql.feedback(labels)} AS {FEEDBACK}" if labels else ""
    if "position" in columns and config.columns.position:  # a log that counts from 0 is read as from 1
        scored = f" REPLACE (position + (SELECT (min(position) = 0)::INTEGER FROM good_events) AS position){scored}"
    db.execute(f"CREATE VIEW scored_events AS SELECT *{scored} FROM window_events")
    return labels


def _resolved(db: Any, name: str, label: Label) -> Label:
    """A label with its limit and scale as the data has them."""
    column, changes = identifier(name), dict[str, Any]()
    if label.at_quantile is not None:
        limit = label_sql.quantile_limit(
            db, name, label.at_quantile, value=column, rows="window_events", error=SourceError
        )
        changes = {"at_least": limit, "at_quantile": None}
    if label.type == "graded" and label.scale is None:
        low, high = fetch_row(db, f"SELECT min({column}), max({column}) FROM window_events")
        if low is not None and low < high:
            changes["scale"] = (low, high)
    return label.model_copy(update=changes)


def count_feedback(db: Any, labels: Mapping[str, Label]) -> dict[str, Any]:
    """Positives, negatives and what is kept out of learning: in all, per type of event, and per label."""
    if not labels:
        return {}
    filters = ", ".join(f"count(*) FILTER ({condition})" for condition in GROUPS.values())
    counts: dict[str, Any] = dict(zip(GROUPS, fetch_row(db, f"SELECT {filters} FROM scored_events")))
    if EVENT_TYPE in column_names(db, "scored_events"):
        rows = db.execute(f"SELECT {EVENT_TYPE}, {filters} FROM scored_events GROUP BY ALL ORDER BY ALL").fetchall()
        counts["event_types"] = {kind: dict(zip(GROUPS, each)) for kind, *each in rows}
    counts["labels"] = {}
    for name, label in labels.items():
        column, fits = identifier(name), label_sql.counts(identifier(name), label)
        sums = f"count(*) FILTER ({fits}), count(*) FILTER (NOT {fits}), count(*) FILTER ({column} IS NULL)"
        *numbers, low, high = fetch_row(db, f"SELECT {sums}, min({column}), max({column}) FROM scored_events")
        counts["labels"][name] = dict(zip(("count", "do_not", "unknown"), numbers)) | {"low": low, "high": high}
    return counts


def check_feedback(counts: Mapping[str, Any], labels: Mapping[str, Label], *, declared: bool, where: str) -> None:
    """Refuse events of which nothing can be learnt.

    Raises:
        SourceError: no event is a positive, or a declared label has no value, or one value that says nothing.
    """
    rows = sum(counts[group] for group in GROUPS) if counts else 0
    if not rows:
        return
    if not counts["positives"]:
        values = ", ".join(f"{name} counts in {each['count']}" for name, each in counts["labels"].items())
        raise SourceError(
            "no event is a positive",
            expected="events in which a label of a weight above 0 counts: a click, a purchase, a rating",
            found=f"{counts['negatives']} negatives and {counts['neither']} that are neither ({values})",
            where=where,
            hint="check which values set a label (ingest.columns.labels, ingest.columns.event_types), and from which "
            "value on it counts (at_least of ingest.labels)",
        )
    for name, label in labels.items() if declared else ():
        numbers = counts["labels"][name]
        never_positive = label.weight > 0 and not numbers["count"]
        if never_positive or numbers["unknown"] == rows or (label.weight == 0 and numbers["low"] == numbers["high"]):
            raise SourceError(
                f"nothing can be learnt of the label {name}",
                expected="events in which it counts, and others in which it does not",
                found=f"it counts in {numbers['count']} events, does not in {numbers['do_not']}, and has no value in "
                f"{numbers['unknown']}",
                where=where,
                hint=f"check its column or event type, set ingest.labels.{name}.at_least, or leave the label out",
            )
