"""Times ingest, validate and featurize on synthetic events, and point-in-time joins with and without Feast.

    python -m benchmarks.scale                          1 and 10 million events, each stage in a process of its own
    python -m benchmarks.scale --rows 100000000         a hundred million
    python -m benchmarks.scale --rows 1000000 --stage featurize
    python -m benchmarks.scale --joins                  plain ASOF, the fast join, Feast: 0.25, 1 and 4 million rows
    python -m benchmarks.scale --joins --join-rows 250000

Each user has about a hundred events, in visits of five over 90 days; the popularity of items follows Zipf's law; one
event in fifty becomes known up to three days late. The data is good for measuring time and memory only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ITEMS = 120_000
DAYS = 90
EVENTS_PER_USER = 100
STAGES = ("ingest", "validate", "featurize")
JOIN_ROWS = [250_000, 1_000_000, 4_000_000]  # four times the rows: in linear time four times the seconds
MB = 1024  # ru_maxrss counts kilobytes


def generate(folder: Path, rows: int) -> None:
    """Write the RecBole files of ``rows`` events."""
    import duckdb

    source = folder / "partial"
    source.mkdir(parents=True, exist_ok=True)
    users = max(rows // EVENTS_PER_USER, 10)
    files = {
        "inter": f"""
            SELECT 'u' || hash(row // 5, 1) % {users} AS "user_id:token",
                'i' || (exp(hash(row, 2) / 18446744073709551616 * ln({ITEMS})) - 1)::BIGINT AS "item_id:token",
                1 + hash(row, 3) % 5 AS "rating:float",
                moment AS "timestamp:float",
                moment + CASE WHEN hash(row, 4) % 50 = 0 THEN hash(row, 5) % 259200 ELSE 0 END AS "known_at:float"
            FROM (SELECT row, 1700000000 + (hash(row // 5, 6) % {DAYS * 86_400})::BIGINT + row % 5 * 60 AS moment
                FROM range({rows}) t(row))""",
        "item": f"""
            SELECT 'i' || row AS "item_id:token", 'Title ' || hash(row) % 5000 AS "movie_title:token_seq",
                2000 + row % 20 AS "release_year:token",
                'c' || row % 24 || ' c' || hash(row) % 24 AS "class:token_seq"
            FROM range({ITEMS}) t(row)""",
        "user": f"""SELECT 'u' || row AS "user_id:token" FROM range({users}) t(row)""",
    }
    with duckdb.connect() as db:
        for suffix, query in files.items():
            db.execute(f"COPY ({query}) TO '{source / f'made.{suffix}'}' (FORMAT csv, DELIMITER '\t', QUOTE '')")
    source.rename(folder / "source")


def run_stage(name: str, folder: Path) -> dict[str, float]:
    """Run one step on the output of the one before; returns its seconds, core-seconds and peak memory in MB."""
    work: dict[str, Callable[[Path], None]] = {"ingest": _ingest, "validate": _validate, "featurize": _featurize}
    started = time.perf_counter()
    work[name](folder)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": seconds, "core_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / MB}


def _ingest(folder: Path) -> None:
    from components.ingest.config import Columns, IngestConfig
    from components.ingest.step import ingest

    columns = Columns(known_at="known_at", user_attributes=())
    ingest(folder / "raw", config=IngestConfig(source=str(folder / "source"), columns=columns))


def _validate(folder: Path) -> None:
    from components.validate.config import ValidateConfig
    from components.validate.step import validate

    validate(folder / "raw", folder / "clean", folder / "report", config=ValidateConfig())


def _featurize(folder: Path) -> None:
    from components.featurize.config import FeaturizeConfig
    from components.featurize.step import featurize

    featurize(folder / "clean", folder / "features", config=FeaturizeConfig())


def time_joins(folder: Path, rows: int) -> list[tuple[str, float]]:
    """The seconds of the same join of two views, made in several ways one after the other."""
    import duckdb

    from components.featurize.join import JoinSettings, PointInTimeJoin, historical_features
    from feature_repo.store import apply, open_store, working_directory
    from rankline.features import transforms
    from rankline.runtime.progress import Progress

    sources = folder / "sources"
    sources.mkdir(parents=True)
    entities = _write_views(sources, rows)
    apply(folder / "feast", project="joins", sources=sources)
    store = open_store(folder / "feast")
    features = [f"user_activity:{name}" for name in transforms.USER]
    features += ["user_category_affinity:affinity_categories", "user_category_affinity:affinity_shares"]

    def plain() -> Any:
        with duckdb.connect() as db:
            db.register("entities", entities)
            for view in ("user_activity", "user_category_affinity"):
                db.sql(
                    f"""SELECT view.* EXCLUDE (user_id, event_timestamp, known_at)
                    FROM entities ASOF LEFT JOIN read_parquet('{sources / view}.parquet') view
                    ON entities.user_id = view.user_id AND entities.event_timestamp >= view.event_timestamp"""
                ).to_arrow_table()

    def fast(check_rows: int) -> Any:
        settings = JoinSettings(method="fast", check_rows=check_rows, seed=0, memory_mb=2048, spill=folder)
        join = PointInTimeJoin(store, features, settings, rows=rows)
        parts = [join.join(entities.slice(start, 100_000)) for start in range(0, rows, 100_000)]
        join.check()
        return parts

    joins: dict[str, Callable[[], Any]] = {
        "plain ASOF join of two views (no TTL, no known time, any order)": plain,
        "the fast join, in parts of 100,000": lambda: fast(0),
        "the fast join, 500 rows of it checked against Feast": lambda: fast(500),
        "through Feast, in parts of 200,000": lambda: historical_features(
            store, entities, features, chunk=200_000, progress=Progress()
        ),
    }
    timings = []
    with working_directory(folder / "feast"):
        plain()  # so that the files are in the page cache for all of them
        for name, join in joins.items():
            started = time.perf_counter()
            join()
            timings.append((name, time.perf_counter() - started))
    return timings


def _write_views(sources: Path, rows: int) -> Any:
    """Write the files of the feature views; returns the entities to join, a table of ``rows`` users and times."""
    import duckdb

    from rankline.features import transforms

    views = {
        "user_activity": ", ".join(f"random() AS {name}" for name in transforms.USER),
        "user_category_affinity": """['c' || user % 9, 'c' || user % 7] AS affinity_categories,
            [0.7::FLOAT, 0.3::FLOAT] AS affinity_shares""",
        "item_popularity": "0.0 AS item_events_1d",
        "item_content": "0.0 AS item_price",
        "user_history": "['i1'] AS history_items",
    }
    start = 1_700_000_000_000_000
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for view, columns in views.items():
            key = "item_id" if view.startswith("item") else "user_id"
            db.execute(
                f"""COPY (SELECT 'k' || user AS {key}, {columns}, time AS event_timestamp, time AS known_at
                FROM (SELECT row // 10 AS user,
                    make_timestamptz({start} + (row % 10 * 9 + hash(row) % 9)::BIGINT * 86400000000) AS time
                    FROM range({rows // 2 if "user_" in view else 10}) t(row))
                ORDER BY {key}, event_timestamp) TO '{sources / view}.parquet' (FORMAT parquet, COMPRESSION zstd)"""
            )
        return db.sql(
            f"""SELECT 'k' || hash(row) % {rows // 20} AS user_id,
            make_timestamptz({start} + (hash(row, 1) % {DAYS * 86_400})::BIGINT * 1000000) AS event_timestamp
            FROM range({rows}) t(row) ORDER BY user_id, event_timestamp"""
        ).to_arrow_table()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--stage", choices=STAGES, help="only this one, on the output of an earlier run in --folder")
    parser.add_argument("--joins", action="store_true", help="compare joins instead")
    parser.add_argument("--join-rows", type=int, nargs="+", default=JOIN_ROWS, help="how many rows are joined")
    parser.add_argument("--folder", type=Path, help="where the data is kept; by default a temporary folder")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(run_stage(arguments.stage, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.joins:
            print("| rows | join | seconds | seconds per million rows | against plain |\n" + "| --- " * 5 + "|")
            for rows in arguments.join_rows:
                times = time_joins(folder / "joins" / str(rows), rows)
                for name, seconds in times:
                    row_text = f"{seconds:.1f} | {seconds / rows * 1e6:.1f} | {seconds / times[0][1]:.1f}"
                    print(f"| {rows:,} | {name} | {row_text} |", flush=True)
            return
        print(
            "| events | step | seconds | core-seconds | peak memory MB |\n| --- | --- | --- | --- | --- |", flush=True
        )
        for rows in arguments.rows:
            size_folder = folder / str(rows)
            if not (size_folder / "source").is_dir():
                generate(size_folder, rows)
            for name in [arguments.stage] if arguments.stage else STAGES:
                used = _run_in_process(name, size_folder)
                numbers = f"{used['seconds']:.0f} | {used['core_s']:.0f} | {used['peak_mb']:.0f}"
                print(f"| {rows:,} | {name} | {numbers} |", flush=True)


def _run_in_process(name: str, folder: Path) -> dict[str, float]:
    import shutil

    for output_folder in {"ingest": ["raw"], "validate": ["clean", "report"], "featurize": ["features"]}[name]:
        shutil.rmtree(folder / output_folder, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.scale", "--inside", "--stage", name, "--folder", str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    numbers: dict[str, float] = json.loads(output.splitlines()[-1])
    return numbers


if __name__ == "__main__":
    main()
