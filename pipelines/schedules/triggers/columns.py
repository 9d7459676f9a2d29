"""The distribution of a column over the events of each day: of training, and of what is live.

A column is one of events, or of the items or users of events: `price`, or `items.price` where several have it. A number
is counted in ten bins that hold as many events each in training, a text in its nine most frequent values and the rest.
What is missing has a bin of its own. What is stored has digests in place of texts, and ids of users and of their
requests are no columns, so that no erased user stays here. Days are those of the schedule's zone, and only whole ones
count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from rankline.contracts import FrozenModel
from rankline.drift.shares import REFERENCE_DAYS
from rankline.errors import UsageError
from rankline.io.sql import identifier, literal

TABLES = ("events", "items", "users")
_KEYS = {"items": "item_id", "users": "user_id"}
_PERSONAL = ("user_id", "query_id", "request_id", "event_id")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
            "FLOAT", "DOUBLE", "DECIMAL")  # fmt: skip
BINS = 10


class Bins(FrozenModel):
    """How the values of a column are counted: by edges, or by their most frequent values."""

    column: str  # with its table
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The bins: one for missing values, then those of the edges or values, and the last."""
        return max(len(self.edges), len(self.values)) + 2

    def expression(self, value: str) -> str:
        """The number of the bin of a value, in SQL."""
        tests = [f"{value} <= {edge!r}" for edge in self.edges] + [f"{value} = {literal(v)}" for v in self.values]
        cases = " ".join(f"WHEN {test} THEN {number + 1}" for number, test in enumerate(tests))
        return f"CASE WHEN {value} IS NULL THEN 0 {cases} ELSE {len(tests) + 1} END"


class DailyCounts(FrozenModel):
    """Events per day and bin, oldest day first."""

    days: tuple[str, ...] = ()
    counts: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, counts: Mapping[date, Sequence[int]]) -> DailyCounts:
        """The counts of some days."""
        days = sorted(counts)
        return cls(days=tuple(map(str, days)), counts=tuple(tuple(counts[day]) for day in days))

    @property
    def total(self) -> int:
        """All events."""
        return sum(map(sum, self.counts))

    def arrays(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The counts [days, bins] and the weekdays [days]."""
        return np.array(self.counts, np.float64), np.array(self._weekdays, np.int64)

    def between(self, first: int, last: int) -> DailyCounts:
        """The days of these places."""
        return DailyCounts(days=self.days[first:last], counts=self.counts[first:last])

    def newest(self, count: int) -> DailyCounts:
        """The last days."""
        return self.between(max(len(self.days) - count, 0), len(self.days))

    def on_weekdays(self, weekdays: set[int]) -> DailyCounts:
        """The days of these weekdays."""
        chosen = [place for place, weekday in enumerate(self._weekdays) if weekday in weekdays]
        return DailyCounts(
            days=tuple(self.days[place] for place in chosen), counts=tuple(self.counts[place] for place in chosen)
        )

    def plus(self, later: DailyCounts) -> DailyCounts:
        """These days and later ones."""
        return DailyCounts(days=self.days + later.days, counts=self.counts + later.counts)

    @property
    def _weekdays(self) -> list[int]:
        return [date.fromisoformat(day).weekday() for day in self.days]


class Column:
    """A column of the tables in a folder."""

    def __init__(self, db: Any, folder: Path, name: str) -> None:
        self._db, self._folder = db, folder
        table, _, column = name.rpartition(".")
        owners = {each: self._columns(each) for each in ([table] if table else TABLES)}
        owner = next((each for each in owners if column in owners[each]), None)
        if owner is None:
            names = sorted({each for columns in owners.values() for each in columns})
            raise UsageError(
                f"there is no column {name!r} in the data of the last training",
                expected=f"one of {', '.join(names)}",
                found=name,
                hint="`rankline schedule update NAME --when …` names another column",
            )
        self.name, self.type = f"{owner}.{column}", owners[owner][column]
        value = f"{owner}.{identifier(column)}"
        self.is_number = self.type.startswith(_NUMBERS)
        first = f"{value}[1]" if self.type.endswith("[]") else value
        self.value = f"CAST({value} AS DOUBLE)" if self.is_number else f"md5(CAST({first} AS VARCHAR))"

    def bins(self, since: datetime, until: datetime) -> Bins:
        """Bins with as many events each, or the most frequent values, between two times."""
        rows = f"FROM ({self._rows(since, until)}) WHERE value IS NOT NULL"
        if self.is_number:
            shares = [n / BINS for n in range(1, BINS)]
            (edges,) = self._db.execute(f"SELECT quantile_cont(value, {shares}) {rows} AND isfinite(value)").fetchone()
            return Bins(column=self.name, edges=tuple(sorted(set(edges or ()))))
        frequent = f"SELECT value {rows} GROUP BY 1 ORDER BY count(*) DESC, value LIMIT {BINS - 1}"
        return Bins(column=self.name, values=tuple(row[0] for row in self._db.execute(frequent).fetchall()))

    def daily(self, bins: Bins, since: datetime, until: datetime, zone: str) -> DailyCounts:
        """The events of each whole day between two times, by bin."""
        first, last = whole_days(since, until, zone)
        day = f"CAST(timezone({literal(zone)}, event_at) AS DATE)"
        query = f"SELECT {day}, {bins.expression('value')}, count(*) FROM ({self._rows(since, until)}) GROUP BY 1, 2"
        counts: dict[date, list[int]] = {}
        for each, number, count in self._db.execute(query).fetchall():
            if first <= each <= last:
                counts.setdefault(each, [0] * bins.count)[number] = count
        return DailyCounts.of(counts)

    def first_event(self) -> datetime:
        """The time of the first event."""
        (first,) = self._db.execute(f"SELECT min(event_timestamp) FROM {self._table('events')}").fetchone()
        assert isinstance(first, datetime), "a training has events"
        return first

    def _rows(self, since: datetime, until: datetime) -> str:
        owner = self.name.partition(".")[0]
        rows = f"SELECT event_timestamp AS event_at, {self.value} AS value FROM {self._table('events')} AS events"
        if owner != "events":
            rows += f" LEFT JOIN {self._table(owner)} AS {owner} USING ({_KEYS[owner]})"
        return (
            f"{rows} WHERE event_timestamp >= TIMESTAMPTZ '{since.isoformat()}' "
            f"AND event_timestamp < TIMESTAMPTZ '{until.isoformat()}'"
        )

    def _columns(self, table: str) -> dict[str, str]:
        if table not in TABLES or not (self._folder / f"{table}.parquet").is_file():
            return {}
        described = self._db.execute(f"DESCRIBE SELECT * FROM {self._table(table)}").fetchall()
        return {
            name: kind
            for name, kind, *_ in described
            if not kind.startswith(("TIMESTAMP", "STRUCT")) and name not in _PERSONAL
        }

    def _table(self, table: str) -> str:
        return f"read_parquet({literal(str(self._folder / f'{table}.parquet'))})"


def whole_days(since: datetime, until: datetime, zone: str) -> tuple[date, date]:
    """The first and the last day that lie wholly between two times."""
    first, last = since.astimezone(ZoneInfo(zone)), until.astimezone(ZoneInfo(zone))
    starts_late = first.timetz().replace(tzinfo=None) != datetime.min.time()
    return first.date() + timedelta(days=starts_late), last.date() - timedelta(days=1)


def reference_start(until: datetime) -> datetime:
    """From when on the days of a reference count that ends at ``until``."""
    return until - timedelta(days=REFERENCE_DAYS)
