"""Declared series: tables of served scores and of live metrics that other systems write.

A series is Parquet or CSV: a file, a pattern, or a folder of Parquet files, with a column `at` (a time; without a zone
it is UTC), the named column, and for scores optionally `model_id`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pipelines.schedules.triggers.columns import BINS, Bins, DailyCounts, whole_days
from rankline.errors import UsageError
from rankline.io.sql import identifier, literal, memory_database

_MEMORY_MB = 512


class Series:
    """A column of a declared table, from the promotion of the champion on."""

    def __init__(self, db: Any, path: str, column: str, *, since: datetime, model_id: str, zone: str) -> None:
        self._db, self._zone, self._since = db, zone, since
        table = _table(path)
        names = {name: kind for name, kind, *_ in _execute(db, f"DESCRIBE SELECT * FROM {table}", path)}
        if missing := [each for each in ("at", column) if each not in names]:
            raise UsageError(
                f"the table has no column {' and no column '.join(missing)}",
                expected=f"the columns at and {column}",
                found=", ".join(names),
                where=path,
            )
        at = '"at"' if names["at"].startswith("TIMESTAMP WITH") else "timezone('UTC', CAST(\"at\" AS TIMESTAMP))"
        own = f"AND model_id = {literal(model_id)}" if "model_id" in names else ""
        self._rows = (
            f"(SELECT {at} AS event_at, CAST({identifier(column)} AS DOUBLE) AS value FROM {table} "
            f"WHERE {at} >= TIMESTAMPTZ '{since.isoformat()}' {own})"
        )
        self._day = f"CAST(timezone({literal(zone)}, event_at) AS DATE)"

    def daily_means(self, until: datetime) -> list[tuple[date, float]]:
        """The mean of each whole day up to ``until``, oldest first."""
        query = f"SELECT {self._day}, avg(value) FROM {self._rows} WHERE isfinite(value) GROUP BY 1 ORDER BY 1"
        first, last = whole_days(self._since, until, self._zone)
        return [(day, mean) for day, mean in self._db.execute(query).fetchall() if first <= day <= last]

    def daily_counts(self, until: datetime, *, reference_days: int) -> tuple[DailyCounts, DailyCounts]:
        """The values of each whole day in bins of the first days: those days, and the others."""
        days = [day for day, _ in self.daily_means(until)]
        if not days:
            return DailyCounts(), DailyCounts()
        last = days[:reference_days][-1]
        shares = [n / BINS for n in range(1, BINS)]
        first = f"FROM {self._rows} WHERE isfinite(value) AND {self._day} <= DATE '{last}'"
        (edges,) = self._db.execute(f"SELECT quantile_cont(value, {shares}) {first}").fetchone()
        bins = Bins(column="score", edges=tuple(sorted(set(edges))))
        counted = f"SELECT {self._day}, {bins.expression('value')}, count(*) FROM {self._rows} GROUP BY 1, 2"
        counts = {day: [0] * bins.count for day in days}
        for day, number, count in self._db.execute(counted).fetchall():
            if day in counts:
                counts[day][number] = count
        daily = DailyCounts.of(counts)
        return daily.between(0, reference_days), daily.between(reference_days, len(days))


@contextlib.contextmanager
def series_of(path: str, column: str, *, since: datetime, model_id: str, zone: str) -> Iterator[Series]:
    """A column of a declared table.

    Raises:
        UsageError: there is no such table, or it has no such column.
    """
    with memory_database(memory_mb=_MEMORY_MB) as db:
        yield Series(db, path, column, since=since, model_id=model_id, zone=zone)


def _table(path: str) -> str:
    pattern = str(Path(path) / "**" / "*.parquet") if Path(path).is_dir() else path
    reader = "read_csv" if path.endswith((".csv", ".csv.gz")) else "read_parquet"
    return f"{reader}({literal(pattern)}, union_by_name=true)"


def _execute(db: Any, query: str, path: str) -> list[tuple[Any, ...]]:
    import duckdb

    try:
        rows: list[tuple[Any, ...]] = db.execute(query).fetchall()
    except duckdb.Error as error:
        raise UsageError(
            "a declared table cannot be read",
            expected="Parquet or CSV: a file, a pattern, or a folder of Parquet files",
            found=str(error).splitlines()[0],
            where=path,
            hint="relative paths start in the folder in which the schedule was created",
        ) from error
    return rows
