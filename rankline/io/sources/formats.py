"""The formats of a source: which files it has, and which table each one holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rankline.contracts import SPLITS
from rankline.errors import SourceError, no_rows_error
from rankline.io.sources.files import File, Files, describe_folder, match_files
from rankline.io.sources.settings import Source, is_file_database, mask_passwords

SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}
BETWEEN_PLACES = " | "  # of one table
PLACE_COLUMN = "source_file"  # of a table in several places: the place of a row's file
RECBOLE_NAME = re.compile(
    r"(?P<name>.+?)(\.(?P<split>train|valid|validation|dev|test))?\.(?P<kind>inter|item|user)(\.gz)?"
)
_RECBOLE_TABLES = {"inter": "events", "item": "items", "user": "users"}
_BEIR_FILES = (("items", "corpus.jsonl"), ("queries", "queries.jsonl"))
_BEIR_SPLITS = (("train", "train"), ("valid", "dev"), ("valid", "valid"), ("test", "test"))


def find_files(source: Source) -> Files:
    """Table -> files of a source, without tables that it does not have.

    Raises:
        SourceError: the source or a file of it is missing, or a file is empty.
    """
    finders: dict[str, Callable[[Source], Files]] = {
        "recbole": _find_recbole,
        "beir": _find_beir,
        "tables": _find_tables,
        "sql": _find_database,
    }
    if source.format not in finders:
        raise SourceError(
            f"{source.format!r} is no source format",
            expected=f"one of {', '.join(finders)}",
            found=source.format,
            where="ingest.format",
            hint="set ingest.format to one of them",
        )
    if source.only_items and source.tables.items and source.format != "sql":
        files = {"items": _listed_files(source.source, source.tables.items, "items")}
    else:
        files = finders[source.format](source)
        if source.only_items:
            files = {table: each for table, each in files.items() if table in ("items", "database")}
    is_refused = all if source.format == "tables" else any  # a part without bytes is left out
    for each in files.values():
        if each and is_refused(file.is_empty() for file in each):
            raise no_rows_error(
                "a source file is empty",
                expected="a header and at least one row",
                found="0 bytes",
                where=next(file.path for file in each if file.is_empty()),
                hint="fetch the data again, or point ingest.source at another copy",
            )
    return files


# -- RecBole ---------------------------------------------------------------------------------------------------


def _find_recbole(source: Source) -> Files:
    """NAME.inter, NAME.item and NAME.user, gzipped or not: `source` is their folder, or a path of one of them.

    A data set that is already split has NAME.train.inter, NAME.valid.inter and NAME.test.inter instead of NAME.inter.
    """
    folder, name = _recbole_folder(source)
    data_sets = _recbole_data_sets(folder)
    names = [name] if name else sorted(each for each, files in data_sets.items() if "events" in files)
    if len(names) != 1:
        raise SourceError(
            "the source holds several data sets" if names else "the source holds no events",
            expected="one .inter file",
            found=", ".join(f"{each}.inter" for each in names) or describe_folder(folder),
            where=str(folder),
            hint="set ingest.name to one of them" if names else "set ingest.source to the folder that has one",
        )
    files = data_sets.get(names[0], {})
    for table, suffix in (("events", ".inter"), ("items", ".item")):
        if table not in files and not (table == "items" and source.items_from_events):
            raise SourceError(
                f"the source has no file of {table}",
                expected=f"{names[0]}{suffix}",
                found=describe_folder(folder),
                where=str(folder),
                hint="set ingest.source to the folder that holds it, and ingest.name to its name"
                + ("; or set ingest.items_from_events=true to go on without" if table == "items" else ""),
            )
    unsplit = [file for file in files["events"] if not file.split]
    files["events"] = sorted(unsplit or files["events"], key=lambda file: (*SPLITS, "").index(file.split))
    return {table: files[table] for table in ("events", "items", "users") if table in files}


def _recbole_folder(source: Source) -> tuple[Path, str | None]:
    """The folder of the atomic files, and the name of the data set where the settings state one."""
    path = Path(source.source).expanduser()
    if path.is_dir():
        return path, source.name
    if path.parent.is_dir():
        if match := RECBOLE_NAME.fullmatch(path.name):
            return path.parent, match["name"]
        suffixes = (".inter", ".inter.gz", ".train.inter")
        if any(path.with_name(path.name + suffix).is_file() for suffix in suffixes):
            return path.parent, path.name
    raise _missing_source(path, "a folder of RecBole atomic files (NAME.inter, NAME.item, NAME.user)")


def _recbole_data_sets(folder: Path) -> dict[str, Files]:
    """Name -> files of every data set in a folder."""
    data_sets: dict[str, Files] = {}
    for path in sorted(folder.iterdir()):
        if (match := RECBOLE_NAME.fullmatch(path.name)) and path.is_file():
            file = File(str(path), {}, SPLIT_NAMES.get(match["split"] or "", ""))
            data_sets.setdefault(match["name"], {}).setdefault(_RECBOLE_TABLES[match["kind"]], []).append(file)
    return data_sets


# -- BEIR ------------------------------------------------------------------------------------------------------


def _find_beir(source: Source) -> Files:
    """corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv in a folder, gzipped or not."""
    folder = Path(source.source).expanduser()
    if not folder.is_dir():
        raise _missing_source(folder, "a BEIR folder (corpus.jsonl, queries.jsonl, qrels/)")
    files: Files = {"events": []}
    for table, name in _BEIR_FILES:
        files[table] = _plain_or_gzipped(folder / name)
        if not files[table]:
            raise SourceError(
                f"the source has no file of {table}",
                expected=name,
                found=describe_folder(folder),
                where=str(folder),
                hint="set ingest.source to the BEIR folder that holds it",
            )
    for split, name in _BEIR_SPLITS:
        files["events"] += _plain_or_gzipped(folder / "qrels" / f"{name}.tsv", split)
    if not files["events"]:
        raise SourceError(
            "the source has no relevance judgments",
            expected="qrels/train.tsv, qrels/dev.tsv or qrels/test.tsv",
            found=describe_folder(folder / "qrels"),
            where=str(folder),
            hint="set ingest.source to the BEIR folder that holds qrels/",
        )
    return files


def _plain_or_gzipped(path: Path, split: str = "") -> list[File]:
    """The file at a path, or else its gzipped form, or none."""
    candidates = (path, path.with_name(f"{path.name}.gz"))
    return [File(str(each), {}, split) for each in candidates if each.is_file()][:1]


# -- tables and databases --------------------------------------------------------------------------------------


def _find_tables(source: Source) -> Files:
    """The files of each table that the settings name."""
    locations = {table: location for table, location in source.tables if location}
    files = {table: _listed_files(source.source, location, table) for table, location in locations.items()}
    _require_tables(source, files)
    return files


def _listed_files(base: str, location: str, table: str) -> list[File]:
    """The files of a table; of one in several places with the place as a column."""
    places = location.split(BETWEEN_PLACES)
    if len(places) == 1:
        return match_files(base, location, table)
    return [
        file._replace(partitions={**file.partitions, PLACE_COLUMN: place})
        for place in places
        for file in match_files(base, place, table)
    ]


def _find_database(source: Source) -> Files:
    """The file of a DuckDB database and its write-ahead log; none of a server."""
    _require_tables(source, {table: location for table, location in source.tables if location})
    if not is_file_database(source):
        return {}
    path = Path(source.source).expanduser()
    if not path.is_file():
        raise _missing_source(path, "a DuckDB file, or postgresql://host/database")
    log = path.with_name(f"{path.name}.wal")
    has_log = log.is_file() and log.stat().st_size
    return {"database": [File(str(path)), *([File(str(log))] if has_log else [])]}


def _require_tables(source: Source, tables: Mapping[str, Any]) -> None:
    """Refuse a source without events, or without items unless they come from the events."""
    for table in ("items",) if source.only_items else ("events", "items"):
        if table not in tables and not (table == "items" and source.items_from_events):
            raise SourceError(
                f"the source has no table of {table}",
                expected=f"ingest.tables.{table}",
                found=", ".join(tables) or "no table at all",
                where=mask_passwords(source.source),
                hint=f"set ingest.tables.{table} to where it is"
                + (", or ingest.items_from_events=true to take the items from the events" if tables else ""),
            )


def _missing_source(path: Path, expected: str) -> SourceError:
    return SourceError(
        "the source does not exist",
        expected=expected,
        found="no such file" if path.suffix else "no such folder",
        where=mask_passwords(str(path)),
        hint="set ingest.source to where it is",
    )
