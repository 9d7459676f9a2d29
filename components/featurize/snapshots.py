"""Daily snapshots of users and items, by DuckDB windows over events: the sources that Feast reads.

A snapshot of day D (00:00 UTC) counts events with event_timestamp < D and known_at <= D. An event enters at
the first such D and leaves a window of w days w days after the day following it; running sums over what
enters and leaves give every window at once, with a row on exactly those days on which something changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

WINDOWS_D = (1, 7, 30)
DAY_US = 86_400 * 1_000_000

# Where there is no trend a month's events fall evenly into its weeks; so many events' worth is assumed.
TREND_PRIOR = 10


def write(db: Any, sources: Path, *, max_history: int, affinity_categories: int) -> dict[str, int]:
    """Write <view>.parquet for every feature view from `events` and `items` of ``db``; the rows of each."""
    sources.mkdir(parents=True)
    queries = {
        "user_activity": f"""
            SELECT user_id, {_counts("user")}, {_moments("day")}
            FROM ({_rolling("user_id")}) ORDER BY user_id, day""",
        "user_category_affinity": _affinity(affinity_categories),
        "item_popularity": f"""
            SELECT item_id, {_counts("item")},
                (d7 + {TREND_PRIOR} * 7 / 30) / (d30 + {TREND_PRIOR}) - 7 / 30 AS item_trend,
                {_moments("day")}
            FROM ({_rolling("item_id")}) ORDER BY item_id, day""",
        "item_content": _CONTENT,
        "user_history": _history(max_history),
    }
    return {name: _copy(db, query, sources / f"{name}.parquet") for name, query in queries.items()}


def read(db: Any, clean: Path) -> None:
    """Make the tables `events` (times in µs, with the day each enters at) and `items` from a clean folder."""
    import pyarrow.parquet as parquet

    columns = parquet.read_schema(clean / "events.parquet").names
    rating = "rating" if "rating" in columns else "NULL"
    db.execute(
        f"""
        CREATE TABLE events AS
        SELECT *, at_us // {DAY_US} AS day,
            greatest(at_us // {DAY_US} + 1, (known_us + {DAY_US} - 1) // {DAY_US}) AS enters
        FROM (
            SELECT file_row_number AS row, user_id, item_id,
                nullif({rating}::DOUBLE, 'nan'::DOUBLE)::DECIMAL(18, 6) AS rating,
                epoch_us(event_timestamp) AS at_us, epoch_us(known_at) AS known_us
            FROM read_parquet($path, file_row_number = true))
        """,
        {"path": str(clean / "events.parquet")},
    )
    db.execute("CREATE TABLE items AS FROM read_parquet($path)", {"path": str(clean / "items.parquet")})


def _copy(db: Any, query: str, target: Path) -> int:
    return int(db.execute(f"COPY ({query}) TO '{_quoted(target)}' (FORMAT parquet, COMPRESSION zstd)").fetchone()[0])


def _moments(day: str) -> str:
    """A snapshot holds from its day's first moment and is known then."""
    moment = f"make_timestamptz({day} * {DAY_US})"
    return f"{moment} AS event_timestamp, {moment} AS known_at"


def _counts(entity: str) -> str:
    windows = ", ".join(f"d{w}::DOUBLE AS {entity}_events_{w}d" for w in WINDOWS_D)
    return f"""{windows}, total::DOUBLE AS {entity}_events_total,
        coalesce(stars::DOUBLE / nullif(rated, 0), 0) AS {entity}_rating_mean"""


def _rolling(key: str) -> str:
    """(key, day, total, rated, stars, d1, d7, d30) on each day on which one of them changes."""
    entering = ", ".join(f"(enters <= day + {w})::INT AS d{w}" for w in WINDOWS_D)
    leaving = "\n".join(
        f"""UNION ALL SELECT {key}, day + 1 + {left}, 0, 0, 0,
            {", ".join("-1" if w == left else "0" for w in WINDOWS_D)}
            FROM events WHERE enters <= day + {left}"""
        for left in WINDOWS_D
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
                {leaving})
            WHERE {key} IS NOT NULL
            GROUP BY {key}, day)
        WINDOW so_far AS (PARTITION BY {key} ORDER BY day)"""


def _affinity(keep: int) -> str:
    """Each user's categories with their share of its events so far, on each day on which an event enters."""
    return f"""
        WITH days AS (
            SELECT user_id, enters AS day, sum(count(*)) OVER (PARTITION BY user_id ORDER BY enters) AS total
            FROM events WHERE user_id IS NOT NULL GROUP BY user_id, enters),
        grown AS (
            SELECT user_id, enters AS day, category, count(*) AS events
            FROM events
            JOIN (SELECT item_id, unnest(list_distinct(category)) AS category FROM items) USING (item_id)
            WHERE user_id IS NOT NULL GROUP BY ALL),
        so_far AS (
            SELECT user_id, day, total, category,
                sum(coalesce(events, 0)) OVER (PARTITION BY user_id, category ORDER BY day) AS events
            FROM days JOIN (SELECT DISTINCT user_id, category FROM grown) USING (user_id)
            LEFT JOIN grown USING (user_id, day, category)),
        best AS (
            SELECT * FROM so_far WHERE events > 0
            QUALIFY row_number() OVER (PARTITION BY user_id, day ORDER BY events DESC, category) <= {keep})
        SELECT user_id, list(category ORDER BY events DESC, category) AS affinity_categories,
            list((events / total)::FLOAT ORDER BY events DESC, category) AS affinity_shares, {_moments("day")}
        FROM best GROUP BY user_id, day ORDER BY user_id, day"""


# Content holds from the item's creation, or from the first event there is; before 1970 no store can look.
_CONTENT = """
    WITH since AS (
        SELECT item_id, greatest(TIMESTAMPTZ '1970-01-01 00:00:00+00', coalesce(created_at,
            (SELECT make_timestamptz(min(day) * 86400000000) FROM events))) AS moment FROM items)
    SELECT item_id, coalesce(price, 0)::DOUBLE AS item_price,
        length(coalesce(text, title, ''))::DOUBLE AS item_text_length,
        coalesce(len(category), 0)::DOUBLE AS item_category_count,
        moment AS event_timestamp, moment AS known_at
    FROM items JOIN since USING (item_id) ORDER BY item_id"""


def _history(max_history: int) -> str:
    """Each user's history as it was known after the last event of each day on which one became known."""
    return f"""
        WITH mine AS (
            SELECT *, greatest(at_us, known_us) AS known FROM events WHERE user_id IS NOT NULL),
        moments AS (SELECT user_id, max(known) AS moment FROM mine GROUP BY user_id, known // {DAY_US}),
        whole AS (
            SELECT user_id, moment, list(item_id ORDER BY at_us, row) AS items,
                list(at_us / 1e6 ORDER BY at_us, row) AS times,
                list(coalesce(rating, 0)::FLOAT ORDER BY at_us, row) AS ratings
            FROM moments JOIN mine USING (user_id) WHERE known <= moment GROUP BY user_id, moment)
        SELECT user_id, items[-{max_history}:] AS history_items, times[-{max_history}:] AS history_times,
            ratings[-{max_history}:] AS history_ratings, items AS seen_items,
            make_timestamptz(moment) AS event_timestamp, make_timestamptz(moment) AS known_at
        FROM whole ORDER BY user_id, moment"""


def _quoted(path: Path) -> str:
    """A path inside of an SQL string."""
    return str(path).replace("'", "''")
