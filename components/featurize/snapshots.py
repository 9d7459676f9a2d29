"""Daily snapshots of users and items, computed by DuckDB from events: the sources that Feast reads.

The snapshot of day D (00:00 UTC) counts events with event_timestamp < D and known_at <= D. An event enters at the
first such D, and leaves a window of w days w days after the day that follows it. Running sums over what enters and
leaves give every window at once, with a row on exactly those days on which a count changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.featurize import label_limits
from components.featurize.config import FeaturizeConfig
from components.featurize.feedback import Labels, create_tables, label_column
from components.featurize.parquet_writers import ParquetWriters
from components.featurize.split import DAY_US
from rankline.contracts import SPLIT
from rankline.features import rating_scale
from rankline.io.sql import identifier, literal
from rankline.labels import FEEDBACK

WINDOWS_D = (1, 7, 30)
DEFAULTS = FeaturizeConfig()

# Pseudo-events that fall evenly into a month's weeks: few events make no trend.
TREND_PRIOR = 10

# Events of the users that are processed at once, where the result is larger than its input.
PART_EVENTS = 1_000_000


def write(
    db: Any, sources: Path, *, max_history: int, affinity_categories: int, history_days: int | None = None
) -> dict[str, int]:
    """Write <view>.parquet for every feature view from `events` and `items` of ``db``; returns the rows of each.

    Histories are kept as they were on each of the last ``history_days`` of the data, and once before them; None keeps
    all days, which grows with the square of a user's activity.
    """
    sources.mkdir(parents=True)
    queries = {
        "user_activity": f"""
            SELECT user_id, {_count_columns("user")}, {_timestamp_columns("day")}
            FROM ({_rolling_counts("user_id")}) ORDER BY user_id, day""",
        "item_popularity": f"""
            SELECT item_id, {_count_columns("item")},
                (d7 + {TREND_PRIOR} * 7 / 30) / (d30 + {TREND_PRIOR}) - 7 / 30 AS item_trend,
                {_timestamp_columns("day")}
            FROM ({_rolling_counts("item_id")}) ORDER BY item_id, day""",
        "item_content": _CONTENT_QUERY,
    }
    rows = {name: _copy_to_parquet(db, query, sources / f"{name}.parquet") for name, query in queries.items()}

    parts = _partition_users(db)
    since = 0
    if history_days:
        ((newest,),) = db.execute(f"SELECT coalesce(max(known), 0) // {DAY_US} FROM user_events").fetchall()
        since = (newest - history_days) * DAY_US
    user_queries: dict[str, Callable[[int], str]] = {
        "user_category_affinity": lambda part: _affinity_query(part, affinity_categories),
        "user_history": lambda part: _history_query(part, since=since, max_history=max_history),
    }
    for name, query in user_queries.items():
        with ParquetWriters(sources) as writers:
            for part in range(parts):
                writers.write(name, db.sql(query(part)).to_arrow_table())
        rows |= writers.rows
    return rows


def _partition_users(db: Any) -> int:
    """Create the table `user_events` (user by user, numbered, the users in parts); returns the number of parts."""
    db.execute(
        f"""
        CREATE TEMP TABLE user_events AS
        WITH known AS (
            SELECT user_id, item_id, at_us, row, enters, coalesce(rating, 0)::FLOAT AS rating,
                greatest(at_us, known_us) AS known
            FROM events WHERE user_id IS NOT NULL),
        numbered AS (
            SELECT user_id, sum(count(*)) OVER (ORDER BY user_id) // {PART_EVENTS} AS part
            FROM known GROUP BY user_id)
        SELECT part, known.*, row_number() OVER (PARTITION BY user_id ORDER BY at_us, row) AS place
        FROM known JOIN numbered USING (user_id) ORDER BY part, user_id, place
        """
    )
    ((last,),) = db.execute("SELECT coalesce(max(part), 0) FROM user_events").fetchall()
    return int(last) + 1


def load_tables(db: Any, clean: Path, config: FeaturizeConfig = DEFAULTS) -> tuple[Labels, FeaturizeConfig]:
    """Create the tables `logged` and `events` (times in µs, with the day on which each enters) and `items`.

    `logged` are all events of a clean folder, `events` those that are positives: all of them without labels. Returns
    the labels and the settings, with the limits and the cut that follow from the training events.
    """
    import pyarrow.parquet as parquet

    labels = Labels.of(clean)
    columns = parquet.read_schema(clean / "events.parquet").names
    rating = rating_scale.history_label(labels.declared) or ("" if labels.declared else "rating")
    value = f"nullif({identifier(rating)}::DOUBLE, 'nan'::DOUBLE)" if rating in columns else "NULL::DOUBLE"
    stars = rating_scale.stars_sql(value, rating_scale.history_scale(labels.declared))
    db.execute(
        f"""
        CREATE TABLE logged AS
        SELECT *, at_us // {DAY_US} AS day,
            greatest(at_us // {DAY_US} + 1, (known_us + {DAY_US} - 1) // {DAY_US}) AS enters
        FROM (
            SELECT file_row_number AS row, user_id, query_id, item_id, ({stars})::DECIMAL(18, 6) AS rating,
                epoch_us(event_timestamp) AS at_us, epoch_us(known_at) AS known_us
                {_feedback_columns(labels, columns, value) if labels.effective else ""}
            FROM read_parquet($path, file_row_number = true))
        """,
        {"path": str(clean / "events.parquet")},
    )
    if labels.effective:
        labels, config = label_limits.fit(db, labels, config)
        create_tables(db, labels, window_s=config.impression_window_s)
    else:
        db.execute("CREATE VIEW events AS FROM logged")
    db.execute("CREATE TABLE items AS FROM read_parquet($path)", {"path": str(clean / "items.parquet")})
    return labels, config


def _feedback_columns(labels: Labels, columns: Sequence[str], rating: str) -> str:
    """SQL of what `logged` has of each event's feedback, request and labels; ``rating`` on its own scale."""
    request = "request_id" if "request_id" in columns else "NULL::VARCHAR AS request_id"
    split = SPLIT if SPLIT in columns else f"NULL::VARCHAR AS {SPLIT}"
    position = '"position"' if "position" in columns else "NULL::INTEGER AS position"
    values = [f"{identifier(name)} AS {label_column(name)}" for name in labels.effective]
    own_rating = f"coalesce({rating}, 0)::FLOAT AS own_rating"
    return ", ".join(["", FEEDBACK, request, position, split, own_rating, *values])


def _copy_to_parquet(db: Any, query: str, target: Path) -> int:
    return int(db.execute(f"COPY ({query}) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)").fetchone()[0])


def _timestamp_columns(day: str) -> str:
    """A snapshot is valid from the start of its day, and known then."""
    timestamp = f"make_timestamptz({day} * {DAY_US})"
    return f"{timestamp} AS event_timestamp, {timestamp} AS known_at"


def _count_columns(entity: str) -> str:
    windows = ", ".join(f"d{w}::DOUBLE AS {entity}_events_{w}d" for w in WINDOWS_D)
    return f"""{windows}, total::DOUBLE AS {entity}_events_total,
        coalesce(stars::DOUBLE / nullif(rated, 0), 0) AS {entity}_rating_mean"""


def _rolling_counts(key: str) -> str:
    """(key, day, total, rated, stars, d1, d7, d30) on each day on which one of the counts changes."""
    entering = ", ".join(f"(enters <= day + {w})::INT AS d{w}" for w in WINDOWS_D)
    expiring_rows = "\n".join(
        f"""UNION ALL SELECT {key}, day + 1 + {window}, 0, 0, 0,
            {", ".join("-1" if w == window else "0" for w in WINDOWS_D)}
            FROM events WHERE enters <= day + {window}"""
        for window in WINDOWS_D
    )
    columns = ["total", "rated", "stars", *(f"d{w}" for w in WINDOWS_D)]
    sums = ", ".join(f"sum({c}) AS {c}" for c in columns)
    running = ", ".join(f"sum({c}) OVER so_far AS {c}" for c in columns)
    return f"""
        SELECT {key}, day, {running}
        FROM (
            SELECT {key}, day, {sums}
            FROM (
                SELECT {key}, enters AS day, 1 AS total, (rating IS NOT NULL)::INT AS rated,
                    coalesce(rating, 0) AS stars, {entering}
                FROM events
                {expiring_rows})
            WHERE {key} IS NOT NULL
            GROUP BY {key}, day)
        WINDOW so_far AS (PARTITION BY {key} ORDER BY day)"""


def _affinity_query(part: int, keep: int) -> str:
    """The categories of the users of a part, with their share of the user's events so far, on each day on which an
    event enters."""
    return f"""
        WITH part_events AS (SELECT user_id, item_id, enters AS day FROM user_events WHERE part = {part}),
        days AS (
            SELECT user_id, day, sum(count(*)) OVER (PARTITION BY user_id ORDER BY day) AS total
            FROM part_events GROUP BY user_id, day),
        grown AS (
            SELECT user_id, day, category, count(*) AS events
            FROM part_events
            JOIN (SELECT item_id, unnest(list_distinct(category)) AS category FROM items) USING (item_id)
            GROUP BY ALL),
        so_far AS (
            SELECT user_id, day, total, category,
                sum(coalesce(events, 0)) OVER (PARTITION BY user_id, category ORDER BY day) AS events
            FROM days JOIN (SELECT DISTINCT user_id, category FROM grown) USING (user_id)
            LEFT JOIN grown USING (user_id, day, category)),
        best AS (
            SELECT * FROM so_far WHERE events > 0
            QUALIFY row_number() OVER (PARTITION BY user_id, day ORDER BY events DESC, category) <= {keep})
        SELECT user_id, list(category ORDER BY events DESC, category) AS affinity_categories,
            list((events / total)::FLOAT ORDER BY events DESC, category) AS affinity_shares, {_timestamp_columns("day")}
        FROM best GROUP BY user_id, day ORDER BY user_id, day"""


# Content is valid from the item's creation, else from the first event; a store knows no time before 1970.
_CONTENT_QUERY = """
    WITH since AS (
        SELECT item_id, greatest(TIMESTAMPTZ '1970-01-01 00:00:00+00', coalesce(created_at,
            (SELECT make_timestamptz(min(day) * 86400000000) FROM logged))) AS instant FROM items)
    SELECT item_id, coalesce(price, 0)::DOUBLE AS item_price,
        length(coalesce(text, title, ''))::DOUBLE AS item_text_length,
        coalesce(len(category), 0)::DOUBLE AS item_category_count,
        instant AS event_timestamp, instant AS known_at
    FROM items JOIN since USING (item_id) ORDER BY item_id"""


def _history_query(part: int, *, since: int, max_history: int) -> str:
    """The histories of the users of a part.

    If a user's events became known in their order, the history at any time is a prefix of them: one list per user is
    cut. The lists of the other users are built for each time separately.
    """
    return f"""
        WITH part_events AS (SELECT * FROM user_events WHERE part = {part}),
        instants AS (
            SELECT user_id, max(known) AS instant, max(place) AS places FROM part_events
            GROUP BY user_id, known // {DAY_US}
            QUALIFY coalesce(lead(instant) OVER (PARTITION BY user_id ORDER BY instant) >= {since}, true)),
        steps AS (
            SELECT user_id, known < lag(known) OVER (PARTITION BY user_id ORDER BY place) AS back FROM part_events),
        late AS (SELECT DISTINCT user_id FROM steps WHERE back),
        complete AS (
            SELECT user_id, {_HISTORY_LISTS} FROM part_events WHERE user_id NOT IN (FROM late) GROUP BY user_id),
        histories AS (
            SELECT user_id, instant, items[:places] AS items, times[:places] AS times, ratings[:places] AS ratings
            FROM instants JOIN complete USING (user_id)
            UNION ALL
            SELECT user_id, instant, {_HISTORY_LISTS}
            FROM instants JOIN late USING (user_id) JOIN part_events USING (user_id)
            WHERE known <= instant GROUP BY user_id, instant)
        SELECT user_id, items[-{max_history}:] AS history_items, times[-{max_history}:] AS history_times,
            ratings[-{max_history}:] AS history_ratings, items AS seen_items,
            make_timestamptz(instant) AS event_timestamp, make_timestamptz(instant) AS known_at
        FROM histories ORDER BY user_id, instant"""


_HISTORY_LISTS = """list(item_id ORDER BY place) AS items, list(at_us / 1e6 ORDER BY place) AS times,
            list(rating ORDER BY place) AS ratings"""
