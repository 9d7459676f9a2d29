"""A survey: what a source holds, seen through the very readers that will ingest it.

It finds the tables (a file, files that differ by a number, a folder of files, a table of a database), reads the
first rows of each into DuckDB, and tells what each column's values look like. It says nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from components.ingest import parts, recbole, sql, tables
from components.ingest.config import Columns, IngestConfig, TextFiles
from components.ingest.encoding import Guess, guess
from components.ingest.fields import identifier
from components.ingest.parts import Part
from onboarding.survey.language import language_of
from onboarding.survey.locations import files_of, listed, names_of, places_of, recognised, refuse_kind
from onboarding.survey.statistics import Facts, comma_decimals, facts_of
from rankline.errors import SourceError, UsageError
from rankline.io import postgres, sources
from rankline.io.sources import File, Tables

ROWS = 100_000  # of each table that are looked at


@dataclass(frozen=True)
class Seen:
    """One table of a source: where it is, its first rows in DuckDB, its columns."""

    name: str
    place: str
    rows: int
    whole: bool  # were all of its rows looked at?
    files: int
    columns: dict[str, Facts]


@dataclass
class Survey:
    """A source and its tables."""

    source: str
    format: str
    tables: dict[str, Seen]
    files: TextFiles = field(default_factory=TextFiles)
    encoding: Guess = field(default_factory=lambda: Guess(("utf-8",), ("utf-8",)))
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
        told = f"CAST({identifier(column)} AS VARCHAR)"
        query = (
            f"SELECT {told} AS value, count(*) AS rows FROM {identifier(table)} WHERE {told} IS NOT NULL "
            f"GROUP BY ALL ORDER BY rows DESC, value LIMIT {most}"
        )
        return {str(value): int(rows) for value, rows in self.db.execute(query).fetchall()}

    def language(self, table: str, columns: list[str]) -> str:
        """The language that the words of some columns seem to be in, as a code; empty where none can be told."""
        told = " || ' ' || ".join(f"coalesce(CAST({identifier(name)} AS VARCHAR), '')" for name in columns)
        query = f"SELECT string_agg(told, ' ') FROM (SELECT {told} AS told FROM {identifier(table)} LIMIT 500)"
        ((text,),) = self.db.execute(query).fetchall()
        return language_of(text or "")


def survey(
    source: str, *, rows: int = ROWS, encoding: str = "", only: tuple[str, ...] = (), connection: str = ""
) -> Survey:
    """Look at a source: a RecBole set, a BEIR folder, files, a DuckDB file or a Postgres URL.

    ``only`` are the places of the tables, where they are known; else all that the source has are looked at.

    Raises:
        SourceError: there is no such source, it holds no table, or one cannot be read.
        UsageError: the source's URL holds a password.
    """
    import duckdb

    if sources.masked(source) != source or f":{sources.MASK}@" in source:
        raise UsageError(
            "a password does not belong into a command, a map or a recipe",
            expected="a URL without one",
            found=sources.masked(source),
            hint="set PGPASSWORD, or keep the whole URL in a variable and name that: --connection SHOP_URL",
        )
    told = recognised(source, connection)
    found = Survey(told.source, told.format, {}, name=told.name, connection=told.connection, db=duckdb.connect())
    found.db.execute("SET memory_limit = '1GB'")
    found.db.execute("SET TimeZone = 'UTC'")
    if found.format == "tables":
        places = only or ((told.file,) if told.file else tuple(places_of(found.source)))
        files = {place: files_of(found.source, place) for place in places}
        found.encoding = _encoded([file for each in files.values() for file in each[:3]], encoding)
        found.files = TextFiles(encoding=found.encoding.name)
        whole = {place: _tables(found, each) for place, each in files.items()}
    elif found.format == "sql":
        whole = {
            place: _queried(found, place, rows) for place in (only or tuple(listed(found.source, found.connection)))
        }
    else:
        config = IngestConfig(source=found.source, format=found.format, name=found.name, items_from_events=True)
        read = recbole.read if found.format == "recbole" else _beir
        whole = {}
        for table, each in sources.files(config).items():
            whole[table] = (list(read(config, {table: each})), len(each))
    names = names_of(list(whole))
    for place, (read_parts, count) in whole.items():
        found.tables[names[place]] = _seen(found, names[place], place, read_parts, count, rows)
    return found


def _beir(config: IngestConfig, files: sources.Files) -> Iterator[Part]:
    """The parts of a BEIR folder with the columns as its files call them."""
    for table, each in files.items():
        for file in each:
            yield tables.part(table, file, config)


def _encoded(files: list[File], encoding: str) -> Guess:
    """What the text files are encoded in, all of them alike; ``encoding`` is what a person said.

    Raises:
        SourceError: one cannot be read as text in any encoding, or two are in different ones.
    """
    found: dict[str, Guess] = {}
    for file in files:
        if file.kind in ("parquet", "pq"):
            continue
        with file.stored() as stored:
            try:
                sample = parts.plain(file, stored).read(parts.SAMPLE_BYTES)
            except (OSError, EOFError) as error:
                raise parts.cut_short(file.path, error) from error
        told = Guess((encoding,), (encoding,)) if encoding else guess(sample)
        if not told.name or (b"\x00" in sample and not told.name.startswith("utf-16")):
            raise SourceError(
                "a file cannot be read as text",
                expected="UTF-8, or another encoding that can be told",
                found="bytes that no text has" if told.name else "bytes that fit none",
                where=file.path,
                hint="say it with --encoding (cp1252, gb18030, utf-16…), or convert: iconv -t utf-8; if it is no "
                "text, name it after what it is",
            )
        found[file.path] = told
    foreign = [told for told in found.values() if told.name != "ascii"]
    if not foreign:
        return Guess(("utf-8",), ("utf-8",))
    shared = [name for name in foreign[0].fits if all(name in told.fits for told in foreign)]
    if not shared:
        raise SourceError(
            "the files of the source are in different encodings",
            expected="one encoding for all of them",
            found="; ".join(f"{path.rsplit('/', 1)[-1]}: {told.name}" for path, told in found.items()),
            where=next(iter(found)),
            hint="convert them to UTF-8 (iconv -t utf-8)",
        )
    others = [name for told in foreign for name in told.likely if name not in shared]
    return Guess(tuple(dict.fromkeys([*shared, *others])), tuple(shared))


class Everything(Columns):
    """Settings that name every column there is: what has not been looked at yet cannot be named."""

    def wants(self, column: str) -> bool:
        """All of them."""
        return True


def _tables(found: Survey, files: list[File]) -> tuple[list[Part], int]:
    config = IngestConfig(source=found.source, format="tables", files=found.files, columns=Everything())
    for file in files:
        refuse_kind(file)
    return [tables.part("events", file, config) for file in files], len(files)


def _queried(found: Survey, place: str, rows: int) -> tuple[list[Part], int]:
    query = f"SELECT * FROM ({postgres.query_of(place)}) AS looked LIMIT {rows + 1}"
    settings: dict[str, Any] = {"items_from_events": True, "connection": found.connection}
    config = IngestConfig(
        source=found.source, format="sql", tables=Tables(events=query), columns=Everything(), **settings
    )
    read = []
    for part in sql.read(config, {}):  # a database answers while it is connected to: take the rows now
        read.append(part._replace(batches=iter(list(part.batches))))
    return read, 0


def _seen(found: Survey, name: str, place: str, each: list[Part], files: int, rows: int) -> Seen:
    """A table's first rows in DuckDB, and the facts of its columns."""
    import pyarrow as pa

    left, kinds, made = rows, {}, False
    more = False
    for part in each:
        if left <= 0:
            more = True
            break
        kinds |= {column: told.kind for column, told in part.columns.items()}
        select = ", ".join(f"{told.sql} AS {identifier(column)}" for column, told in part.columns.items())
        query = f"SELECT {select} FROM {part.relation}"
        where = " OR ".join(f"coalesce({check}, false)" for check, _ in part.checks)
        query += f" WHERE NOT ({where})" if where else ""
        found.db.register("arriving", part.schema.empty_table())
        if not made:
            found.db.execute(f"CREATE TABLE {identifier(name)} AS {query}")
            made = True
        else:
            there = {column for column, *_ in found.db.execute(f"DESCRIBE {identifier(name)}").fetchall()}
            for column, kind, *_ in found.db.execute(f"DESCRIBE {query}").fetchall():
                if column not in there:
                    found.db.execute(f"ALTER TABLE {identifier(name)} ADD COLUMN {identifier(column)} {kind}")
        try:
            for batch in part.batches:
                found.db.register("arriving", pa.table(batch.slice(0, left)))
                found.db.execute(f"INSERT INTO {identifier(name)} BY NAME {query}")
                more = more or len(batch) > left
                left -= len(batch)
                if left <= 0:
                    break
        except (OSError, EOFError, pa.ArrowInvalid) as error:
            raise parts.cut_short(part.where, error) from error
    found.db.unregister("arriving")
    ((count,),) = found.db.execute(f"SELECT count(*) FROM {identifier(name)}").fetchall()
    if not count:
        raise SourceError(
            "a table holds no row that can be read",
            expected="rows below the header",
            found=f"columns {', '.join(kinds)[:80]}, no row",
            where=each[0].where if each else place,
            hint="is it a table? export it again, or leave it out with --events and --items",
        )
    if found.format == "tables" and comma_decimals(found.db, name, kinds):
        found.files = found.files.model_copy(update={"decimal": ","})
    decimal = found.files.decimal
    facts = {column: facts_of(found.db, name, column, kind, decimal=decimal) for column, kind in kinds.items()}
    return Seen(name, place, int(count), not more and left > 0, files, facts)
