"""Where the tables of a source are: its kind, and the place of each table (a file, a pattern, a folder, a name)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components.ingest.config import IngestConfig
from components.ingest.readers.tables import READERS
from onboarding.survey.grouping import MAX_GROUPS, join_places, merge_same_columns
from rankline.errors import SourceError
from rankline.io import sources
from rankline.io.sources import File, Tables, postgres
from rankline.io.sql import source_database

READABLE = tuple(READERS)
MAX_TABLES = 40
NOT_DATA_NAME = re.compile(r"^(readme|license|licence|copying|notice|changelog|requirements|_|\.)", re.IGNORECASE)


class DetectedSource(NamedTuple):
    """The kind of a source and where it is; ``file`` is set if only one file of the folder is meant."""

    source: str
    format: str
    name: str | None = None
    connection: str = ""
    file: str = ""


def detect_source(source: str, connection: str) -> DetectedSource:
    """The kind of a source.

    Raises:
        SourceError: it does not exist, or it is a file of another kind.
    """
    if connection or source.startswith(("postgres://", "postgresql://")):
        return DetectedSource(source or "postgresql://", "sql", connection=connection)
    if "://" in source:
        sources.source_filesystem(source)
        parent, _, last = source.rpartition("/")
        if "*" not in last and File(last).kind in READABLE:
            return DetectedSource(parent, "tables", file=last)
        return DetectedSource(source.rstrip("/"), "tables")
    _require_text(source)
    path = Path(source).expanduser()
    if not path.exists():
        if path.parent.is_dir() and path.with_name(f"{path.name}.inter").is_file():
            return DetectedSource(str(path.parent), "recbole", name=path.name)
        raise SourceError(
            "the source does not exist",
            expected="a folder, a file, or a URL such as s3://bucket/log or postgresql://host/database",
            found="no such file or folder",
            where=str(path),
            hint="check the spelling; the folder holds: " + sources.describe_folder(path.parent),
        )
    path = path.resolve()
    if path.is_file():
        if _is_duckdb(path):
            return DetectedSource(str(path), "sql")
        if path.suffix in (".inter", ".item", ".user"):
            return DetectedSource(str(path.parent), "recbole", name=path.stem)
        require_table_kind(File(str(path)))
        return DetectedSource(str(path.parent), "tables", file=path.name)
    names = {each.name.removesuffix(".gz") for each in path.iterdir()}
    if any(name.endswith(".inter") for name in names):
        sets = sorted({match["name"] for name in names if (match := sources.RECBOLE_NAME.fullmatch(name))})
        return DetectedSource(str(path), "recbole", name=sets[0] if len(sets) == 1 else None)
    if {"corpus.jsonl", "queries.jsonl", "qrels"} <= names:
        return DetectedSource(str(path), "beir")
    databases = [each for each in path.iterdir() if each.is_file() and _is_duckdb(each)]
    if len(databases) == 1 and not any(True for _ in _data_paths(str(path))):
        return DetectedSource(str(databases[0]), "sql")
    return DetectedSource(str(path), "tables")


def _require_text(path: str) -> None:
    """Refuse a path that no map can name, since its bytes are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            "the name of a file is not UTF-8",
            expected="a name that a map can hold",
            found=ascii(path.rsplit("/", 1)[-1]),
            where=ascii(path.rpartition("/")[0]),
            hint="rename it",
        ) from error


def _is_duckdb(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(12)[8:] == b"DUCK"


def _data_paths(source: str) -> Iterator[str]:
    """The paths of possible tables below a source, relative to it."""
    fs, root = sources.source_filesystem(source)
    with sources.translate_errors(source):
        paths = sorted(fs.find(root))
    for path in paths:
        inside = path[len(root) :].lstrip("/")
        is_readable = not sources.is_hidden(inside) and sources.File(inside).kind in READABLE
        _require_text(path)
        if is_readable and not NOT_DATA_NAME.match(inside.rsplit("/", 1)[-1]):
            yield inside


def _table_roots(source: str) -> dict[str, str]:
    """The folders below a source that a log says the files of, relative to it, and their formats."""
    fs, root = sources.source_filesystem(source)
    with sources.translate_errors(source):
        return sources.table_roots(path[len(root) :].lstrip("/") for path in fs.find(root))


def other_files(source: str) -> list[str]:
    """The files below a source that are no tables by their names, relative to it."""
    fs, root = sources.source_filesystem(source)
    with sources.translate_errors(source):
        paths = [path[len(root) :].lstrip("/") for path in sorted(fs.find(root))]
    tables = set(_data_paths(source))
    return [path for path in paths if path not in tables and not sources.is_hidden(path)]


def table_places(source: str) -> list[str]:
    """The places of a source's tables, as ingest takes them: a file, a pattern, or a folder.

    Raises:
        SourceError: there are none, or too many.
    """
    groups: dict[str, list[str]] = {}
    roots = sorted(_table_roots(source), key=len)
    for path in _data_paths(source):
        parent, _, name = path.rpartition("/")
        top = parent.split("/")[0]
        if root := next((root for root in roots if not root or path.startswith(f"{root}/")), None) if roots else None:
            groups.setdefault(root, []).append(path)
        elif "" in roots:
            groups.setdefault("**/*.parquet", []).append(path)
        elif "=" in top:  # hive partitioning: the folders below are one table
            groups.setdefault(f"{top.partition('=')[0]}=*/**", []).append(path)
        elif "=" in parent:
            groups.setdefault(parent[: parent.index("=")].rpartition("/")[0], []).append(path)
        else:
            pattern = re.sub(r"\d+", "*", name)
            groups.setdefault(f"{parent}/{pattern}".lstrip("/"), []).append(path)
    groups = merge_same_columns(source, groups)
    if 1 < len(groups) <= MAX_GROUPS:
        single = {
            paths[0] if len(paths) == 1 and _is_file(paths[0], place, roots) else place: paths
            for place, paths in groups.items()
        }
        groups = join_places(source, single)
    if not groups:
        raise SourceError(
            "the source holds no table that can be read",
            expected=f"files that end in {', '.join(READABLE)} (compressed or not), a RecBole set, a BEIR folder, "
            "or a DuckDB file",
            found=sources.describe_folder(Path(source)) if "://" not in source else "none",
            where=source,
            hint="export the tables as Parquet or CSV, or give the folder that holds them",
        )
    if len(groups) > MAX_TABLES:
        raise SourceError(
            f"the source holds {len(groups)} tables, too many to choose from",
            expected=f"at most {MAX_TABLES}",
            found=", ".join(list(groups)[:6]) + "…",
            where=source,
            hint="name them: --events PLACE --items PLACE (files, patterns or folders below the source)",
        )
    return [
        paths[0] if len(paths) == 1 and _is_file(paths[0], place, roots) else place for place, paths in groups.items()
    ]


def _is_file(path: str, place: str, roots: list[str]) -> bool:
    """Whether the place of one file is that file, and no partitioned folder or table with a log."""
    return "=" not in path and place not in roots


def files_at(source: str, place: str) -> list[File]:
    config = IngestConfig(source=source, format="tables", tables=Tables(events=place), items_from_events=True)
    return sources.find_files(config)["events"]


def require_table_kind(file: File) -> None:
    """Check that a file's name says it is a table.

    Raises:
        SourceError: it does not.
    """
    if file.kind not in READABLE:
        raise SourceError(
            "the file is not a table",
            expected=f"a name that ends in {', '.join(READABLE)} (compressed or not), or a DuckDB file",
            found=file.path.rsplit("/", 1)[-1],
            where=file.path,
            hint="export it as Parquet or CSV, or rename it if it is one of these",
        )


def database_tables(source: str, connection: str) -> list[str]:
    """The tables of a database.

    Raises:
        SourceError: it cannot be read, or has no table, or too many.
    """
    config = IngestConfig(source=source, format="sql", connection=connection)
    query = (
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema NOT IN "
        "('information_schema', 'pg_catalog') ORDER BY 1, 2"
    )
    if sources.is_file_database(config):
        import duckdb

        try:
            with source_database(Path(source), memory_mb=config.memory_limit_mb) as db:
                rows = db.execute(query).fetchall()
        except duckdb.Error as error:
            raise SourceError(
                "the database cannot be read",
                expected="a DuckDB file that no process has open for writing",
                found=" ".join(str(error).split())[:300],
                where=source,
                hint="close the process that has it open, or export the tables as Parquet",
            ) from error
    else:
        with postgres.connect(config) as server:
            rows = server.execute(query).fetchall()
    places = [name if schema in ("main", "public") else f"{schema}.{name}" for schema, name in rows]
    if not places or len(places) > MAX_TABLES:
        raise SourceError(
            f"the database holds {len(places)} tables" + (", too many to choose from" if places else ""),
            expected=f"at least one and at most {MAX_TABLES}",
            found=", ".join(places[:6]) or "an empty database",
            where=sources.mask_passwords(source),
            hint="name them: --events TABLE --items TABLE (or a query for each)",
        )
    return places


def short_names(places: list[str]) -> dict[str, str]:
    """Place -> a short and unique name."""
    names: dict[str, str] = {}
    for place in places:
        words = place.split()
        base = place
        if re.match(r"\s*(select|with|from)\s", place, re.IGNORECASE):
            selected = re.search(r'\bfrom\s+"?([\w."]+)', place, re.IGNORECASE)
            base = selected[1].strip('"') if selected else "query"
        if "/" in base and re.match(r"(part|data|file)?[-_.*\d]", base.rpartition("/")[2]):
            base = base.rpartition("/")[0]  # events/part-*.parquet are events
        short_name = re.sub(r"[*_\-.]*$", "", base.rsplit("/", 1)[-1].split(".")[0]) or "table"
        if len(words) == 1 and "/" not in place and "." in place and place.rpartition(".")[2] not in READABLE:
            short_name = place.rpartition(".")[2] if "*" not in place else short_name
        while short_name in names.values():
            short_name += "_"
        names[place] = short_name
    return names
