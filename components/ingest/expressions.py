"""The columns of a part as SQL expressions, with the checks that reject a row.

All formats share these expressions. A row is rejected with the reason of the first check that it fails.
"""

import difflib
import zoneinfo
from collections.abc import Collection, Iterable

from components.ingest.config import Columns, IngestConfig, stored_name
from components.ingest.ids import normalised, whole
from components.ingest.readers.parts import Column, Part
from components.ingest.times import EXCEL_EPOCH_DAYS, FIRST_US, NAIVE, STEPS_OF_100_NS, UNITS, ZONED, parsed
from rankline.contracts import TIME_ZONE
from rankline.errors import SourceError
from rankline.io.sql import literal

BOOLEAN_WORDS = {
    "true": (
        "true", "t", "yes", "y", "1", "1.0", "on", "ja", "oui", "sí", "si", "sim", "sì", "tak", "ano", "igen",
        "evet", "да", "так", "是", "はい", "예", "네", "نعم", "✓", "✔", "☑", "✅",
    ),
    "false": (
        "false", "f", "no", "n", "0", "0.0", "off", "nein", "nee", "non", "não", "nie", "ne", "nem", "hayır", "нет",
        "ні", "否", "いいえ", "아니요", "아니오", "لا", "✗", "✘", "☐", "❌",
    ),
}  # fmt: skip
NO_DATE = "TIMESTAMPTZ '9999-12-30 00:00:00+00'"  # the last day of years, in any zone
NULL_KEYS = ("nan", "NaN", "NULL", "null", "<NA>", "\\N")  # what tools write for a missing value
NULL_VALUES = (*NULL_KEYS, "None", "none", "NA", "N/A", "n/a")  # the same for a label
# what stands for a missing value beside numbers, times, and yes and no
MISSING_WORDS = (*NULL_VALUES, "#N/A", "NaT", "undefined", "-", "--", "—", "?")
FREE_WORDS = (
    "free", "gratis", "kostenlos", "umsonst", "gratuit", "gratuito", "grátis", "бесплатно", "免费", "無料", "무료",
)  # fmt: skip
INFINITE_WORDS = ("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "∞")
TEXT_KINDS = ("text", "token", "token_seq", "float", "float_seq")
# settings whose default column may be absent; all other columns that settings name must exist
OPTIONAL_SETTINGS = ("category", "created_year", "labels", "user_attributes")
TRIM_WORD = "lambda word: trim(CAST(word AS VARCHAR))"
NOT_EMPTY = "lambda word: word <> ''"


class ColumnExpressions:
    """The columns of one part as SQL expressions over its rows; using a column adds the checks of its values."""

    def __init__(self, part: Part, config: IngestConfig, tables: Collection[str]) -> None:
        self.part, self.config, self.tables = part, config, tables
        self.checks = [(check, literal(reason)) for check, reason in part.checks]
        self.absent: list[str] = []
        self.empty: list[str] = []  # columns that only other parts of the table have
        self._shared_sql: list[str] = []  # what several expressions share
        self.raw_user = ""  # SQL of the user's id before it is normalised, once it is used
        self.plain_user = ""  # SQL of the user's id before it is hashed, once it is used

    def relation(self, rows: str) -> str:
        """SQL of ``rows`` with what several expressions share."""
        for number, expression in enumerate(self._shared_sql):  # a level each, or DuckDB would repeat the expressions
            rows = f"(SELECT *, {expression} AS shared_expression_{number} FROM {rows})"
        return rows

    def _shared(self, expression: str) -> str:
        """The name of a column of `relation` with this expression, which is planned and computed once."""
        self._shared_sql.append(expression)
        return f"shared_expression_{len(self._shared_sql) - 1}"

    def has(self, name: str, *, setting: str) -> bool:
        """Whether the table has a column; only the default column of an optional setting may be absent.

        Raises:
            SourceError: a column that the settings name is absent.
        """
        if not name or name in self.part.columns:
            return bool(name)
        if self.part.others_have(name):
            self.empty.append(name)
            self.part.columns[name] = Column("NULL::VARCHAR", "text")
            return True
        default = Columns.model_fields[setting].default
        requested = setting in self.config.only  # a column that --only names must exist
        if setting in OPTIONAL_SETTINGS and getattr(self.config.columns, setting) == default and not requested:
            self.absent.append(name)
            return False
        names = list(self.part.columns)
        closest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise SourceError(
            f"the {self.part.table} have no column {name!r}",
            expected=f"a column {name!r}",
            found=", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else ""),
            where=self.part.where,
            hint=(f"is {closest[0]!r} meant? " if closest else "")
            + f"set ingest.columns.{setting} to the right column, or to '' if there is none; the source may have "
            "renamed it since the last run",
        )

    def column(self, name: str, *, setting: str) -> Column:
        """A column that must exist.

        Raises:
            SourceError: it is absent, or the settings name none.
        """
        if not self.has(name, setting=setting):
            raise SourceError(
                f"the settings name no column for {setting} of {self.part.table}",
                expected=f"ingest.columns.{setting}",
                found=", ".join(self.part.columns),
                where=self.part.where,
                hint=f"set ingest.columns.{setting} to the right column",
            )
        return self.part.columns[name]

    def text(self, name: str, *, setting: str) -> str:
        """A column as text; null where it is empty."""
        sql, kind = self.column(name, setting=setting)
        if kind in ("number", "decimal"):  # an integer stays one if the source stores it as a float
            expression = rf"regexp_replace(CAST({sql} AS VARCHAR), '[.]0+$|([.]\d*[1-9])0+$', '\1')"
            return f"CASE WHEN isfinite(CAST({sql} AS DOUBLE)) THEN {expression} END"
        if kind == "integer":
            return f"CAST({sql} AS VARCHAR)"
        if kind == "list":
            return f"nullif(array_to_string({sql}, ' '), '')"
        expression = f"nullif(trim({sql if kind in TEXT_KINDS else f'CAST({sql} AS VARCHAR)'}), '')"
        for null in self.config.files.missing:
            expression = f"nullif({expression}, {literal(null)})"
        return expression

    def key(self, name: str, *, setting: str) -> str:
        """An id column as text; null where it is empty, rejected where it is not a scalar."""
        sql, kind = self.column(name, setting=setting)
        text = raw = self.text(name, setting=setting)
        if kind == "number":
            exact = f"CASE typeof({sql}) WHEN 'FLOAT' THEN {1 << 24} ELSE {1 << 53} END"  # larger ids have lost digits
            too_large = f"isfinite({sql}) AND abs({sql}) >= {exact}"
            self.add_check(too_large, f"{setting} of more digits than its type can hold")
        elif kind in ("list", "object"):
            self.add_check(f"{sql} IS NOT NULL", f"{setting} is not a plain value")
        elif kind in TEXT_KINDS:
            inner = f"left({text}, 1) IN ('[', '{{') AND json_valid({text})"
            self.add_check(f"contains({text}, chr(0)) OR {inner}", f"{setting} is not a plain value")
            if kind == "text":  # 1.08775E+08, as sheets write a long number
                is_rounded = rf"regexp_full_match({text}, '\d[.,]\d+[eE][+]\d+')"
                self.add_check(is_rounded, f"{setting} of more digits than its type can hold")
            null_words = NULL_KEYS if setting.startswith("item") else (*NULL_KEYS, "None")
            text = f"CASE WHEN {text} NOT IN {sql_list(null_words)} THEN {whole(text) if kind == 'text' else text} END"
        if names := self.config.columns.normalise_ids:
            text = f"nullif({normalised(text, names)}, '')"
        if not setting.startswith("user"):
            return text
        self.raw_user, self.plain_user = raw, text
        return f"hash_user({text})" if self.config.hash_users else text

    def price(self, name: str) -> tuple[str, str]:
        """A price as a float64 (null where it cannot be read), and as it is written; it may include a currency."""
        kind = self.column(name, setting="price").kind
        text = self.text(name, setting="price")
        if kind not in TEXT_KINDS:
            return self._number(name, setting="price"), text
        text = self._shared(f"CASE WHEN {text} NOT IN {sql_list(MISSING_WORDS)} THEN {text} END")
        bare = self._shared(f"without_mark({self._shared(f'price_text({text})')})")
        number = self._shared(self._parse_number(bare))
        is_free = f"lower({text}) IN {sql_list(FREE_WORDS)}"
        return f"CASE WHEN {is_free} THEN 0.0 WHEN isfinite({number}) THEN {number} END", text

    def number(self, name: str, *, setting: str, reason: str) -> str:
        """A column as a float64; a value that is neither empty, a finite number, nor yes or no rejects the row."""
        kind = self.column(name, setting=setting).kind
        text, number = self.text(name, setting=setting), self._number(name, setting=setting)
        has_words = kind in TEXT_KINDS  # a word for missing is no value
        given = f"{text} NOT IN {sql_list(MISSING_WORDS)}" if has_words else f"{text} IS NOT NULL"
        if has_words:  # yes and no are 1 and 0
            others = f"CAST({_yes_or_no(text)} AS DOUBLE)" + f", rating_number({text})" * (setting == "labels")
            number = self._shared(f"coalesce({number}, {others})")
        if kind not in ("integer", "flag"):
            self.add_check(f"{given} AND NOT coalesce(isfinite({number}), false)", reason)
        return f"CASE WHEN {given} THEN {number} END" if has_words else number

    def _number(self, name: str, *, setting: str) -> str:
        sql, kind = self.column(name, setting=setting)
        if kind in ("number", "integer", "decimal", "flag"):
            return f"CASE WHEN isfinite(CAST({sql} AS DOUBLE)) THEN CAST({sql} AS DOUBLE) END"
        return self._parse_number(self.text(name, setting=setting))

    def _parse_number(self, text: str) -> str:
        """A text as a float64; null where it is not a number in the format of `ingest.files.decimal`."""
        return f"number_{'comma' if self.config.files.decimal == ',' else 'point'}({text})"

    def flag(self, name: str, *, setting: str) -> str:
        """A column as a boolean, true where it is empty (unless the source is partial); other values reject the row."""
        text = self.text(name, setting=setting)
        expression = _yes_or_no(text)
        self.add_check(f"{text} IS NOT NULL AND ({expression}) IS NULL", f"unparsable {setting}")
        return expression if self.config.only else f"coalesce({expression}, true)"

    def timestamp(self, name: str, *, setting: str, unit: str, required: bool = True) -> str:
        """A column as a time in UTC; a required one rejects rows without a time, or with an implausible one."""
        sql, kind = self.column(name, setting=setting)
        first, end = self._plausible_range()
        unit_hint, other_units = "''", ""
        if kind == "instant":
            utc = f"CASE WHEN isfinite({sql}) THEN TRY_CAST({sql} AS TIMESTAMPTZ) END"
        elif kind == "naive":
            clock = self._time_of_day(setting)
            time = f"TRY_CAST({sql} AS DATE) + TRY_CAST({clock} AS TIME)" if clock else f"TRY_CAST({sql} AS TIMESTAMP)"
            utc = self._to_utc(time)
        elif unit == "excel":  # local days since 1899-12-30
            days = self._number(name, setting=setting)
            ms = f"CASE WHEN abs({days}) < 3e6 THEN CAST(round(({days} - {EXCEL_EPOCH_DAYS}) * 86400000) AS BIGINT) END"
            utc = self._to_utc(f"make_timestamp_ms({ms})")
        elif unit in STEPS_OF_100_NS:
            steps = f"TRY_CAST({self.text(name, setting=setting)} AS HUGEINT)"
            us = f"CASE WHEN abs({steps}) < 4e18 THEN CAST(({steps} - {STEPS_OF_100_NS[unit]}) // 10 AS BIGINT) END"
            utc = f"CAST(make_timestamp({us}) AS TIMESTAMPTZ)"
        elif unit in UNITS:
            number = self._number(name, setting=setting)
            if kind in TEXT_KINDS:  # /Date(1680000000000)/, as .NET writes JSON
                text = self.text(name, setting=setting)
                number = self._shared(f"coalesce({number}, TRY_CAST(epoch_text({text}) AS DOUBLE))")
            unit_hint, other_units = self._fitting_units(number, setting=setting, unit=unit)
            us = f"{number} * {UNITS[unit]}"
            us = f"CASE WHEN abs({us}) < 2e17 THEN CAST(round({us}) AS BIGINT) END"
            utc = f"CAST(make_timestamp({us}) AS TIMESTAMPTZ)"
            if required:
                # 0 stands for no time
                no_time = f"isfinite({number}) AND (({us}) IS NULL OR {number} = 0)"
                self.checks.append((no_time, f"'implausible time' || {unit_hint}"))
        else:
            text, clock = self.text(name, setting=setting), self._time_of_day(setting)
            utc = self._parse_time(f"{text} || ' ' || {clock}" if clock else text, unit)
        utc = self._shared(utc)
        if required:
            self.add_check(f"({utc}) IS NULL", f"unparsable {setting}")
            outside = f"NOT ({utc} >= {first} AND {utc} < {end})"
            if other_units:  # seconds read as a finer unit are in January 1970
                outside += f" OR {utc} < TIMESTAMPTZ '1971-01-01 00:00:00+00' AND {other_units}"
            self.checks.append((outside, f"'implausible time' || {unit_hint}"))
            return utc
        # year 1 and year 9999 stand for no date
        return f"CASE WHEN {utc} >= TIMESTAMPTZ '1000-01-01 00:00:00+00' AND {utc} < {NO_DATE} THEN {utc} END"

    def growing(self, name: str, *, setting: str) -> str:
        """A column of times in ISO 8601, or of numbers, as a number that grows; others reject the row."""
        text = self.text(name, setting=setting)
        iso = f"TRY_CAST(iso_text({text}) AS TIMESTAMPTZ)"
        value = self._shared(f"coalesce(epoch(epoch_time({text})), epoch({iso}), {self._parse_number(text)})")
        self.add_check(f"NOT coalesce(isfinite({value}), false)", f"unparsable {setting}")
        return value

    def _time_of_day(self, setting: str) -> str:
        """The time of day beside a date, as text; empty if the settings name no such column."""
        name = self.config.columns.time_of_day if setting == "timestamp" else ""
        return self.text(name, setting="time_of_day") if name else ""

    def _plausible_range(self) -> tuple[str, str]:
        return f"TIMESTAMPTZ {literal(self.config.earliest)}", f"TIMESTAMPTZ {literal(self.config.latest)}"

    def _fitting_units(self, number: str, *, setting: str, unit: str) -> tuple[str, str]:
        """A hint at another unit in which a number is a plausible time, and the condition that there is one."""
        first, end = self._plausible_range()
        # no log is older than 1990, so a unit that gives an earlier time is wrong
        bounds = f"BETWEEN greatest(epoch_us({first}), {FIRST_US}) AND epoch_us({end})"
        fits = {other: f"{number} * {factor} {bounds}" for other, factor in UNITS.items() if other != unit}
        prefix = "" if setting == "known_at" else f"ingest.columns.{setting}_unit="  # known_at has the events' unit
        cases = [f"WHEN {fit} THEN '; it would fit {prefix}{other}'" for other, fit in fits.items()]
        return f"CASE {' '.join(cases)} ELSE '' END", f"({' OR '.join(fits.values())})"

    def _parse_time(self, text: str, unit: str) -> str:
        """A text as a time in UTC, by ISO 8601 or a strptime pattern."""
        if unit not in ("iso", "mixed"):
            time = self._shared(parsed(f"written_time({text})", unit))
            return f"CAST({time} AS TIMESTAMPTZ)" if "%z" in unit or "%Z" in unit else self._to_utc(time)
        epoch = [f"epoch_time({text})"] if unit == "mixed" else []
        text = self._shared(f"iso_text({text})")
        has_zone = f"regexp_matches({text}, {literal(ZONED)})"
        zoned = f"TRY_CAST(CASE WHEN {has_zone} THEN {text} END AS TIMESTAMPTZ)"
        is_naive = f"regexp_full_match({text}, {literal(NAIVE)})"
        naive = self._to_utc(f"TRY_CAST(CASE WHEN {is_naive} THEN {text} END AS TIMESTAMP)")
        return f"coalesce({', '.join([*epoch, zoned, naive])})"

    def _to_utc(self, local_time: str) -> str:
        """A local time in UTC; one that clocks skipped or showed twice rejects the row."""
        zone = self.config.columns.time_zone
        local_time = f"CASE WHEN isfinite({local_time}) THEN {local_time} END"  # databases have infinite times
        if zone == "UTC":
            return f"CAST({local_time} AS TIMESTAMPTZ)"
        if not zone:
            self.add_check(f"({local_time}) IS NOT NULL", "time without a zone")
            return f"CASE WHEN ({local_time}) IS NULL THEN NULL ELSE NULL::TIMESTAMPTZ END"
        utc_times = f"utc_times({literal(zone)}, {local_time})"
        self.add_check(f"len({utc_times}) > 1", f"ambiguous time: clocks of {zone} showed it twice")
        self.add_check(f"({local_time}) IS NOT NULL AND len({utc_times}) = 0", f"time that clocks of {zone} skipped")
        return f"CASE WHEN len({utc_times}) = 1 THEN CAST(({utc_times})[1] AS TIMESTAMPTZ) END"

    def sequence(self, name: str, *, setting: str, separator: str = "") -> str:
        """A column as a list of texts: a list, one that is written in a text, or a text that is split; never null."""
        sql, kind = self.column(name, setting=setting)
        if kind == "list":
            return f"list_filter(list_transform(coalesce({sql}, []), {TRIM_WORD}), {NOT_EMPTY})"
        text = self.text(name, setting=setting)
        values = f"CASE WHEN {text} IS NULL THEN [] ELSE [{text}] END"
        if kind == "token_seq":
            separator = separator or " "
        if separator:
            split = f"string_split(coalesce({text}, ''), {literal(separator)})"
            values = f"list_filter(list_transform({split}, lambda word: trim(word)), {NOT_EMPTY})"
        if kind != "text":
            return values
        return f"coalesce(list_filter(list_transform(text_list({text}), {TRIM_WORD}), {NOT_EMPTY}), {values})"

    def declared(self, name: str, *, setting: str) -> str:
        """A column as the source types it: a number, a list of numbers, a list of texts, else a text."""
        kind = self.column(name, setting=setting).kind
        if kind == "float":
            return self.number(name, setting=setting, reason=f"unparsable {name}")
        if kind == "float_seq":
            return self.numbers(name, setting=setting, type="DOUBLE")
        return self.sequence(name, setting=setting) if kind == "token_seq" else self.text(name, setting=setting)

    def numbers(self, name: str, *, setting: str, type: str = "FLOAT") -> str:
        """A column as a list of numbers (from a list, a JSON array, or a text); null where it is empty."""
        sql, kind = self.column(name, setting=setting)
        if kind == "list":
            parsed = f"list_transform({sql}, lambda number: TRY_CAST(number AS {type}))"
        else:
            sql = self.text(name, setting=setting)
            parsed = f"list_transform(number_words({sql}), lambda number: TRY_CAST(number AS {type}))"
            if kind == "text":
                parsed = f"CASE WHEN ({sql}) IS NOT NULL THEN {parsed} END"
        all_finite = f"list_bool_and(list_transform({parsed}, lambda number: coalesce(isfinite(number), false)))"
        self.add_check(f"NOT coalesce({all_finite}, true)", f"unparsable {name}")
        return f"CASE WHEN len({parsed}) > 0 THEN {parsed} END"

    def add_check(self, check: str, reason: str) -> None:
        """Reject rows that meet the SQL condition ``check``."""
        self.checks.append((check, literal(reason)))

    def reject_reason(self) -> str:
        """The reason of the first check that a row fails, or null."""
        if not self.checks:
            return "NULL::VARCHAR"
        return "CASE " + " ".join(f"WHEN {check} THEN {reason}" for check, reason in self.checks) + " END"

    def extra(self, subject: str) -> dict[str, str]:
        """The declared columns of a table, by the names they are stored under."""
        columns, expressions = self.config.columns, {}
        for setting in (f"{subject}_attributes", f"{subject}_numbers", f"{subject}_vectors", f"{subject}_texts"):
            for name in getattr(columns, setting, ()):
                if not self.has(name, setting=setting):
                    continue
                if setting.endswith("numbers"):
                    expression = self.number(name, setting=setting, reason=f"unparsable {name}")
                elif setting.endswith("vectors"):
                    expression = self.numbers(name, setting=setting)
                elif setting.endswith("texts"):
                    expression = self.text(name, setting=setting)
                else:
                    expression = self.declared(name, setting=setting)
                expressions[stored_name(name)] = expression
        if zone := getattr(columns, f"{subject}_time_zone", ""):
            expressions[TIME_ZONE] = self.zone(zone, setting=f"{subject}_time_zone")
            expressions["time_zone_as_written"] = self.text(zone, setting=f"{subject}_time_zone")
        return expressions

    def zone(self, name: str, *, setting: str) -> str:
        """A column as the name of a time zone; null where it is none, which is then UTC."""
        text = self.text(name, setting=setting)
        return f"CASE WHEN {text} IN {sql_list(sorted(zoneinfo.available_timezones()))} THEN {text} END"


def _yes_or_no(text: str) -> str:
    true, false = (sql_list(BOOLEAN_WORDS[name]) for name in ("true", "false"))
    return f"CASE WHEN lower({text}) IN {true} THEN true WHEN lower({text}) IN {false} THEN false END"


def sql_list(values: Iterable[str]) -> str:
    return f"({', '.join(literal(value) for value in values)})"
