"""What the columns of a part mean, as SQL: the canonical columns, and why a row cannot be read.

The same expressions read every source. Whatever is wrong with a row is told by the first check it fails.
"""

import difflib
from collections.abc import Callable, Collection
from typing import Any

from components.ingest.config import UNITS, Columns, IngestConfig, stored_name
from components.ingest.parts import Column, Part
from rankline.errors import SourceError
from rankline.io.sources import SPLIT_NAMES

BOOLEAN_WORDS = {"true": ("true", "t", "yes", "y", "1", "1.0"), "false": ("false", "f", "no", "n", "0", "0.0")}
ZONED = r":\d{2}([.,]\d+)?\s*(Z|z|UTC|[+-]\d{2}(:?\d{2})?)$"  # a time that tells its zone
# one that does not; what else DuckDB would read, it reads without its PM or the name of its zone
NAIVE = r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{1,2}(:\d{1,2}(\.\d*)?)?)?"
# A local time as the list of moments (UTC) it can mean: none where clocks skipped it, two where they were set back.
TIME_ZONE_MACROS = """
CREATE MACRO zone_offset(zone, utc) AS timezone(zone, CAST(utc AS TIMESTAMPTZ)) - utc;
CREATE MACRO moments(zone, told) AS list_distinct(list_filter(
    [told - zone_offset(zone, told - INTERVAL 1 DAY), told - zone_offset(zone, told + INTERVAL 1 DAY)],
    lambda utc: timezone(zone, CAST(utc AS TIMESTAMPTZ)) = told
))
"""


class Fields:
    """The columns of one part as SQL expressions over what arrives."""

    def __init__(self, part: Part, config: IngestConfig, tables: Collection[str]) -> None:
        self.part, self.config, self.tables = part, config, tables
        self.checks = [(check, literal(reason)) for check, reason in part.checks]
        self.absent: list[str] = []

    def has(self, name: str, *, setting: str) -> bool:
        """Is there such a column? One that the settings name by default may be absent, one they set may not.

        Raises:
            SourceError: where a column that the settings name is not there.
        """
        if not name or name in self.part.columns:
            return bool(name)
        default = Columns.model_fields[setting].default
        requested = setting in self.config.only  # a column that --only names has to be there
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
            + f"set ingest.columns.{setting} to the column that is meant, also where the source has renamed it "
            "since the last run (empty where there is none)",
        )

    def column(self, name: str, *, setting: str) -> Column:
        """A column that has to be there."""
        if not self.has(name, setting=setting):
            raise SourceError(
                f"the settings name no column for {setting} of {self.part.table}",
                expected=f"ingest.columns.{setting}",
                found=", ".join(self.part.columns),
                where=self.part.where,
                hint=f"set ingest.columns.{setting} to the column that is meant",
            )
        return self.part.columns[name]

    def text(self, name: str, *, setting: str) -> str:
        """A column as text; null where it is empty."""
        sql, kind = self.column(name, setting=setting)
        if kind in ("number", "decimal"):  # a whole number stays one where the source had to type it as a fraction
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
        """A column that names something, as text; null where it names nothing, and wrong where it is no plain value."""
        sql, kind = self.column(name, setting=setting)
        text = self.text(name, setting=setting)
        if kind == "number":
            exact = (
                f"CASE typeof({sql}) WHEN 'FLOAT' THEN {1 << 24} ELSE {1 << 53} END"  # from there on digits are lost
            )
            self.add_check(
                f"isfinite({sql}) AND abs({sql}) >= {exact}", f"{setting} of more digits than its type can hold"
            )
        elif kind in ("list", "object"):
            self.add_check(f"{sql} IS NOT NULL", f"{setting} is not a plain value")
        elif kind in TEXT_KINDS:
            inner = f"left({text}, 1) IN ('[', '{{') AND json_valid({text})"
            self.add_check(f"contains({text}, chr(0)) OR {inner}", f"{setting} is not a plain value")
            null_words = NULL_KEYS if setting.startswith("item") else (*NULL_KEYS, "None")
            text = f"CASE WHEN {text} NOT IN {_sql_list(null_words)} THEN {text} END"
        return text

    def price(self, name: str) -> tuple[str, str]:
        """A price as a float64, null where it cannot be read, and as it is written; it may carry its currency."""
        kind = self.column(name, setting="price").kind
        text = self.text(name, setting="price")
        if kind not in TEXT_KINDS:
            return self._number(name, setting="price"), text
        number = self._parse_number(f"trim(regexp_replace({text}, {literal(CURRENCY)}, ''))")
        return f"CASE WHEN isfinite({number}) THEN {number} END", text

    def number(self, name: str, *, setting: str, reason: str) -> str:
        """A column as a float64; a row in which it is neither empty nor a finite number is wrong."""
        kind = self.column(name, setting=setting).kind
        text, number = self.text(name, setting=setting), self._number(name, setting=setting)
        if kind not in ("integer", "flag"):
            self.add_check(f"{text} IS NOT NULL AND NOT coalesce(isfinite({number}), false)", reason)
        return number

    def _number(self, name: str, *, setting: str) -> str:
        sql, kind = self.column(name, setting=setting)
        if kind in ("number", "integer", "decimal", "flag"):
            return f"CASE WHEN isfinite(CAST({sql} AS DOUBLE)) THEN CAST({sql} AS DOUBLE) END"
        return self._parse_number(self.text(name, setting=setting))

    def _parse_number(self, text: str) -> str:
        """A text as a float64; null where it is no number as the settings say that numbers are written."""
        if self.config.files.decimal == ",":
            well_formed = rf"regexp_full_match({text}, '[+-]?(\d+|\d{{1,3}}([.]\d{{3}})+)(,\d+)?')"
            return f"CASE WHEN {well_formed} THEN TRY_CAST(replace(replace({text}, '.', ''), ',', '.') AS DOUBLE) END"
        # a comma parts thousands where nothing else can be meant: 1,234.50 and 1,234,567, but not 1,234
        has_thousands = rf"regexp_full_match({text}, '[+-]?\d{{1,3}}((,\d{{3}})+\.\d+|(,\d{{3}}){{2,}})')"
        return f"TRY_CAST(CASE WHEN {has_thousands} THEN replace({text}, ',', '') ELSE {text} END AS DOUBLE)"

    def flag(self, name: str, *, setting: str) -> str:
        """A column as true or false, true where it is empty and that says something; wrong where it is neither."""
        text = f"lower({self.text(name, setting=setting)})"
        expression = f"CASE WHEN {text} IN {BOOLEAN_WORDS['true']} THEN true WHEN {text} IN {BOOLEAN_WORDS['false']} THEN false END"
        self.add_check(f"{text} IS NOT NULL AND ({expression}) IS NULL", f"unparsable {setting}")
        return expression if self.config.only else f"coalesce({expression}, true)"

    def timestamp(self, name: str, *, setting: str, unit: str, required: bool = True) -> str:
        """A column as a moment; where it is required, a row without one, or with an implausible one, is wrong."""
        sql, kind = self.column(name, setting=setting)
        text, reason = self.text(name, setting=setting), f"unparsable {setting}"
        first, end = (f"TIMESTAMPTZ {literal(edge)}" for edge in (self.config.earliest, self.config.latest))
        unit_hint, wrong_unit = "''", ""
        if kind == "moment":
            at = f"CASE WHEN isfinite({sql}) THEN CAST({sql} AS TIMESTAMPTZ) END"
        elif kind == "naive":
            at = self._to_utc(f"CAST({sql} AS TIMESTAMP)")
        elif unit in UNITS:
            number = self._number(name, setting=setting)
            bounds = f"BETWEEN greatest(epoch_us({first}), {EARLIEST_PLAUSIBLE_US}) AND epoch_us({end})"
            fits = {other: f"{number} * {factor} {bounds}" for other, factor in UNITS.items() if other != unit}
            told = "" if setting == "known_at" else f"ingest.columns.{setting}_unit="  # it has the events' unit
            others = [f"WHEN {fit} THEN '; it would fit {told}{other}'" for other, fit in fits.items()]
            unit_hint, wrong_unit = f"CASE {' '.join(others)} ELSE '' END", f"({' OR '.join(fits.values())})"
            us = f"{number} * {UNITS[unit]}"
            us = f"CASE WHEN abs({us}) < 2e17 THEN CAST(round({us}) AS BIGINT) END"
            at = f"CAST(make_timestamp({us}) AS TIMESTAMPTZ)"
            if required:
                self.checks.append((f"isfinite({number}) AND ({us}) IS NULL", f"'implausible time' || {unit_hint}"))
        elif unit == "iso":
            told = f"regexp_matches({text}, {literal(ZONED)})"
            zoned = f"TRY_CAST(CASE WHEN {told} THEN {text} END AS TIMESTAMPTZ)"
            is_naive = f"regexp_full_match({text}, {literal(NAIVE)})"
            naive = self._to_utc(f"TRY_CAST(CASE WHEN {is_naive} THEN {text} END AS TIMESTAMP)")
            at = f"coalesce({zoned}, {naive})"
        else:
            parsed = f"try_strptime({text}, {literal(unit)})"
            at = f"CAST({parsed} AS TIMESTAMPTZ)" if "%z" in unit or "%Z" in unit else self._to_utc(parsed)
        if required:
            self.add_check(f"({at}) IS NULL", reason)
            outside = f"NOT ({at} >= {first} AND {at} < {end})"
            if wrong_unit:  # seconds taken for something finer lie in January 1970
                outside += f" OR {at} < TIMESTAMPTZ '1971-01-01 00:00:00+00' AND {wrong_unit}"
            self.checks.append((outside, f"'implausible time' || {unit_hint}"))
        return at

    def _to_utc(self, local_time: str) -> str:
        """A local time as the one moment it means; a row in which it means none or two is wrong."""
        zone = self.config.columns.time_zone
        local_time = f"CASE WHEN isfinite({local_time}) THEN {local_time} END"  # databases know a time that is infinity
        if zone == "UTC":
            return f"CAST({local_time} AS TIMESTAMPTZ)"
        if not zone:
            self.add_check(f"({local_time}) IS NOT NULL", "time without a zone")
            return f"CASE WHEN ({local_time}) IS NULL THEN NULL ELSE NULL::TIMESTAMPTZ END"
        instants = f"moments({literal(zone)}, {local_time})"
        self.add_check(f"len({instants}) > 1", f"ambiguous time: clocks of {zone} showed it twice")
        self.add_check(f"({local_time}) IS NOT NULL AND len({instants}) = 0", f"time that clocks of {zone} skipped")
        return f"CASE WHEN len({instants}) = 1 THEN CAST(({instants})[1] AS TIMESTAMPTZ) END"

    def sequence(self, name: str, *, setting: str, separator: str = "") -> str:
        """A column as a list of words: of a list or a JSON array, else split; empty where it is empty."""
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
        return f"CASE WHEN {_is_json_array(text)} THEN json_extract_string({text}, '$[*]') ELSE {values} END"

    def declared(self, name: str, *, setting: str) -> str:
        """A column as the source types it: a number, a list of numbers, a list of words, else words."""
        kind = self.column(name, setting=setting).kind
        if kind == "float":
            return self.number(name, setting=setting, reason=f"unparsable {name}")
        if kind == "float_seq":
            return self.numbers(name, setting=setting, type="DOUBLE")
        return self.sequence(name, setting=setting) if kind == "token_seq" else self.text(name, setting=setting)

    def numbers(self, name: str, *, setting: str, type: str = "FLOAT") -> str:
        """A column as a list of numbers (a list, a JSON array, or a text of them); null where it is empty."""
        sql, kind = self.column(name, setting=setting)
        if kind == "list":
            parsed = f"list_transform({sql}, lambda number: TRY_CAST(number AS {type}))"
        else:
            sql = self.text(name, setting=setting)
            split = rf"regexp_extract_all(coalesce({sql}, ''), '[^\s,;|\[\]]+')"
            parsed = f"list_transform({split}, lambda number: TRY_CAST(number AS {type}))"
            if kind == "text":
                parsed = f"CASE WHEN ({sql}) IS NOT NULL THEN {parsed} END"
        all_finite = f"list_bool_and(list_transform({parsed}, lambda number: coalesce(isfinite(number), false)))"
        self.add_check(f"NOT coalesce({all_finite}, true)", f"unparsable {name}")
        return f"CASE WHEN len({parsed}) > 0 THEN {parsed} END"

    def add_check(self, check: str, reason: str) -> None:
        self.checks.append((check, literal(reason)))

    def rejection_reason(self) -> str:
        """Why a row cannot be read: the first check it fails, or null."""
        if not self.checks:
            return "NULL::VARCHAR"
        return "CASE " + " ".join(f"WHEN {check} THEN {reason}" for check, reason in self.checks) + " END"

    def extra(self, subject: str) -> dict[str, str]:
        """The declared columns of a table behind the canonical ones."""
        columns, expressions = self.config.columns, {}
        for setting in (f"{subject}_attributes", f"{subject}_numbers", f"{subject}_vectors"):
            for name in getattr(columns, setting, ()):
                if not self.has(name, setting=setting):
                    continue
                if setting.endswith("numbers"):
                    expression = self.number(name, setting=setting, reason=f"unparsable {name}")
                elif setting.endswith("vectors"):
                    expression = self.numbers(name, setting=setting)
                else:
                    expression = self.declared(name, setting=setting)
                expressions[stored_name(name)] = expression
        return expressions


def _is_json_array(text: str) -> str:
    return f"starts_with({text}, '[') AND json_valid({text})"


def events(fields: Fields, columns: Columns) -> dict[str, str]:
    """The canonical columns of events, and the labels and declared ones behind them."""
    timestamp = f"TIMESTAMPTZ '{FIXED_TIME}'"
    if columns.timestamp:
        timestamp = fields.timestamp(columns.timestamp, setting="timestamp", unit=columns.timestamp_unit)
    known = timestamp
    if fields.has(columns.known_at, setting="known_at"):
        known = fields.timestamp(columns.known_at, setting="known_at", unit=columns.timestamp_unit)
    user = fields.key(columns.user_id, setting="user_id") if columns.user_id else NULL_TEXT
    expressions = {
        "event_timestamp": timestamp,
        "known_at": known,
        "user_id": user,
        "query_id": fields.key(columns.query_id, setting="query_id") if columns.query_id else NULL_TEXT,
        "item_id": fields.key(columns.item_id, setting="item_id"),
    }
    if "queries" not in fields.tables:
        query_columns = _query_columns(fields, columns) if columns.query_text or columns.turns else {}
        if columns.query_id and not query_columns:
            raise SourceError(
                "nothing says the words of the queries",
                expected="a table of queries, or a column of events with the words",
                found=f"only their names ({columns.query_id})",
                where=fields.part.where,
                hint="set ingest.tables.queries, or ingest.columns.query_text to the column (ingest.columns.query_id "
                "empty where queries do not matter)",
            )
        if query_columns and not columns.query_id:  # a query is known by what was asked
            identity = " || chr(30) || ".join(
                f"coalesce(CAST({each} AS VARCHAR), '')" for each in query_columns.values()
            )
            all_null = " AND ".join(f"({each}) IS NULL" for each in query_columns.values())
            expressions["query_id"] = f"CASE WHEN NOT ({all_null}) THEN left(sha256({identity}), 20) END"
        expressions |= {f"asked_{name}": each for name, each in query_columns.items()}
    expressions |= {
        label: fields.number(name, setting="labels", reason=f"unparsable {label}")
        for label, name in sorted(columns.labels.items())
        if fields.has(name, setting="labels")
    }
    if columns.event_type:
        expressions |= _event_type_labels(fields, columns)
    if fields.part.split:
        expressions["split"] = literal(fields.part.split)
    elif columns.split:
        text = f"lower({fields.text(columns.split, setting='split')})"
        cases = " ".join(f"WHEN {literal(word)} THEN {literal(split)}" for word, split in SPLIT_NAMES.items())
        expressions["split"] = f"CASE {text} {cases} END"
        fields.add_check(f"({expressions['split']}) IS NULL", "unknown split")
    return expressions | fields.extra("event")


def _event_type_labels(fields: Fields, columns: Columns) -> dict[str, str]:
    """Label -> 1 where the event is of a type that means it, else 0."""
    text = fields.text(columns.event_type, setting="event_type")
    fields.add_check(f"{text} IS NULL OR {text} NOT IN {_sql_list(columns.event_types)}", "unknown event type")
    labels = {}
    for label in sorted({label for label in columns.event_types.values() if label}):
        values = [value for value, labelled in columns.event_types.items() if labelled == label]
        labels[label] = f"CAST({text} IN {_sql_list(values)} AS DOUBLE)"
    return labels


def _query_columns(fields: Fields, columns: Columns) -> dict[str, str]:
    """What was asked: a text, the turns of a conversation, or both; the text of a conversation is its last turn."""
    turns = ""
    if columns.turns:
        turns = fields.sequence(columns.turns, setting="turns", separator=columns.turns_separator)
        turns = f"CASE WHEN len({turns}) > 0 THEN {turns} END"
    text = fields.text(columns.query_text, setting="query_text") if columns.query_text else f"({turns})[-1]"
    return {"text": text, "turns": turns or "NULL::VARCHAR[]"}


def items(fields: Fields, columns: Columns) -> dict[str, str]:
    """The canonical columns of items, and the declared ones behind them."""
    title = NULL_TEXT
    if fields.has(columns.title, setting="title"):
        title = fields.text(columns.title, setting="title")
    text = [fields.text(name, setting="text") for name in columns.text if fields.has(name, setting="text")]
    created, extra = "NULL::TIMESTAMPTZ", {}
    if columns.created_at:
        created = fields.timestamp(
            columns.created_at, setting="created_at", unit=columns.created_at_unit, required=False
        )
    elif fields.has(columns.created_year, setting="created_year"):
        # a year that is none leaves the item without one: its words and its events are still good
        year_value = f"TRY_CAST({fields.text(columns.created_year, setting='created_year')} AS DOUBLE)"
        year = f"CASE WHEN {year_value} BETWEEN 1 AND 9999 THEN CAST(floor({year_value}) AS INTEGER) END"
        created = f"CAST(make_timestamp({year}, 1, 1, 0, 0, 0) AS TIMESTAMPTZ)"
        suffix = f"' (' || ({year}) || ')'"
        already_dated = f"{year} IS NULL OR ends_with({title}, {suffix})"
        title = f"CASE WHEN {already_dated} THEN {title} ELSE {title} || {suffix} END"
        extra["release_year"] = year
    price, price_told = fields.price(columns.price) if columns.price else ("NULL::DOUBLE", NULL_TEXT)
    language = fields.text(columns.language, setting="language") if columns.language else NULL_TEXT
    category = "[]::VARCHAR[]"
    if fields.has(columns.category, setting="category"):
        category = fields.sequence(columns.category, setting="category", separator=columns.category_separator)
    return (
        {
            "item_id": _key_column(fields, columns, "item"),
            "title": title,
            "text": f"nullif(concat_ws(' ', {', '.join(text)}), '')" if text else NULL_TEXT,
            "language": f"replace(lower({language}), '_', '-')",
            "category": category,
            "price": price,
            "price_told": price_told,
            "available": fields.flag(columns.available, setting="available") if columns.available else "true",
            "created_at": created,
        }
        | extra
        | fields.extra("item")
    )


def users(fields: Fields, columns: Columns) -> dict[str, str]:
    """The canonical column of users, and the declared ones behind it."""
    return {"user_id": _key_column(fields, columns, "user")} | fields.extra("user")


def queries(fields: Fields, columns: Columns) -> dict[str, str]:
    """The canonical columns of queries."""
    if not columns.query_text and not columns.turns:
        fields.column("", setting="query_text")
    return {"query_id": _key_column(fields, columns, "query")} | _query_columns(fields, columns)


def _key_column(fields: Fields, columns: Columns, subject: str) -> str:
    """The column of a table that names its rows; it may be called otherwise there than in the events."""
    setting = f"{subject}_key" if getattr(columns, f"{subject}_key") else f"{subject}_id"
    return fields.key(getattr(columns, setting), setting=setting)


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _sql_list(values: Any) -> str:
    return f"({', '.join(literal(value) for value in values)})"


EARLIEST_PLAUSIBLE_US = (
    631_152_000_000_000  # 1990: no log is older, so another unit that leads there is not what was meant
)
NULL_TEXT = "NULL::VARCHAR"
NULL_KEYS = ("nan", "NaN", "NULL", "null", "<NA>", "\\N")  # what tools write into a text where there is nothing
# a sign or an ISO code, before or behind a price
CURRENCY = r"^(\p{Sc}|[A-Z]{3})|(\p{Sc}|[A-Z]{3})$"
FIXED_TIME = "2000-01-01 00:00:00+00"  # of a source that has no times
TEXT_KINDS = ("text", "token", "token_seq", "float", "float_seq")
# settings whose default column may be absent; every other column that is named has to be there
OPTIONAL_SETTINGS = ("category", "created_year", "labels", "user_attributes")
TRIM_WORD = "lambda word: trim(CAST(word AS VARCHAR))"
NOT_EMPTY = "lambda word: word <> ''"
SELECTS: dict[str, Callable[[Fields, Columns], dict[str, str]]] = {
    "events": events,
    "items": items,
    "users": users,
    "queries": queries,
}
