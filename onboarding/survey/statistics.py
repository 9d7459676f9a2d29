"""Facts: what the values of a column look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.ingest.config import UNITS
from components.ingest.expressions import NAIVE, ZONED
from rankline.io.sql import identifier, literal

# how times are written beside ISO and numbers since 1970; two that fit the same values are asked about
PATTERNS = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d",
    "%d/%b/%Y:%H:%M:%S %z", "%b %d, %Y", "%d %b %Y", "%Y-%m-%d %I:%M:%S %p", "%m/%d/%Y %I:%M:%S %p",
    "%Y-%m-%d %H:%M:%S %Z", "%Y-%m-%dT%H:%M:%S %Z",
)  # fmt: skip
FIRST_YEAR_S, LAST_YEAR_S = 631_152_000, 4_102_444_800  # 1990 and 2100: what a log's moments lie between


@dataclass(frozen=True)
class ColumnStats:
    """What the values of a column look like; shares are of the values that are there."""

    name: str
    kind: str  # as ingest reads it: text, number, integer, flag, naive, moment, list, other, or a type of RecBole
    values: int
    filled: float
    distinct: int
    examples: tuple[str, ...]
    numbers: float = 0.0
    is_integer: bool = False
    low: float | None = None
    high: float | None = None
    characters: float = 0.0
    words: float = 0.0
    flags: float = 0.0
    urls: float = 0.0
    arrays: float = 0.0
    vectors: float = 0.0
    separator: str = ""  # what parts lists in a text
    times: tuple[str, ...] = ()  # units or patterns that read it; more than one where that is not clear
    zoned: float | None = None  # of times as text or typed: the share that tells its zone

    @property
    def is_unique(self) -> bool:
        """Does every row have a value of its own?"""
        return self.values > 1 and self.distinct == self.values and self.filled == 1.0

    @property
    def is_date(self) -> bool:
        """Are the times whole days, of which nobody asks the hour?"""
        return bool(self.times) and self.zoned is not None and self.characters <= 12 and "%H" not in self.times[0]

    @property
    def is_text(self) -> bool:
        """Are the values words, rather than numbers, times, addresses, or yes and no?"""
        words = self.numbers < 0.5 and not self.times and self.urls < 0.5 and self.flags < 0.9
        return words and self.kind in ("text", "token", "token_seq", "other") and self.characters > 2

    @property
    def type_label(self) -> str:
        """The type as people call it."""
        if self.times:
            return "time" if self.zoned is None else "time with zone" if self.zoned == 1 else "time, no zone"
        if self.kind == "list" or self.arrays > 0.9:
            return "numbers" if self.vectors > 0.9 else "list"
        if self.kind == "flag":
            return "yes/no"
        if self.numbers > 0.95:
            return "whole number" if self.is_integer else "number"
        return "url" if self.urls > 0.9 else "text"


def column_stats(db: Any, table: str, column: str, kind: str, *, decimal: str) -> ColumnStats:
    """What one column of a table in DuckDB looks like; ``kind`` is how ingest reads it."""
    column_sql, table_sql = identifier(column), identifier(table)
    is_list = kind in ("list",)
    words = f"nullif(trim(CAST({column_sql} AS VARCHAR)), '')"
    # whatever stands for nothing is counted as nothing, in columns that are else numbers or times
    normalized_sql = f"replace(replace({words}, '.', ''), ',', '.')" if decimal == "," else words
    number_sql = f"TRY_CAST({normalized_sql} AS DOUBLE)"
    row = db.execute(
        f"""
        SELECT count({words}), count(*), count(DISTINCT {words}),
            avg(CAST(coalesce(isfinite({number_sql}), false) AS INTEGER)) FILTER ({words} IS NOT NULL),
            coalesce(bool_and({number_sql} = floor({number_sql})) FILTER ({number_sql} IS NOT NULL), false),
            min({number_sql}) FILTER (isfinite({number_sql})), max({number_sql}) FILTER (isfinite({number_sql})),
            avg(length({words})), avg(len(string_split_regex({words}, '\\s+'))),
            avg(CAST(lower({words}) IN ('true','false','t','f','yes','no','y','n','0','1') AS INTEGER)),
            avg(CAST(starts_with({words}, 'http://') OR starts_with({words}, 'https://') AS INTEGER)),
            avg(CAST(starts_with({words}, '[') AND ends_with({words}, ']') AS INTEGER)),
            avg(CAST(regexp_full_match({words}, '\\[?\\s*-?[0-9.eE+-]+([,;\\s]+-?[0-9.eE+-]+)+\\s*\\]?') AS INTEGER)),
            avg(CAST(contains({words}, '|') AS INTEGER)), avg(CAST(contains({words}, ', ') AS INTEGER))
        FROM {table_sql}
        """
    ).fetchone()
    values, rows, distinct, numbers, whole, low, high, size, count, flags, urls, arrays, vectors, bars, commas = row
    examples = db.execute(
        f"SELECT {words} AS told FROM {table_sql} WHERE told IS NOT NULL GROUP BY told "
        f"ORDER BY min({table_sql}.rowid) LIMIT 3"
    ).fetchall()
    numbers = float(numbers or 0) if kind != "token" else 0.0
    # AVG over booleans of nulls: absent where there is no value
    time_formats = _time_formats(db, table_sql, words, kind, values, numbers, low, high) if values else ((), None)
    separator = ""
    if not is_list and (count or 0) < 12 and (arrays or 0) < 0.5 and (urls or 0) < 0.5:
        separator = "|" if (bars or 0) > 0.2 else ", " if (commas or 0) > 0.5 and (size or 0) < 60 else ""
    return ColumnStats(
        name=column, kind=kind, values=int(values), filled=values / rows if rows else 0.0, distinct=int(distinct),
        examples=tuple(str(value)[:60] for (value,) in examples), numbers=numbers, is_integer=bool(whole),
        low=low, high=high, characters=float(size or 0), words=float(count or 0), flags=float(flags or 0),
        urls=float(urls or 0), arrays=float(arrays or 0), vectors=float(vectors or 0), separator=separator,
        times=time_formats[0], zoned=time_formats[1],
    )  # fmt: skip


def _time_formats(
    db: Any, table: str, words: str, kind: str, values: int, numbers: float, low: float | None, high: float | None
) -> tuple[tuple[str, ...], float | None]:
    """How a column's values read as times, and the share that tells its zone (None where numbers do by themselves)."""
    if kind in ("naive", "moment"):
        return ("iso",), 1.0 if kind == "moment" else 0.0
    if kind in ("list", "flag"):
        return (), None
    if numbers > 0.98 and low is not None and high is not None:
        fits = tuple(
            unit
            for unit, us in UNITS.items()
            if low * us >= FIRST_YEAR_S * 1e6 and high * us < LAST_YEAR_S * 1e6 and high > low
        )
        return fits, None
    if numbers > 0.5:
        return (), None

    def share(condition: str) -> float:
        query = f"SELECT avg(CAST({condition} AS INTEGER)) FROM {table} WHERE {words} IS NOT NULL"
        ((mean,),) = db.execute(query).fetchall()
        return float(mean or 0)

    # DuckDB reads "2021" and "12:30" as times, too: a date is asked for
    zoned = f"regexp_matches({words}, '^\\d{{4}}-\\d{{1,2}}-\\d{{1,2}}') AND regexp_matches({words}, {literal(ZONED)})"
    written = f"({zoned} OR regexp_full_match({words}, {literal(NAIVE)}))"
    if share(f"{written} AND (TRY_CAST({words} AS TIMESTAMPTZ) IS NOT NULL)") > 0.95:
        return ("iso",), share(zoned)
    if share(f"regexp_matches({words}, '\\d')") < 0.95:
        return (), None
    fits = tuple(
        pattern for pattern in PATTERNS if share(f"try_strptime({words}, {literal(pattern)}) IS NOT NULL") > 0.98
    )
    return fits, (1.0 if "%z" in fits[0].lower() else 0.0) if fits else None


def has_decimal_commas(db: Any, table: str, kinds: dict[str, str]) -> bool:
    """Is some column of a text file written with decimal commas?"""
    for column in [column for column, kind in kinds.items() if kind == "text"]:
        text_sql = f"trim(CAST({identifier(column)} AS VARCHAR))"
        is_number_sql = rf"regexp_full_match({text_sql}, '[+-]?(\d+|\d{{1,3}}([.]\d{{3}})+)(,\d+)?')"
        query = (
            f"SELECT avg(CAST({is_number_sql} AS INTEGER)), count(*) FILTER (regexp_matches({text_sql}, ',\\d+$')) "
            f"FROM {identifier(table)} WHERE {text_sql} <> ''"
        )
        ((share, commas),) = db.execute(query).fetchall()
        if (share or 0) > 0.98 and commas:
            return True
    return False
