"""Statistics of a column's values: how many there are, and what they look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.ingest.expressions import (
    BOOLEAN_WORDS,
    FREE_WORDS,
    INFINITE_WORDS,
    MISSING_WORDS,
    TEXT_KINDS,
    sql_list,
)
from components.ingest.numbers import GROUP
from components.ingest.times import (
    EXCEL_EPOCH_DAYS,
    FIRST_US,
    LAST_US,
    NAIVE,
    PATTERNS,
    STEPS_OF_100_NS,
    UNITS,
    ZONED,
    parsed,
)
from onboarding.inference.vocabulary import SUBJECT_WORDS, name_score, name_words
from rankline.io.sql import fetch_row, identifier, literal

MIN_TIMES = 0.95  # share of the values that one unit or pattern has to read; ingest rejects the others by row
EXAMPLE_LENGTH = 60
SAMPLED_TIMES = 1_000  # values that the many patterns are tried on first
DIGIT_PATTERNS = ("%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%d%H%M")
FLAG_WORDS = (*BOOLEAN_WORDS["true"], *BOOLEAN_WORDS["false"])
OBJECT = r"^\[?\s*\{\s*[\"']?[^\"'{},:=]+[\"']?\s*[:=][^=].*\}\s*\]?$"  # of JSON, Python, or DuckDB
# of JSON and Python, of Postgres, a tuple, a set, PHP, JSON in a string, YAML
ARRAY = (
    r"(?s)^(\[.*\]|\{[^:=]*\}|\(['\"].*\)|(frozenset|set|list|tuple|array)\(.*\)|a:\d+:\{.*\}|"
    r"\"\s*\[.*\]\s*\"|-\s+[^\n]*\n\s*-\s.*)$"
)
VECTOR = r"(array\(|tensor\()?[\[({]*\s*-?[0-9.eE+-]+([,;\s]+-?[0-9.eE+-]+)+\s*[\])}]*(, dtype=\w+\))?"

CLOCK = r"\d{1,2}:\d{2}(:\d{2}([.]\d+)?)?( ?[AaPp][Mm])?"

Shares = Callable[..., list[float]]  # SQL conditions -> the share of a column's values that meets each


@dataclass(frozen=True)
class ColumnStats:
    """What the values of a column look like. Shares are of the values that are not missing."""

    name: str
    kind: str  # as ingest reads it: text, number, integer, flag, naive, instant, list, other, or a type of RecBole
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
    money: float = 0.0  # share of numbers with a currency
    flags: float = 0.0
    urls: float = 0.0
    arrays: float = 0.0
    objects: float = 0.0  # share of objects and lists of objects
    vectors: float = 0.0
    clocks: float = 0.0  # share of times of day
    grouped: float = 0.0  # share of 1.100, which may be 1100, if no value is written otherwise
    separator: str = ""  # between the elements of a list in a text
    times: tuple[str, ...] = ()  # units or patterns that fit the values; several if it is not clear
    zoned: float | None = None  # share of the times that name their zone; None for numbers, which are UTC

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.values > 1 and self.distinct == self.values and self.filled == 1.0

    @property
    def is_date(self) -> bool:
        """Whether the times are whole days, for which a time zone hardly matters."""
        return bool(self.times) and self.zoned is not None and self.characters <= 12 and "%H" not in self.times[0]

    @property
    def may_be_list(self) -> bool:
        """Whether the values may hold several ids each."""
        return self.kind == "list" or self.arrays > 0.5 or self.words > 1.3 or bool(self.separator)

    @property
    def is_text(self) -> bool:
        """Whether the values are words rather than numbers, times, URLs or booleans."""
        words = max(self.numbers, self.money, self.urls, self.objects) < 0.5 and not self.times and self.flags < 0.9
        return words and self.kind in ("text", "token", "token_seq", "other") and self.characters > 2

    @property
    def type_label(self) -> str:
        """The type as it is shown to people."""
        if self.times:
            return "time" if self.zoned is None else "time with zone" if self.zoned == 1 else "time, no zone"
        if self.objects > 0.9:
            return "objects"
        if self.kind == "list" or self.arrays > 0.9:
            return "numbers" if self.vectors > 0.9 else "list"
        if self.kind == "flag":
            return "yes/no"
        if self.money > 0.5:
            return "price"
        if self.numbers > 0.95:
            return "whole number" if self.is_integer else "number"
        return "url" if self.urls > 0.9 else "text"


def column_stats(db: Any, table: str, kinds: dict[str, str], *, decimal: str) -> dict[str, ColumnStats]:
    """Column -> its statistics, for the columns of a table in DuckDB; ``kinds`` are how ingest reads them."""
    return {column: _column_stats(db, table, column, kind, decimal) for column, kind in kinds.items()}


def _column_stats(db: Any, table: str, column: str, kind: str, decimal: str) -> ColumnStats:
    text = f"nullif(trim(CAST({identifier(column)} AS VARCHAR)), '')"
    if kind in TEXT_KINDS and _rows_without_words(db, table, text):
        # beside words, words for missing are ordinary values: what they are is decided when the map is written
        without = f"CASE WHEN NOT ({_is_word(text)}) THEN {text} END"
        stats = _value_stats(db, table, column, without, kind, decimal)
        if max(stats.numbers, stats.money, stats.flags) > MIN_TIMES or stats.times:
            return stats
    return _value_stats(db, table, column, text, kind, decimal)


def _rows_without_words(db: Any, table: str, text: str) -> bool:
    """Whether some values, and not all, are words for missing."""
    words, values = fetch_row(db, f"SELECT count(*) FILTER ({_is_word(text)}), count({text}) FROM {identifier(table)}")
    return 0 < int(words) < int(values)


def _is_word(text: str) -> str:
    """SQL for whether a text stands for no value, or for an infinite one."""
    return f"{text} IN {sql_list(MISSING_WORDS)} OR lower({text}) IN {sql_list(INFINITE_WORDS)}"


def _value_stats(db: Any, table: str, column: str, text: str, kind: str, decimal: str) -> ColumnStats:
    """The statistics of a column whose values are the SQL ``text``."""
    macro = "number_comma" if decimal == "," else "number_point"
    number, has_price = f"{macro}(text)", "has_currency(priced)"
    if name_score(column, "rating"):
        number = f"coalesce({number}, rating_number(text))"
    if name_score(column, "price"):
        number = f"CASE WHEN lower(text) IN {sql_list(FREE_WORDS)} THEN 0.0 ELSE {number} END"
        has_price = f"({has_price} OR number IS NULL)"
    values_sql = (
        f"(SELECT *, CASE WHEN has_price THEN {macro}(bare) END AS price "
        f"FROM (SELECT *, {has_price} AS has_price, without_mark(priced) AS bare "
        f"FROM (SELECT *, {number} AS number, price_text(text) AS priced "
        f"FROM (SELECT {text} AS text, rowid AS row FROM {identifier(table)}))))"
    )
    row = _fetch_dict(db, _STATISTICS.replace("{values}", values_sql))
    examples = db.execute(
        f"SELECT text FROM {values_sql} WHERE text IS NOT NULL GROUP BY text ORDER BY min(row) LIMIT 3"
    ).fetchall()

    def shares(*conditions: str, rows: int | None = None) -> list[float]:
        limit = f" LIMIT {rows}" * bool(rows)
        averages = ", ".join(f"avg(CAST(coalesce({condition}, false) AS INTEGER))" for condition in conditions)
        forms = "written_time(text) AS written, iso_text(text) AS iso"
        values = f"SELECT *, {forms} FROM {values_sql} WHERE text IS NOT NULL{limit}"
        row = fetch_row(db, f"SELECT {averages} FROM ({values})")
        return [float(share or 0) for share in row]

    numbers = float(row["numbers"] or 0) if kind != "token" else 0.0
    varies = numbers < MIN_TIMES or row["distinct"] > 1  # one number in all rows is no time
    may_be_times = row["values"] and varies and (row["characters"] or 0) < EXAMPLE_LENGTH
    is_named_time = bool(name_words(column) & SUBJECT_WORDS["time"])
    times, zoned = _time_formats(shares, kind, numbers, is_named_time) if may_be_times else ((), None)
    averages = ("characters", "words", "money", "flags", "urls", "arrays", "objects", "vectors", "clocks", "grouped")
    average = {name: float(row[name] or 0) for name in averages}
    return ColumnStats(
        name=column, kind=kind, values=row["values"], filled=row["values"] / row["rows"] if row["rows"] else 0.0,
        distinct=row["distinct"], examples=tuple(value[:EXAMPLE_LENGTH] for (value,) in examples), numbers=numbers,
        is_integer=row["is_integer"], low=row["low"], high=row["high"],
        separator="" if kind == "list" else _separator(row), times=times, zoned=zoned, **average,
    )  # fmt: skip


_STATISTICS = rf"""
SELECT count(text) AS "values", count(*) AS "rows", count(DISTINCT text) AS "distinct",
    avg(CAST(coalesce(isfinite(number), false) AS INTEGER)) FILTER (text IS NOT NULL) AS numbers,
    coalesce(bool_and(number = floor(number)) FILTER (number IS NOT NULL), false) AS is_integer,
    min(coalesce(number, price)) FILTER (isfinite(coalesce(number, price))) AS low,
    max(coalesce(number, price)) FILTER (isfinite(coalesce(number, price))) AS high,
    avg(CAST(price IS NOT NULL AS INTEGER)) FILTER (text IS NOT NULL) AS money,
    avg(length(text)) AS characters, avg(len(string_split_regex(text, '\s+'))) AS words,
    avg(CAST(lower(text) IN {sql_list(FLAG_WORDS)} AS INTEGER)) AS flags,
    avg(CAST(starts_with(text, 'http://') OR starts_with(text, 'https://') AS INTEGER)) AS urls,
    avg(CAST(regexp_matches(text, {literal(ARRAY)}) AS INTEGER)) AS arrays,
    avg(CAST(regexp_matches(text, {literal(OBJECT)}) AS INTEGER)) AS objects,
    avg(CAST(regexp_full_match(text, {literal(VECTOR)}) AS INTEGER)) AS vectors,
    avg(CAST(regexp_full_match(text, {literal(CLOCK)}) AS INTEGER)) AS clocks,
    CASE WHEN bool_and(regexp_matches(text, '^\D*\d{{1,3}}([.]\d{{3}})?\D*$'))
        THEN avg(CAST(regexp_matches(text, '\d[.]\d{{3}}') AS INTEGER)) END AS grouped,
    avg(CAST(contains(text, '|') AS INTEGER)) AS bars, avg(CAST(contains(text, ';') AS INTEGER)) AS semicolons,
    avg(CAST(contains(text, ' > ') AS INTEGER)) AS steps,
    avg(CAST(regexp_matches(text, '[^\W\d],\s?[^\W\d]') AS INTEGER)) AS commas
FROM {{values}}
"""


def _fetch_dict(db: Any, query: str) -> dict[str, Any]:
    cursor = db.execute(query)
    (row,) = cursor.fetchall()
    return dict(zip([name for name, *_ in cursor.description], row, strict=True))


def _separator(row: dict[str, Any]) -> str:
    """What separates the elements of a list that is written as a text; empty where it is no list."""
    if (row["words"] or 0) >= 12 or (row["arrays"] or 0) >= 0.5 or (row["urls"] or 0) >= 0.5:
        return ""
    for name, separator, least in (("bars", "|", 0.2), ("steps", ">", 0.2), ("semicolons", ";", 0.2)):
        if (row[name] or 0) > least:
            return separator
    return "," if (row["commas"] or 0) > 0.5 and (row["characters"] or 0) < 60 else ""


def _time_formats(
    shares: Shares, kind: str, numbers: float, is_named_time: bool
) -> tuple[tuple[str, ...], float | None]:
    """The units or patterns that read a column's values as times, and the share of these that names its zone."""
    if kind in ("naive", "instant"):
        return ("iso",), 1.0 if kind == "instant" else 0.0
    if kind in ("list", "flag"):
        return (), None
    if numbers >= MIN_TIMES:
        return _numeric_times(shares, is_named_time)
    # DuckDB reads "2021" and "12:30" as times too, so a date is required
    zoned = f"regexp_matches(iso, '^\\d{{4}}-\\d{{1,2}}-\\d{{1,2}}') AND regexp_matches(iso, {literal(ZONED)})"
    written = f"({zoned} OR regexp_full_match(iso, {literal(NAIVE)}))"
    iso_share, zoned_share, epoch_share, dotnet_share, digits_share, long_share = shares(
        f"{written} AND (TRY_CAST(iso AS TIMESTAMPTZ) IS NOT NULL)", zoned, "epoch_time(text) IS NOT NULL",
        "epoch_text(text) IS NOT NULL", "regexp_matches(text, '\\d')", "length(text) > 50",
    )  # fmt: skip
    if iso_share > MIN_TIMES:
        return ("iso",), zoned_share
    if dotnet_share > MIN_TIMES:
        return ("ms",), None
    if iso_share and epoch_share and iso_share + epoch_share > MIN_TIMES:
        return ("mixed",), zoned_share + epoch_share
    if digits_share < MIN_TIMES or long_share > 1 - MIN_TIMES or numbers > 0.5:
        return (), None
    fits = _fitting_patterns(shares, PATTERNS)
    return fits, (1.0 if "%z" in fits[0].lower() else 0.0) if fits else None


def _numeric_times(shares: Shares, is_named_time: bool) -> tuple[tuple[str, ...], float | None]:
    """The units that make nearly all numbers plausible times; of days of sheets, which say no zone, only by name."""
    spans = {unit: (FIRST_US / us, LAST_US / us) for unit, us in UNITS.items()}
    spans |= {unit: (first + FIRST_US * 10, first + LAST_US * 10) for unit, first in STEPS_OF_100_NS.items()}
    day_us = 86_400_000_000
    spans["excel"] = (EXCEL_EPOCH_DAYS + FIRST_US / day_us, EXCEL_EPOCH_DAYS + LAST_US / day_us)
    spans["digits"] = (19_900_101, 1e15)
    fitting = shares(*(f"number BETWEEN {low} AND {high}" for low, high in spans.values()))
    fits = [unit for unit, share in zip(spans, fitting, strict=True) if share >= MIN_TIMES]
    if "ticks" in fits:  # of this century they would be ns of 1990
        return ("ticks",), None
    if "excel" in fits:
        return (("excel",), 0.0) if is_named_time else ((), None)
    if units := tuple(unit for unit in fits if unit != "digits"):
        return units, None
    patterns = _fitting_patterns(shares, DIGIT_PATTERNS) if "digits" in fits else ()  # 20230501
    return patterns, 0.0 if patterns else None


def _fitting_patterns(shares: Shares, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns that read nearly all values as plausible times, each in another way."""
    times = {pattern: parsed("written", pattern) for pattern in patterns}
    # most patterns read no value at all, which takes a tenth of the time to find out
    read_shares = shares(*(f"({time} IS NOT NULL)" for time in times.values()), rows=SAMPLED_TIMES)
    patterns = tuple(pattern for pattern, share in zip(patterns, read_shares, strict=True) if share)
    plausible = "BETWEEN TIMESTAMP '1900-01-01' AND TIMESTAMP '2100-01-01'"
    for rows in (SAMPLED_TIMES, None):
        conditions = (f"(CAST({times[pattern]} AS TIMESTAMP) {plausible})" for pattern in patterns)
        pattern_shares = shares(*conditions, rows=rows) if patterns else []
        least = max(MIN_TIMES, max(pattern_shares, default=0.0) - 0.02)
        patterns = tuple(pattern for pattern, share in zip(patterns, pattern_shares, strict=True) if share >= least)
    different: list[str] = []
    for pattern in patterns:
        same = [f"{times[pattern]} = {times[other]}" for other in different]
        if not same or max(shares(*same)) < MIN_TIMES:
            different.append(pattern)
    return tuple(different)


def has_decimal_commas(db: Any, table: str, kinds: dict[str, str]) -> bool:
    """Whether a column of a text file is written with decimal commas."""
    # 1,234 alone may have either; 12,5 and 1.234,50 and 1 200,00 have a comma
    comma = literal(rf"^[+-]?(\d*|\d{{1,3}}(([.]|{GROUP})\d{{3}})+),(\d{{1,2}}|\d{{4,}})$")
    for column in [column for column, kind in kinds.items() if kind == "text"]:
        text = f"price_text(trim(CAST({identifier(column)} AS VARCHAR)))"
        share, commas = fetch_row(
            db,
            "SELECT avg(CAST(number_comma(text) IS NOT NULL AS INTEGER)), "
            f"count(*) FILTER (regexp_matches(text, {comma})) FROM (SELECT without_mark(text) AS text "
            f"FROM (SELECT {text} AS text FROM {identifier(table)})) "
            "WHERE text <> ''",
        )
        if (share or 0) > 0.98 and commas:
            return True
    return False
