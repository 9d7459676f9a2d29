"""A survey: what a source holds, seen through the very readers that will ingest it.

It finds the tables (a file, files that differ by a number, a folder of files, a table of a database), reads the
first rows of each into DuckDB, and tells what each column's values look like. It says nothing of what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.ingest import parts, recbole, sql, tables
from components.ingest.config import UNITS, Columns, IngestConfig, TextFiles
from components.ingest.encoding import Guess, guess
from components.ingest.fields import ZONED, identifier, literal
from components.ingest.parts import Part
from components.ingest.tables import READERS
from rankline import postgres, raw
from rankline.errors import SourceError, UsageError
from rankline.raw import File, Tables

READABLE = tuple(READERS)
ROWS = 100_000  # of each table that are looked at
MOST_TABLES = 40
NOT_DATA = re.compile(r"^(readme|license|licence|copying|notice|changelog|requirements|_|\.)", re.IGNORECASE)
MISSING = ("NULL", "null", "\\N", "NA", "N/A", "n/a", "None", "none", "nan", "NaN", "-")
# how times are written beside ISO and numbers since 1970; two that fit the same values are asked about
PATTERNS = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d",
    "%d/%b/%Y:%H:%M:%S %z", "%b %d, %Y", "%d %b %Y",
)  # fmt: skip
FIRST_YEAR_S, LAST_YEAR_S = 631_152_000, 4_102_444_800  # 1990 and 2100: what a log's moments lie between
SCRIPTS = (("zh", "\u4e00-\u9fff"), ("ja", "\u3040-\u30ff"), ("ko", "\uac00-\ud7af"), ("th", "\u0e00-\u0e7f"),
           ("ar", "\u0600-\u06ff"), ("he", "\u0590-\u05ff"), ("hi", "\u0900-\u097f"))  # fmt: skip


class Everything(Columns):
    """Settings that name every column there is: what has not been looked at yet cannot be named."""

    def wants(self, column: str) -> bool:
        """All of them."""
        return True


@dataclass(frozen=True)
class Facts:
    """What the values of a column look like; shares are of the values that are there."""

    name: str
    kind: str  # as ingest reads it: text, number, integer, flag, naive, moment, list, other, or a type of RecBole
    values: int
    filled: float
    distinct: int
    examples: tuple[str, ...]
    numbers: float = 0.0
    whole: bool = False
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
    def unique(self) -> bool:
        """Does every row have a value of its own?"""
        return self.values > 1 and self.distinct == self.values and self.filled == 1.0

    @property
    def is_text(self) -> bool:
        """Are the values words, rather than numbers, times, addresses, or yes and no?"""
        words = self.numbers < 0.5 and not self.times and self.urls < 0.5 and self.flags < 0.9
        return words and self.kind in ("text", "token", "token_seq", "other") and self.characters > 2

    @property
    def shown(self) -> str:
        """The type as people call it."""
        if self.times:
            return "time" if self.zoned is None else "time with zone" if self.zoned == 1 else "time, no zone"
        if self.kind == "list" or self.arrays > 0.9:
            return "numbers" if self.vectors > 0.9 else "list"
        if self.kind == "flag":
            return "yes/no"
        if self.numbers > 0.95:
            return "whole number" if self.whole else "number"
        return "url" if self.urls > 0.9 else "text"


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

    if raw.masked(source) != source or f":{raw.MASK}@" in source:
        raise UsageError(
            "a password does not belong into a command, a map or a recipe",
            expected="a URL without one",
            found=raw.masked(source),
            hint="set PGPASSWORD, or keep the whole URL in a variable and name that: --connection SHOP_URL",
        )
    found, file = _recognised(source, connection)
    found.db = duckdb.connect()
    found.db.execute("SET memory_limit = '1GB'")
    found.db.execute("SET TimeZone = 'UTC'")
    if found.format == "tables":
        places = only or ((file,) if file else tuple(_places(found.source)))
        told = {place: _files(found.source, place) for place in places}
        found.encoding = _encoded([file for each in told.values() for file in each[:3]], encoding)
        found.files = TextFiles(encoding=found.encoding.name)
        whole = {place: _tables(found, place, files) for place, files in told.items()}
    elif found.format == "sql":
        whole = {place: _queried(found, place, rows) for place in (only or tuple(_listed(found)))}
    else:
        config = IngestConfig(source=found.source, format=found.format, name=found.name, items_from_events=True)
        read = recbole.read if found.format == "recbole" else _beir
        whole = {}
        for table, files in raw.files(config).items():
            whole[table] = (list(read(config, {table: files})), len(files))
    names = _names(list(whole))
    for place, (each, count) in whole.items():
        found.tables[names[place]] = _seen(found, names[place], place, each, count, rows)
    return found


def _beir(config: IngestConfig, files: raw.Files) -> Iterator[Part]:
    """The parts of a BEIR folder with the columns as its files call them."""
    for table, each in files.items():
        for file in each:
            yield tables.part(table, file, config)


def _recognised(source: str, connection: str) -> tuple[Survey, str]:
    """What kind of source this is, and the one file of it that is meant, if one is."""
    if connection or source.startswith(("postgres://", "postgresql://")):
        return Survey(source=source or "postgresql://", format="sql", tables={}, connection=connection), ""
    if "://" in source:
        parent, _, last = source.rpartition("/")
        if "*" not in last and File(last).kind in READABLE:
            return Survey(source=parent, format="tables", tables={}), last
        return Survey(source=source.rstrip("/"), format="tables", tables={}), ""
    path = Path(source).expanduser()
    if not path.exists():
        if path.parent.is_dir() and path.with_name(f"{path.name}.inter").is_file():
            return Survey(source=str(path.parent), format="recbole", tables={}, name=path.name), ""
        raise SourceError(
            "the source is not there",
            expected="a folder, a file, or a URL such as s3://bucket/log or postgresql://host/database",
            found="no such file or folder",
            where=str(path),
            hint="check the spelling; what is there: " + raw.listing(path.parent),
        )
    path = path.resolve()
    if path.is_file():
        if _is_duckdb(path):
            return Survey(source=str(path), format="sql", tables={}), ""
        if path.suffix in (".inter", ".item", ".user"):
            return Survey(source=str(path.parent), format="recbole", tables={}, name=path.stem), ""
        _refuse_kind(File(str(path)))
        return Survey(source=str(path.parent), format="tables", tables={}), path.name
    names = {each.name.removesuffix(".gz") for each in path.iterdir()}
    if any(name.endswith(".inter") for name in names):
        sets = sorted({told["name"] for name in names if (told := raw.RECBOLE_NAME.fullmatch(name))})
        return Survey(source=str(path), format="recbole", tables={}, name=sets[0] if len(sets) == 1 else None), ""
    if {"corpus.jsonl", "queries.jsonl", "qrels"} <= names:
        return Survey(source=str(path), format="beir", tables={}), ""
    databases = [each for each in path.iterdir() if each.is_file() and _is_duckdb(each)]
    if len(databases) == 1 and not any(True for _ in _data(str(path))):
        return Survey(source=str(databases[0]), format="sql", tables={}), ""
    return Survey(source=str(path), format="tables", tables={}), ""


def _is_duckdb(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(12)[8:] == b"DUCK"


def _data(source: str) -> Iterator[str]:
    """The paths of what may be tables below a source, relative to it."""
    import fsspec

    fs, root = fsspec.core.url_to_fs(source)
    for path in sorted(fs.find(root)):
        inside = path[len(root) :].lstrip("/")
        told = not raw.is_hidden(inside) and raw.File(inside).kind in READABLE
        if told and not NOT_DATA.match(inside.rsplit("/", 1)[-1]):
            yield inside


def _places(source: str) -> list[str]:
    """The tables of a source as places for ingest: a file, a pattern, or a folder.

    Raises:
        SourceError: where it holds none.
    """
    groups: dict[str, list[str]] = {}
    for path in _data(source):
        parent, _, name = path.rpartition("/")
        top = parent.split("/")[0]
        if any("=" in step for step in parent.split("/")):  # folders that name a column make one table of all below
            groups.setdefault(parent[: parent.index("=")].rpartition("/")[0] or top, []).append(path)
        else:
            pattern = re.sub(r"\d+", "*", name)
            groups.setdefault(f"{parent}/{pattern}".lstrip("/"), []).append(path)
    if not groups:
        raise SourceError(
            "the source holds no table that can be read",
            expected=f"files that end in {', '.join(READABLE)} (compressed or not), a RecBole set, a BEIR folder, "
            "or a DuckDB file",
            found=raw.listing(Path(source)) if "://" not in source else "none",
            where=source,
            hint="export the tables as Parquet or CSV, or name a folder that holds them",
        )
    if len(groups) > MOST_TABLES:
        raise SourceError(
            f"the source holds {len(groups)} tables, too many to tell which are meant",
            expected=f"at most {MOST_TABLES}",
            found=", ".join(list(groups)[:6]) + "…",
            where=source,
            hint="say which: --events PLACE --items PLACE (files, patterns or folders below the source)",
        )
    alone = [place for place, paths in groups.items() if len(paths) == 1]
    return [groups[place][0] if place in alone else place for place in groups]


def _files(source: str, place: str) -> list[File]:
    """The files of one place."""
    config = IngestConfig(source=source, format="tables", tables=Tables(events=place), items_from_events=True)
    return raw.files(config)["events"]


def _refuse_kind(file: File) -> None:
    if file.kind not in READABLE:
        raise SourceError(
            "a file is no table",
            expected=f"a name that ends in {', '.join(READABLE)} (compressed or not), or a DuckDB file",
            found=file.path.rsplit("/", 1)[-1],
            where=file.path,
            hint="export it as Parquet or CSV, or rename it after what it holds",
        )


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


def _tables(found: Survey, place: str, files: list[File]) -> tuple[list[Part], int]:
    config = IngestConfig(source=found.source, format="tables", files=found.files, columns=Everything())
    for file in files:
        _refuse_kind(file)
    return [tables.part("events", file, config) for file in files], len(files)


def _listed(found: Survey) -> list[str]:
    """The tables of a database."""
    config = IngestConfig(source=found.source, format="sql", connection=found.connection)
    query = (
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema NOT IN "
        "('information_schema', 'pg_catalog') ORDER BY 1, 2"
    )
    if raw.is_file_database(config):
        import duckdb

        try:
            with duckdb.connect(found.source, read_only=True) as db:
                rows = db.execute(query).fetchall()
        except duckdb.Error as error:
            raise SourceError(
                "the database cannot be read",
                expected="a DuckDB file that nobody holds open for writing",
                found=" ".join(str(error).split())[:300],
                where=found.source,
                hint="close whatever holds it open, or export the tables as Parquet",
            ) from error
    else:
        with postgres.connected(config) as connection:
            rows = connection.execute(query).fetchall()
    places = [name if schema in ("main", "public") else f"{schema}.{name}" for schema, name in rows]
    if not places or len(places) > MOST_TABLES:
        raise SourceError(
            f"the database holds {len(places)} tables" + (", too many to tell which are meant" if places else ""),
            expected=f"at least one and at most {MOST_TABLES}",
            found=", ".join(places[:6]) or "an empty database",
            where=raw.masked(found.source),
            hint="say which: --events TABLE --items TABLE (or a query each)",
        )
    return places


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


def _names(places: list[str]) -> dict[str, str]:
    """Place -> a short name for people, each another."""
    names: dict[str, str] = {}
    for place in places:
        words = place.split()
        stem = words[words.index("from") + 1] if "from" in [word.lower() for word in words[:-1]] else place
        short = re.sub(r"[*_\-.]*$", "", stem.rsplit("/", 1)[-1].split(".")[0]) or "table"
        if len(words) == 1 and "/" not in place and "." in place and place.rpartition(".")[2] not in READABLE:
            short = place.rpartition(".")[2] if "*" not in place else short
        while short in names.values():
            short += "_"
        names[place] = short
    return names


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
    if found.format == "tables" and _comma_decimals(found, name, kinds):
        found.files = found.files.model_copy(update={"decimal": ","})
    facts = {column: _facts(found, name, column, kind) for column, kind in kinds.items()}
    return Seen(name, place, int(count), not more and left > 0, files, facts)


def _comma_decimals(found: Survey, table: str, kinds: dict[str, str]) -> bool:
    """Is some column of a text file written with decimal commas?"""
    for column in [column for column, kind in kinds.items() if kind == "text"]:
        told = f"trim(CAST({identifier(column)} AS VARCHAR))"
        sound = rf"regexp_full_match({told}, '[+-]?(\d+|\d{{1,3}}([.]\d{{3}})+)(,\d+)?')"
        query = (
            f"SELECT avg(CAST({sound} AS INTEGER)), count(*) FILTER (regexp_matches({told}, ',\\d+$')) "
            f"FROM {identifier(table)} WHERE {told} <> ''"
        )
        ((share, commas),) = found.db.execute(query).fetchall()
        if (share or 0) > 0.98 and commas:
            return True
    return False


def _facts(found: Survey, table: str, column: str, kind: str) -> Facts:
    """What one column looks like."""
    column_sql, table_sql = identifier(column), identifier(table)
    listed = kind in ("list",)
    words = f"nullif(trim(CAST({column_sql} AS VARCHAR)), '')"
    # whatever stands for nothing is counted as nothing, in columns that are else numbers or times
    written = f"replace(replace({words}, '.', ''), ',', '.')" if found.files.decimal == "," else words
    number = f"TRY_CAST({written} AS DOUBLE)"
    row = found.db.execute(
        f"""
        SELECT count({words}), count(*), count(DISTINCT {words}),
            avg(CAST(coalesce(isfinite({number}), false) AS INTEGER)) FILTER ({words} IS NOT NULL),
            coalesce(bool_and({number} = floor({number})) FILTER ({number} IS NOT NULL), false),
            min({number}) FILTER (isfinite({number})), max({number}) FILTER (isfinite({number})),
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
    examples = found.db.execute(
        f"SELECT {words} AS told FROM {table_sql} WHERE told IS NOT NULL GROUP BY told "
        f"ORDER BY min({table_sql}.rowid) LIMIT 3"
    ).fetchall()
    numbers = float(numbers or 0) if kind != "token" else 0.0
    # AVG over booleans of nulls: absent where there is no value
    told = _times(found, table_sql, words, kind, values, numbers, low, high) if values else ((), None)
    separator = ""
    if not listed and (count or 0) < 12 and (arrays or 0) < 0.5 and (urls or 0) < 0.5:
        separator = "|" if (bars or 0) > 0.2 else ", " if (commas or 0) > 0.5 and (size or 0) < 60 else ""
    return Facts(
        name=column, kind=kind, values=int(values), filled=values / rows if rows else 0.0, distinct=int(distinct),
        examples=tuple(str(value)[:60] for (value,) in examples), numbers=numbers, whole=bool(whole),
        low=low, high=high, characters=float(size or 0), words=float(count or 0), flags=float(flags or 0),
        urls=float(urls or 0), arrays=float(arrays or 0), vectors=float(vectors or 0), separator=separator,
        times=told[0], zoned=told[1],
    )  # fmt: skip


def _times(
    found: Survey, table: str, words: str, kind: str, values: int, numbers: float, low: float | None, high: float | None
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
        ((told,),) = found.db.execute(query).fetchall()
        return float(told or 0)

    # DuckDB reads "2021" and "12:30" as times, too: a date is asked for
    dated = f"regexp_matches({words}, '^\\d{{4}}-\\d{{1,2}}-\\d{{1,2}}')"
    if share(f"{dated} AND (TRY_CAST({words} AS TIMESTAMPTZ) IS NOT NULL)") > 0.95:
        return ("iso",), share(f"regexp_matches({words}, {literal(ZONED)})")
    if share(f"regexp_matches({words}, '\\d')") < 0.95:
        return (), None
    fits = tuple(
        pattern for pattern in PATTERNS if share(f"try_strptime({words}, {literal(pattern)}) IS NOT NULL") > 0.98
    )
    return fits, (1.0 if "%z" in fits[0] else 0.0) if fits else None


def language_of(text: str) -> str:
    """The language that a text seems to be in, as a code (en, zh…); empty where none can be told."""
    letters = len(re.findall(r"\w", text)) or 1
    shares = {code: len(re.findall(f"[{span}]", text)) / letters for code, span in SCRIPTS}
    if shares["ja"] > 0.1:
        return "ja"
    code = max(shares, key=lambda each: shares[each])
    if shares[code] > 0.2:
        return code
    told = re.findall(r"[^\W\d_]+", text.lower())
    hits = {code: sum(word in words for word in told) for code, words in SMALL_WORDS.items()}
    likely = max(hits, key=lambda each: hits[each])
    if hits[likely] > 0.04 * len(told) > 0:
        return likely
    if text.isascii() or letters < 40:  # names and keywords alone tell no language
        return ""
    from charset_normalizer import from_bytes

    best = from_bytes(text[:20_000].lower().encode(), cp_isolation=["utf_8"]).best()
    return LANGUAGES.get(best.language, "") if best else ""


SMALL_WORDS = {
    code: frozenset(words.split())
    for code, words in {
        "en": "the and of to in is it for with that on this was are as be by or an from at",
        "de": "der die und das ist nicht mit ein eine für auf den von zu im dem es auch sich aus",
        "fr": "le la les et des un une est pour dans que pas avec sur ce qui du au plus sont",
        "es": "el los las y de que es un una para con por no del se lo como su al más",
        "it": "il di che è la per un una non con del della sono le gli si da più come ma",
        "nl": "de het een en van is dat niet met voor op te zijn die aan ook er maar als bij",
        "pt": "o os as e de que é um uma para com não do da em se por mais ao dos",
    }.items()
}
LANGUAGES = {
    "English": "en", "German": "de", "French": "fr", "Dutch": "nl", "Italian": "it", "Polish": "pl", "Spanish": "es",
    "Russian": "ru", "Portuguese": "pt", "Swedish": "sv", "Ukrainian": "uk", "Norwegian": "no", "Finnish": "fi",
    "Vietnamese": "vi", "Czech": "cs", "Hungarian": "hu", "Turkish": "tr", "Danish": "da", "Greek": "el",
    "Romanian": "ro", "Arabic": "ar", "Bulgarian": "bg", "Indonesian": "id",
}  # fmt: skip
