"""A survey: what a source holds, seen through the very readers that will ingest it.

It finds the tables (a file, files that differ by a number, a folder of files, a table of a database), reads the
first rows of each into DuckDB, and tells what each column's values look like. It says nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from components.ingest.config import Columns, IngestConfig, TextFiles
from components.ingest.readers import parts, recbole, sql, tables, text_stream
from components.ingest.readers.encoding import EncodingGuess, guess_encoding
from components.ingest.readers.parts import Part
from onboarding.survey.language import detect_language
from onboarding.survey.locations import (
    database_tables,
    detect_source,
    files_at,
    require_table_kind,
    short_names,
    table_places,
)
from onboarding.survey.statistics import ColumnStats, column_stats, has_decimal_commas
from rankline.errors import SourceError, UsageError
from rankline.io import sources
from rankline.io.sources import File, Tables, postgres
from rankline.io.sql import identifier

SAMPLE_ROWS = 100_000  # of each table that are looked at


@dataclass(frozen=True)
class TableSurvey:
    """One table of a source: where it is, its first rows in DuckDB, its columns."""

    name: str
    place: str
    rows: int
    is_complete: bool  # were all of its rows looked at?
    files: int
    columns: dict[str, ColumnStats]


@dataclass
class Survey:
    """A source and its tables."""

    source: str
    format: str
    tables: dict[str, TableSurvey]
    files: TextFiles = field(default_factory=TextFiles)
    encoding: EncodingGuess = field(default_factory=lambda: EncodingGuess(("utf-8",), ("utf-8",)))
    name: str | None = None
    connection: str = ""
    db: Any = field(default=None, repr=False)

    def overlap(self, table: str, column: str, other: str, key: str) -> float:
        """The share of a column's distinct values that are among another table's keys, in the rows looked at."""
        left, right = (f"CAST({identifier(name)} AS VARCHAR)" for name in (column, key))
        query = (
            f"SELECT avg(CAST(told IN (SELECT {right} FROM {identifier(other)}) AS INTEGER)) FROM "
            f"(SELECT DISTINCT {left} AS told FROM {identifier(table)} WHERE {left} IS NOT NULL)"
        )
        ((share,),) = self.db.execute(query).fetchall()
        return float(share or 0)

    def values(self, table: str, column: str, most: int = 30) -> dict[str, int]:
        """The most frequent values of a column, and how often each is there."""
        value_sql = f"CAST({identifier(column)} AS VARCHAR)"
        query = (
            f"SELECT {value_sql} AS value, count(*) AS rows FROM {identifier(table)} WHERE {value_sql} IS NOT NULL "
            f"GROUP BY ALL ORDER BY rows DESC, value LIMIT {most}"
        )
        return {str(value): int(rows) for value, rows in self.db.execute(query).fetchall()}

    def language(self, table: str, columns: list[str]) -> str:
        """The language that the words of some columns seem to be in, as a code; empty where none can be told."""
        text_sql = " || ' ' || ".join(f"coalesce(CAST({identifier(name)} AS VARCHAR), '')" for name in columns)
        query = f"SELECT string_agg(told, ' ') FROM (SELECT {text_sql} AS told FROM {identifier(table)} LIMIT 500)"
        ((text,),) = self.db.execute(query).fetchall()
        return detect_language(text or "")


def survey(
    source: str, *, rows: int = SAMPLE_ROWS, encoding: str = "", only: tuple[str, ...] = (), connection: str = ""
) -> Survey:
    """Look at a source: a RecBole set, a BEIR folder, files, a DuckDB file or a Postgres URL.

    ``only`` are the places of the tables, where they are known; else all that the source has are looked at.

    Raises:
        SourceError: there is no such source, it holds no table, or one cannot be read.
        UsageError: the source's URL holds a password.
    """
    import duckdb

    if sources.mask_passwords(source) != source or f":{sources.MASK}@" in source:
        raise UsageError(
            "a password does not belong into a command, a map or a recipe",
            expected="a URL without one",
            found=sources.mask_passwords(source),
            hint="set PGPASSWORD, or keep the whole URL in a variable and name that: --connection SHOP_URL",
        )
    detected = detect_source(source, connection)
    found = Survey(
        detected.source, detected.format, {}, name=detected.name, connection=detected.connection, db=duckdb.connect()
    )
    found.db.execute("SET memory_limit = '1GB'")
    found.db.execute("SET TimeZone = 'UTC'")
    if found.format == "tables":
        places = only or ((detected.file,) if detected.file else tuple(table_places(found.source)))
        files = {place: files_at(found.source, place) for place in places}
        found.encoding = _detect_encoding([file for each in files.values() for file in each[:3]], encoding)
        found.files = TextFiles(encoding=found.encoding.name)
        parts_by_place = {place: _file_parts(found, each) for place, each in files.items()}
    elif found.format == "sql":
        parts_by_place = {
            place: _query_parts(found, place, rows)
            for place in (only or tuple(database_tables(found.source, found.connection)))
        }
    else:
        config = IngestConfig(source=found.source, format=found.format, name=found.name, items_from_events=True)
        read = recbole.read_parts if found.format == "recbole" else _beir_parts
        parts_by_place = {}
        for table, each in sources.find_files(config).items():
            parts_by_place[table] = (list(read(config, {table: each})), len(each))
    names = short_names(list(parts_by_place))
    for place, (read_parts, count) in parts_by_place.items():
        found.tables[names[place]] = _survey_table(found, names[place], place, read_parts, count, rows)
    return found


def _beir_parts(config: IngestConfig, files: sources.Files) -> Iterator[Part]:
    """The parts of a BEIR folder with the columns as its files call them."""
    for table, each in files.items():
        for file in each:
            yield tables.file_part(table, file, config)


def _detect_encoding(files: list[File], encoding: str) -> EncodingGuess:
    """What the text files are encoded in, all of them alike; ``encoding`` is what a person said.

    Raises:
        SourceError: one cannot be read as text in any encoding, or two are in different ones.
    """
    found: dict[str, EncodingGuess] = {}
    for file in files:
        if file.kind in ("parquet", "pq"):
            continue
        with file.open_stored() as stored:
            try:
                sample = text_stream.decompressed(file, stored).read(text_stream.SAMPLE_BYTES)
            except (OSError, EOFError) as error:
                raise parts.truncated_error(file.path, error) from error
        guessed = EncodingGuess((encoding,), (encoding,)) if encoding else guess_encoding(sample)
        if not guessed.name or (b"\x00" in sample and not guessed.name.startswith("utf-16")):
            raise SourceError(
                "a file cannot be read as text",
                expected="UTF-8, or another encoding that can be told",
                found="bytes that no text has" if guessed.name else "bytes that fit none",
                where=file.path,
                hint="say it with --encoding (cp1252, gb18030, utf-16…), or convert: iconv -t utf-8; if it is no "
                "text, name it after what it is",
            )
        found[file.path] = guessed
    not_ascii = [guessed for guessed in found.values() if guessed.name != "ascii"]
    if not not_ascii:
        return EncodingGuess(("utf-8",), ("utf-8",))
    shared = [
        name for name in not_ascii[0].equally_likely if all(name in guessed.equally_likely for guessed in not_ascii)
    ]
    if not shared:
        raise SourceError(
            "the files of the source are in different encodings",
            expected="one encoding for all of them",
            found="; ".join(f"{path.rsplit('/', 1)[-1]}: {guessed.name}" for path, guessed in found.items()),
            where=next(iter(found)),
            hint="convert them to UTF-8 (iconv -t utf-8)",
        )
    others = [name for guessed in not_ascii for name in guessed.candidates if name not in shared]
    return EncodingGuess(tuple(dict.fromkeys([*shared, *others])), tuple(shared))


class AllColumns(Columns):
    """Settings that name every column there is: what has not been looked at yet cannot be named."""

    def wants(self, column: str) -> bool:
        """All of them."""
        return True


def _file_parts(survey: Survey, files: list[File]) -> tuple[list[Part], int]:
    config = IngestConfig(source=survey.source, format="tables", files=survey.files, columns=AllColumns())
    for file in files:
        require_table_kind(file)
    return [tables.file_part("events", file, config) for file in files], len(files)


def _query_parts(survey: Survey, place: str, rows: int) -> tuple[list[Part], int]:
    query = f"SELECT * FROM ({postgres.select_statement(place)}) AS looked LIMIT {rows + 1}"
    settings: dict[str, Any] = {"items_from_events": True, "connection": survey.connection}
    config = IngestConfig(
        source=survey.source, format="sql", tables=Tables(events=query), columns=AllColumns(), **settings
    )
    read = []
    for part in sql.read_parts(config, {}):  # a database answers while it is connected to: take the rows now
        read.append(part._replace(batches=iter(list(part.batches))))
    return read, 0


def _survey_table(found: Survey, name: str, place: str, table_parts: list[Part], files: int, rows: int) -> TableSurvey:
    """A table's first rows in DuckDB, and the facts of its columns."""
    import pyarrow as pa

    remaining, kinds, created = rows, {}, False
    truncated = False
    for part in table_parts:
        if remaining <= 0:
            truncated = True
            break
        kinds |= {column: source_column.kind for column, source_column in part.columns.items()}
        select = ", ".join(
            f"{source_column.sql} AS {identifier(column)}" for column, source_column in part.columns.items()
        )
        query = f"SELECT {select} FROM {part.relation}"
        where = " OR ".join(f"coalesce({check}, false)" for check, _ in part.checks)
        query += f" WHERE NOT ({where})" if where else ""
        found.db.register("arriving", part.schema.empty_table())
        if not created:
            found.db.execute(f"CREATE TABLE {identifier(name)} AS {query}")
            created = True
        else:
            existing = {column for column, *_ in found.db.execute(f"DESCRIBE {identifier(name)}").fetchall()}
            for column, kind, *_ in found.db.execute(f"DESCRIBE {query}").fetchall():
                if column not in existing:
                    found.db.execute(f"ALTER TABLE {identifier(name)} ADD COLUMN {identifier(column)} {kind}")
        try:
            for batch in part.batches:
                found.db.register("arriving", pa.table(batch.slice(0, remaining)))
                found.db.execute(f"INSERT INTO {identifier(name)} BY NAME {query}")
                truncated = truncated or len(batch) > remaining
                remaining -= len(batch)
                if remaining <= 0:
                    break
        except (OSError, EOFError, pa.ArrowInvalid) as error:
            raise parts.truncated_error(part.where, error) from error
    found.db.unregister("arriving")
    ((count,),) = found.db.execute(f"SELECT count(*) FROM {identifier(name)}").fetchall()
    if not count:
        raise SourceError(
            "a table holds no row that can be read",
            expected="rows below the header",
            found=f"columns {', '.join(kinds)[:80]}, no row",
            where=table_parts[0].where if table_parts else place,
            hint="is it a table? export it again, or leave it out with --events and --items",
        )
    if found.format == "tables" and has_decimal_commas(found.db, name, kinds):
        found.files = found.files.model_copy(update={"decimal": ","})
    decimal = found.files.decimal
    stats = {column: column_stats(found.db, name, column, kind, decimal=decimal) for column, kind in kinds.items()}
    return TableSurvey(name, place, int(count), not truncated and remaining > 0, files, stats)
