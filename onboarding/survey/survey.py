"""The survey of a source: its tables, their first rows in DuckDB, and the statistics of their columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from components.ingest.config import AllColumns, IngestConfig, TextFiles
from components.ingest.ids import Meeting, find_meeting, whole
from components.ingest.lists import LIST_MACROS
from components.ingest.numbers import NUMBER_MACROS
from components.ingest.readers import parts, recbole, sql, tables, text_stream
from components.ingest.readers.encoding import EncodingGuess, guess_encoding, has_few_nuls
from components.ingest.readers.parts import Part
from components.ingest.times import TIME_MACROS
from onboarding.survey.language import detect_language
from onboarding.survey.locations import (
    database_tables,
    detect_source,
    files_at,
    other_files,
    require_table_kind,
    short_names,
    table_places,
)
from onboarding.survey.sample import load_sample
from onboarding.survey.statistics import ColumnStats, column_stats, has_decimal_commas
from onboarding.survey.text_files import detect_quoting, parse_file_settings
from onboarding.tables import MEMORY_MB
from rankline.errors import SourceError, UsageError, no_rows_error
from rankline.io import sources
from rankline.io.sources import File, Tables, postgres
from rankline.io.sql import fetch_row, identifier, memory_database

SAMPLE_ROWS = 100_000  # of each table
LANGUAGE_ROWS = 500
ANY_CONTENT = ("dat", "data")  # endings of tables, and of anything else
UTF_8 = EncodingGuess(("utf-8",), ("utf-8",))


@dataclass(frozen=True)
class TableSurvey:
    """One table of a source; its first rows are in DuckDB under its name."""

    name: str
    place: str
    rows: int
    is_complete: bool  # the sample holds all of its rows
    files: int
    columns: dict[str, ColumnStats]
    size: int = 0  # stored bytes; 0 in a database

    @property
    def rows_text(self) -> str:
        """The number of rows, as it is shown to people."""
        return f"{self.rows:,} rows" if self.is_complete else f"more than {self.rows:,} rows"


@dataclass
class Survey:
    """A source and its tables."""

    source: str
    format: str
    tables: dict[str, TableSurvey]
    files: TextFiles = field(default_factory=TextFiles)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # place -> columns of files without a header
    encoding: EncodingGuess = UTF_8
    name: str | None = None
    connection: str = ""
    left_out: dict[str, str] = field(default_factory=dict)  # file -> why it is no table
    db: Any = field(default=None, repr=False)

    def overlap(self, table: str, column: str, other: str, key: str) -> float:
        """The share of a column's distinct values that are among another table's keys, within the samples."""
        left, right = (_id_text(name) for name in (column, key))
        query = (
            f"SELECT avg(CAST(value IN (SELECT {right} FROM {identifier(other)}) AS INTEGER)) FROM "
            f"(SELECT DISTINCT {left} AS value FROM {identifier(table)} WHERE {left} IS NOT NULL)"
        )
        (share,) = fetch_row(self.db, query)
        return float(share or 0)

    def meeting(self, table: str, column: str, other: str, key: str) -> Meeting:
        """How a column's values have to be normalised to be among another table's keys, within the samples."""
        columns = ((table, column), (other, key))
        queries = [f"SELECT {_id_text(name)} AS id FROM {identifier(each)}" for each, name in columns]
        return find_meeting(self.db, *queries)

    def values(self, table: str, column: str, most: int = 30) -> dict[str, int]:
        """The most frequent values of a column and their rows, without those that are missing or blank."""
        value_sql = f"trim(CAST({identifier(column)} AS VARCHAR))"
        query = (
            f"SELECT {value_sql} AS value, count(*) AS rows FROM {identifier(table)} WHERE {value_sql} <> '' "
            f"GROUP BY ALL ORDER BY rows DESC, value LIMIT {most}"
        )
        return {str(value): int(rows) for value, rows in self.db.execute(query).fetchall()}

    def language(self, table: str, columns: list[str]) -> str:
        """The code of the language that some text columns appear to be in; empty if it is not clear."""
        text_sql = " || ' ' || ".join(f"coalesce(CAST({identifier(name)} AS VARCHAR), '')" for name in columns)
        sample = f"SELECT {text_sql} AS text FROM {identifier(table)} LIMIT {LANGUAGE_ROWS}"
        (text,) = fetch_row(self.db, f"SELECT string_agg(text, ' ') FROM ({sample})")
        return detect_language(text or "")


def _id_text(column: str) -> str:
    return whole(f"nullif(trim(CAST({identifier(column)} AS VARCHAR)), '')")


@dataclass(frozen=True)
class _Location:
    """Where one table is: its place, the parts to read, and how many files they are (0 in a database)."""

    place: str
    parts: Callable[[], list[Part]]
    files: int
    size: int = 0  # bytes


def survey(
    source: str,
    *,
    rows: int = SAMPLE_ROWS,
    encoding: str = "",
    only: tuple[str, ...] = (),
    connection: str = "",
    files: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Survey:
    """Survey a RecBole set, a BEIR folder, files, a DuckDB file or a Postgres URL.

    ``only`` names the places of the tables; without it, all tables of the source are surveyed. ``files`` are settings
    of text files (setting=value), which go before what their contents show. ``say`` takes a line for each table.

    Raises:
        SourceError: the source does not exist, holds no table, or a table cannot be read.
        UsageError: the URL of the source contains a password, or a setting of files does not exist.
    """
    file_settings, columns = parse_file_settings(files)
    if sources.mask_passwords(source) != source or f":{sources.MASK}@" in source:
        raise UsageError(
            "a command, a map or a recipe must not contain a password",
            expected="a URL without one",
            found=sources.mask_passwords(source),
            hint="set PGPASSWORD, or keep the whole URL in a variable and pass its name: --connection SHOP_URL",
        )
    detected = detect_source(source, connection)
    result = Survey(
        detected.source,
        detected.format,
        {},
        name=detected.name,
        connection=detected.connection,
        db=memory_database(memory_mb=MEMORY_MB),
    )
    result.db.execute(NUMBER_MACROS + TIME_MACROS + LIST_MACROS)
    if result.format == "tables":
        if not only and not detected.file:
            result.left_out = dict.fromkeys(other_files(result.source), "no table by its name")
        places = only or ((detected.file,) if detected.file else tuple(table_places(result.source)))
        files_by_place = _place_files(result, places, asked_for=bool(only))
        locations = _file_locations(result, files_by_place, encoding, file_settings, columns)
    elif result.format == "sql":
        places = only or tuple(database_tables(result.source, result.connection))
        locations = [_Location(place, functools.partial(_query_parts, result, place, rows), 0) for place in places]
    else:
        locations = _known_locations(result)
    names = short_names([each.place for each in locations])
    for location in locations:
        name = names[location.place]
        say(f"reading the first rows of {location.place}" + f" ({location.size / 1e6:,.1f} MB)" * bool(location.size))
        try:
            result.tables[name] = _survey_table(result, name, location, rows)
        except SourceError as error:  # such as a JSON file that describes the data
            is_other = File(location.place).kind in ANY_CONTENT and any(
                File(each.place).kind not in ANY_CONTENT for each in locations
            )
            if (
                not (error.has_no_rows or is_other)
                or only
                or location.files > 1
                or not (result.tables or location is not locations[-1])
            ):
                raise
            result.left_out[location.place] = error.message
    return result


def _place_files(survey: Survey, places: tuple[str, ...], *, asked_for: bool) -> dict[str, list[File]]:
    """The files of each place; one that is empty is left out unless it was asked for or is the only one."""
    files = {}
    for place in places:
        try:
            files[place] = files_at(survey.source, place)
        except SourceError as error:
            if not error.has_no_rows or asked_for or len(places) == 1:
                raise
            survey.left_out[place] = error.message
    return files


def _file_locations(
    survey: Survey,
    files: dict[str, list[File]],
    encoding: str,
    settings: dict[str, Any],
    names: dict[str, tuple[str, ...]],
) -> list[_Location]:
    """The tables of a source of files; sets how the survey's text files are written."""
    for place in [place for place in files if len(files) > 1 and File(place).kind in ANY_CONTENT]:
        try:
            _guess_file_encoding(files[place][0], encoding)
        except SourceError as error:
            survey.left_out[place] = error.message
            del files[place]
    samples = [file for each in files.values() for file in each[:3]]
    survey.encoding = _detect_encoding(samples, encoding)
    settings = {**detect_quoting(samples, settings, survey.encoding.name), **settings}
    survey.files = TextFiles(encoding=survey.encoding.name, **settings)
    survey.names = {place: named for place in files if (named := names.get(place, names.get("", ())))}
    for file in (file for each in files.values() for file in each):
        require_table_kind(file)
    return [
        _Location(place, functools.partial(_file_parts, survey, place, each), len(each), sum(f.size() for f in each))
        for place, each in files.items()
    ]


def _file_parts(survey: Survey, place: str, files: list[File]) -> list[Part]:
    settings = survey.files.model_copy(update={"names": {"events": survey.names.get(place, ())}})
    config = IngestConfig(source=survey.source, format="tables", files=settings, columns=AllColumns())
    return list(tables.read_parts(config, {"events": files}))


def _known_locations(survey: Survey) -> list[_Location]:
    """The tables of a RecBole set or a BEIR folder, with the columns as its files call them."""
    more: dict[str, Any] = {"name": survey.name, "items_from_events": True, "columns": AllColumns()}
    config = IngestConfig(source=survey.source, format=survey.format, **more)
    read = recbole.read_parts if survey.format == "recbole" else _beir_parts
    return [
        _Location(table, functools.partial(_known_parts, read, config, table, files), len(files))
        for table, files in sources.find_files(config).items()
    ]


def _known_parts(read: Any, config: IngestConfig, table: str, files: list[File]) -> list[Part]:
    return list(read(config, {table: files}))


def _beir_parts(config: IngestConfig, files: sources.Files) -> Iterator[Part]:
    return (tables.file_part(table, file, config) for table, each in files.items() for file in each)


def _detect_encoding(files: list[File], encoding: str) -> EncodingGuess:
    """The encoding of the text files, which is the same for all; ``encoding`` overrides the guess.

    Raises:
        SourceError: a file is not text in any encoding, or the files have different ones.
    """
    guess_by_file = {
        file.path: _guess_file_encoding(file, encoding) for file in files if file.kind not in ("parquet", "pq")
    }
    not_ascii = [guess for guess in guess_by_file.values() if guess.name != "ascii"]
    if not not_ascii:
        return UTF_8
    shared = [name for name in not_ascii[0].equally_likely if all(name in guess.equally_likely for guess in not_ascii)]
    if not shared:
        raise SourceError(
            "the files of the source are in different encodings",
            expected="one encoding for all files",
            found="; ".join(f"{path.rsplit('/', 1)[-1]}: {guess.name}" for path, guess in guess_by_file.items()),
            where=next(iter(guess_by_file)),
            hint="convert them to UTF-8 (iconv -t utf-8)",
        )
    others = [name for guess in not_ascii for name in guess.candidates if name not in shared]
    return EncodingGuess(tuple(dict.fromkeys([*shared, *others])), tuple(shared))


def _guess_file_encoding(file: File, encoding: str) -> EncodingGuess:
    with file.open_stored() as stored:
        try:
            sample = text_stream.decompressed(file, stored).read(text_stream.SAMPLE_BYTES)
        except (OSError, EOFError) as error:
            raise parts.truncated_error(file.path, error) from error
    guess = EncodingGuess((encoding,), (encoding,)) if encoding else guess_encoding(sample)
    is_binary = b"\x00" in sample and not guess.name.startswith("utf-16") and not has_few_nuls(sample)
    if not guess.name or is_binary:
        raise SourceError(
            "a file cannot be read as text",
            expected="UTF-8, or another encoding that can be detected",
            found="bytes that do not occur in text" if guess.name else "bytes that fit no encoding",
            where=file.path,
            hint="pass the encoding with --encoding (cp1252, gb18030, utf-16…), or convert: iconv -t utf-8; if it is "
            "not text, give it the ending of what it is",
        )
    return guess


def _query_parts(survey: Survey, place: str, rows: int) -> list[Part]:
    query = f"SELECT * FROM ({postgres.select_statement(place)}) AS looked LIMIT {rows + 1}"
    settings: dict[str, Any] = {"items_from_events": True, "connection": survey.connection}
    config = IngestConfig(
        source=survey.source, format="sql", tables=Tables(events=query), columns=AllColumns(), **settings
    )
    # the rows can only be fetched while the database is connected, which is as long as the loop runs
    return [part._replace(batches=iter(list(part.batches))) for part in sql.read_parts(config, {})]


def _survey_table(survey: Survey, name: str, location: _Location, max_rows: int) -> TableSurvey:
    """Load a table's first rows into DuckDB and compute the statistics of its columns."""
    parts = location.parts()
    several = sources.BETWEEN_PLACES in location.place  # of each of which some rows have to be seen
    rows_of_part = max(max_rows // max(len(parts), 1), 1) if several else max_rows
    kinds, is_complete = load_sample(survey.db, name, parts, max_rows=max_rows, rows_of_part=rows_of_part)
    (count,) = fetch_row(survey.db, f"SELECT count(*) FROM {identifier(name)}")
    if not count:
        raise no_rows_error(
            "a table holds no row that can be read",
            expected="rows below the header",
            found=f"columns {', '.join(kinds)[:80]}, no row",
            where=parts[0].where if parts else location.place,
            hint="check that it is a table and export it again, or leave it out with --events and --items",
        )
    if survey.format == "tables" and survey.files.decimal == "." and has_decimal_commas(survey.db, name, kinds):
        survey.files = survey.files.model_copy(update={"decimal": ","})
    stats = column_stats(survey.db, name, kinds, decimal=survey.files.decimal)
    return TableSurvey(name, location.place, int(count), is_complete, location.files, stats, location.size)
