"""Daily snapshots of users and items, by DuckDB windows over events: the sources that Feast reads.

A snapshot of day D (00:00 UTC) counts events with event_timestamp < D and known_at <= D. An event enters at
the first such D and leaves a window of w days w days after the day following it; running sums over what
enters and leaves give every window at once, with a row on exactly those days on which something changes.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.featurize.parts import ParquetWriters

WINDOWS_D = (1, 7, 30)
DAY_US = 86_400 * 1_000_000

# Where there is no trend a month's events fall evenly into its weeks; so many events' worth is assumed.
TREND_PRIOR = 10


# Users whose events are about so many are looked at at once where what is made is larger than what it is made of.
PART_EVENTS = 1_000_000


@contextlib.contextmanager
def spill_folder(folder: Path) -> Iterator[Path]:
    """A passing folder beside what is being written, for what does not fit into memory."""
    with tempfile.TemporaryDirectory(prefix=".spill-", dir=folder) as temp_dir:
        yield Path(temp_dir)


@contextlib.contextmanager
def database(folder: Path, *, memory_mb: int) -> Iterator[Any]:
    """A passing DuckDB in a file under ``folder``: what exceeds its memory goes to disk."""
    import duckdb

    with spill_folder(folder) as temp_dir, duckdb.connect(str(temp_dir / "snapshots.duckdb")) as db:
        db.execute(f"SET memory_limit = '{memory_mb}MB'")
        db.execute("SET TimeZone = 'UTC'")
        yield db


def write(
    db: Any, sources: Path, *, max_history: int, affinity_categories: int, history_days: int | None = None
) -> dict[str, int]:
    """Write <view>.parquet for every feature view from `events` and `items` of ``db``; the rows of each.

    Histories grow with what a user did: they are kept as they were on each of the last ``history_days`` of the
    data (on all days if left out), and once before them.
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
        ((newest,),) = db.execute(f"SELECT coalesce(max(known), 0) // {DAY_US} FROM mine").fetchall()
        since = (newest - history_days) * DAY_US
    of_users = {
        "user_category_affinity": lambda part: _affinity_query(part, affinity_categories),
        "user_history": lambda part: _history_query(part, since=since, max_history=max_history),
    }
    for name, query in of_users.items():
        with ParquetWriters(sources) as writers:
            for part in range(parts):
                writers.write(name, db.sql(query(part)).to_arrow_table())
        rows |= writers.rows
    return rows


def _partition_users(db: Any) -> int:
    """Make the table `mine`: users' events, user by user, numbered, the users in parts; how many parts."""
    db.execute(
        f"""
        CREATE TEMP TABLE mine AS
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
    ((last,),) = db.execute("SELECT coalesce(max(part), 0) FROM mine").fetchall()
    return int(last) + 1


def load_tables(db: Any, clean: Path) -> None:
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
            SELECT file_row_number AS row, user_id, query_id, item_id,
                nullif({rating}::DOUBLE, 'nan'::DOUBLE)::DECIMAL(18, 6) AS rating,
                epoch_us(event_timestamp) AS at_us, epoch_us(known_at) AS known_us
            FROM read_parquet($path, file_row_number = true))
        """,
        {"path": str(clean / "events.parquet")},
    )
    db.execute("CREATE TABLE items AS FROM read_parquet($path)", {"path": str(clean / "items.parquet")})


def _copy_to_parquet(db: Any, query: str, target: Path) -> int:
    return int(db.execute(f"COPY ({query}) TO '{_escaped(target)}' (FORMAT parquet, COMPRESSION zstd)").fetchone()[0])


def _timestamp_columns(day: str) -> str:
    """A snapshot holds from its day's first moment and is known then."""
    timestamp = f"make_timestamptz({day} * {DAY_US})"
    return f"{timestamp} AS event_timestamp, {timestamp} AS known_at"


def _count_columns(entity: str) -> str:
    windows = ", ".join(f"d{w}::DOUBLE AS {entity}_events_{w}d" for w in WINDOWS_D)
    return f"""{windows}, total::DOUBLE AS {entity}_events_total,
        coalesce(stars::DOUBLE / nullif(rated, 0), 0) AS {entity}_rating_mean"""


def _rolling_counts(key: str) -> str:
    """(key, day, total, rated, stars, d1, d7, d30) on each day on which one of them changes."""
    entering = ", ".join(f"(enters <= day + {w})::INT AS d{w}" for w in WINDOWS_D)
    leaving = "\n".join(
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
                {leaving})
            WHERE {key} IS NOT NULL
            GROUP BY {key}, day)
        WINDOW so_far AS (PARTITION BY {key} ORDER BY day)"""


def _affinity_query(part: int, keep: int) -> str:
    """The categories of the users of one part, with their share of the user's events so far, on each day on which
    an event enters."""
    return f"""
        WITH here AS (SELECT user_id, item_id, enters AS day FROM mine WHERE part = {part}),
        days AS (
            SELECT user_id, day, sum(count(*)) OVER (PARTITION BY user_id ORDER BY day) AS total
            FROM here GROUP BY user_id, day),
        grown AS (
            SELECT user_id, day, category, count(*) AS events
            FROM here
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


# Content holds from the item's creation, or from the first event there is; before 1970 no store can look.
_CONTENT_QUERY = """
    WITH since AS (
        SELECT item_id, greatest(TIMESTAMPTZ '1970-01-01 00:00:00+00', coalesce(created_at,
            (SELECT make_timestamptz(min(day) * 86400000000) FROM events))) AS moment FROM items)
    SELECT item_id, coalesce(price, 0)::DOUBLE AS item_price,
        length(coalesce(text, title, ''))::DOUBLE AS item_text_length,
        coalesce(len(category), 0)::DOUBLE AS item_category_count,
        moment AS event_timestamp, moment AS known_at
    FROM items JOIN since USING (item_id) ORDER BY item_id"""


def _history_query(part: int, *, since: int, max_history: int) -> str:
    """The histories of the users of one part.

    A user whose events were all known in their order has, at any moment, the first so many of them: one list a
    user is cut. The others' lists are put together moment by moment.
    """
    return f"""
        WITH here AS (SELECT * FROM mine WHERE part = {part}),
        moments AS (
            SELECT user_id, max(known) AS moment, max(place) AS places FROM here
            GROUP BY user_id, known // {DAY_US}
            QUALIFY coalesce(lead(moment) OVER (PARTITION BY user_id ORDER BY moment) >= {since}, true)),
        steps AS (SELECT user_id, known < lag(known) OVER (PARTITION BY user_id ORDER BY place) AS back FROM here),
        late AS (SELECT DISTINCT user_id FROM steps WHERE back),
        whole AS (
            SELECT user_id, {_HISTORY_LISTS} FROM here WHERE user_id NOT IN (FROM late) GROUP BY user_id),
        histories AS (
            SELECT user_id, moment, items[:places] AS items, times[:places] AS times, ratings[:places] AS ratings
            FROM moments JOIN whole USING (user_id)
            UNION ALL
            SELECT user_id, moment, {_HISTORY_LISTS}
            FROM moments JOIN late USING (user_id) JOIN here USING (user_id)
            WHERE known <= moment GROUP BY user_id, moment)
        SELECT user_id, items[-{max_history}:] AS history_items, times[-{max_history}:] AS history_times,
            ratings[-{max_history}:] AS history_ratings, items AS seen_items,
            make_timestamptz(moment) AS event_timestamp, make_timestamptz(moment) AS known_at
        FROM histories ORDER BY user_id, moment"""


_HISTORY_LISTS = """list(item_id ORDER BY place) AS items, list(at_us / 1e6 ORDER BY place) AS times,
            list(rating ORDER BY place) AS ratings"""


def _escaped(path: Path) -> str:
    """A path inside of an SQL string."""
    return str(path).replace("'", "''")
