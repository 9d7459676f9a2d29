"""The raw data a run begins with: where it is, which files hold it, and one digest for what they hold.

`look` needs the digest before anything is read, `ingest` needs the files; both ask here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote

from pydantic import Field, field_validator, model_validator

from rankline.contracts import SPLITS, FrozenModel
from rankline.errors import SourceError, StorageError
from rankline.io import digest, storage

MASK = "***"


class Tables(FrozenModel):
    """Where each table of the source is; empty where there is none."""

    events: str = Field(
        default="", description="What happened: file, pattern, folder or URL; for sql a table or a query."
    )
    items: str = Field(default="", description="The catalogue, said in the same way.")
    users: str = Field(default="", description="What is known of the users.")
    queries: str = Field(default="", description="What was asked.")


class Source(FrozenModel):
    """Where the raw data is."""

    source: str = Field(
        description="Folder or URL of the source, or the path of its files without their suffix; for sql a DuckDB "
        "file, or postgresql://host/database without a password."
    )
    format: str = Field(default="recbole", description="Adapter that reads the source: recbole, beir, tables or sql.")
    name: str | None = Field(default=None, description="Name of the data set, where the folder holds several.")
    tables: Tables = Field(default=Tables(), description="Where each table is, for tables and sql; relative to source.")
    connection: str = Field(
        default="", description="For sql: environment variable that holds the database's URL, password and all."
    )
    changing: bool = Field(
        default=False, description="Read the source in every run instead of asking first whether it changed."
    )
    items_from_events: bool = Field(
        default=False, description="Without a table of items, take those that the events name; they have no words."
    )

    only_items: bool = Field(
        default=False,
        description="Read the items alone, as a refresh of the catalogue does; tables.items may then name them for "
        "any format.",
    )

    @model_validator(mode="before")
    @classmethod
    def _masked(cls, values: Any) -> Any:
        """A password is gone before any message could repeat it."""
        if isinstance(values, dict) and isinstance(values.get("source"), str):
            return {**values, "source": mask_passwords(values["source"])}
        return values

    @field_validator("source")
    @classmethod
    def _without_password(cls, source: str) -> str:
        if f"{MASK}@" in source or f"={MASK}" in source:
            raise ValueError("a password does not belong into settings: use PGPASSWORD or ingest.connection")
        return source


def mask_passwords(text: str) -> str:
    """A text in which the passwords of URLs and of `password=` are hidden."""
    text = re.sub(r"(postgres(?:ql)?://[^/\s:@]*):\S*@|(\w+://[^/\s:@]*):[^/\s]*@", rf"\1\2:{MASK}@", text)
    return re.sub(r"(?i)\b(password|passwd|pwd)=('[^']*'|[^\s&]+)", rf"\1={MASK}", text)


class File(NamedTuple):
    """One file of a table: its path or URL, the columns its folders name, the split its name says."""

    path: str
    partitions: Mapping[str, str | None] = {}
    split: str = ""

    @property
    def kind(self) -> str:
        """Its suffix without that of its compression: csv, parquet, jsonl..."""
        names = [part.lower() for part in self.path.rsplit("/", 1)[-1].split(".")]
        return next((name for name in reversed(names) if name not in COMPRESSION_SUFFIXES), "")

    def open_stored(self) -> IO[bytes]:
        """Its bytes as they are stored."""
        with translate_errors(self.path):
            if "://" not in self.path:
                return Path(self.path).open("rb")
            fs, path = source_filesystem(self.path)
            return RemoteFile(fs.open(path, "rb"), self.path)  # type: ignore[return-value]

    def size(self) -> int:
        """How many bytes are stored; 0 where that is not told."""
        with translate_errors(self.path):
            if "://" not in self.path:
                return Path(self.path).stat().st_size
            fs, path = source_filesystem(self.path)
            return int(fs.size(path) or 0)

    def digest(self) -> str:
        """The sha256 of its stored bytes."""
        sha = hashlib.sha256()
        with self.open_stored() as stream, translate_errors(self.path):
            while block := stream.read(1 << 20):
                sha.update(block)
        return sha.hexdigest()


class RemoteFile(io.RawIOBase):
    """The bytes of a file behind a network: whatever its library raises while they are read is told as ours."""

    def __init__(self, stream: Any, path: str) -> None:
        self._stream, self._path = stream, path

    def read(self, size: int = -1) -> bytes:
        with translate_errors(self._path):
            return bytes(self._stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        with translate_errors(self._path):
            return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def close(self) -> None:
        self._stream.close()
        super().close()


def source_filesystem(place: str) -> tuple[Any, str]:
    """The file system of a path or a URL, and the path in it; one behind a network is asked again when it fails.

    Raises:
        SourceError: nothing here can read such a URL.
    """
    if "://" in place and "::" in place:
        raise SourceError(
            "a URL within a URL is not read",
            expected="one path or one URL",
            found="::",
            where=mask_passwords(place),
            hint="unpack the archive, and name the folder or the files",
        )
    try:
        return storage.open_filesystem(place if "://" in place else str(Path(place).expanduser()))
    except StorageError as error:
        raise SourceError(
            "the source lies where nothing here can read",
            expected="a path, or a URL of a kind whose package is installed (s3:// needs s3fs, gs:// needs gcsfs)",
            found=error.found,
            where=mask_passwords(place),
            hint="install the package beside rankline (on a cluster: into the data image)",
        ) from error


@contextlib.contextmanager
def translate_errors(path: str) -> Iterator[None]:
    """What cannot be opened, listed or read, told as ours."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # every store's library has errors of its own
        cause = error.__cause__ or error  # the web's client calls whatever it meets a file that is not there
        web = path.startswith(("http://", "https://"))
        missing = not web or cause is error or getattr(cause, "status", 0) == 404
        not_found = isinstance(error, FileNotFoundError) and missing
        store_answers = not_found or "://" not in path
        raise SourceError(
            "a source file cannot be opened" if store_answers else "the source does not answer as it should",
            expected="a file that is there and may be read"
            if store_answers
            else f"an answer within {storage.MAX_ATTEMPTS} attempts, and the right to read",
            found=f"{type(cause).__name__}: {mask_passwords(' '.join(str(cause).split()))[:300]}",
            where=mask_passwords(path),
            hint="see that it is there and that the user who runs this may read it; then run again"
            if store_answers
            else "see that it is up, that the address is right, and that the credentials may read it (for s3:// "
            "AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL); then run again",
        ) from error


Files = dict[str, list[File]]  # table ("events", "items", "users", "queries") -> its files, in order


def find_files(source: Source) -> Files:
    """Table -> files of a source; only tables that it has are named.

    Raises:
        SourceError: where there is no such source, a file of it is missing, or one is empty.
    """
    if source.format not in FINDERS:
        raise SourceError(
            f"no adapter reads {source.format!r}",
            expected=f"one of {', '.join(FINDERS)}",
            found=source.format,
            where="ingest.format",
            hint="set ingest.format to a format that is listed",
        )
    if source.only_items and source.tables.items and source.format != "sql":
        found = {"items": _match_files(source.source, source.tables.items, "items")}
    else:
        found = FINDERS[source.format](source)
        if source.only_items:
            found = {table: each for table, each in found.items() if table in ("items", "database")}
    for each in found.values():
        for file in each:
            if "://" not in file.path and file.size() == 0:
                raise SourceError(
                    "a source file is empty",
                    expected="a header and at least one row",
                    found="0 bytes",
                    where=file.path,
                    hint="fetch the data again, or point ingest.source at another copy",
                )
    return found


def source_digest(source: Source) -> str:
    """One digest for the contents of a source, wherever its files lie and whatever they are called.

    A source that is `changing` has a new one at every call. That of a Postgres database is made by the database.
    """
    if source.changing:
        return digest.json_digest(uuid.uuid4().hex)
    if source.format == "sql" and not is_file_database(source):
        from rankline.io import postgres

        return postgres.database_digest(source)
    return files_digest(find_files(source))


def files_digest(source_files: Files) -> str:
    """One digest for the contents of some files, and for what the names of their folders say."""
    digests = {}
    for table, each in source_files.items():
        entries = [[file.digest(), dict(file.partitions), file.split] for file in each]
        digests[table] = entries[0][0] if len(entries) == 1 and not any(entries[0][1:]) else entries
    return digest.json_digest(digests)


def is_file_database(source: Source) -> bool:
    """Is this source of format sql a DuckDB file, and no server?"""
    return not source.connection and not source.source.startswith(("postgres://", "postgresql://"))


def _find_recbole(source: Source) -> Files:
    """NAME.inter, NAME.item and NAME.user, gzip'd or not: `source` is their folder, or a path of one of them.

    A set that is already split has NAME.train.inter, NAME.valid.inter and NAME.test.inter instead of NAME.inter.
    """
    folder, name = Path(source.source).expanduser(), source.name
    if not folder.is_dir():
        match = RECBOLE_NAME.fullmatch(folder.name)
        if match and folder.parent.is_dir():
            folder, name = folder.parent, match["name"]
        elif folder.parent.is_dir() and any(
            folder.with_name(folder.name + end).is_file() for end in (".inter", ".inter.gz", ".train.inter")
        ):
            folder, name = folder.parent, folder.name
        else:
            raise _missing_source(folder, "a folder of RecBole atomic files (NAME.inter, NAME.item, NAME.user)")
    sets: dict[str, Files] = {}
    for path in sorted(folder.iterdir()):
        if (match := RECBOLE_NAME.fullmatch(path.name)) and path.is_file():
            split = SPLIT_NAMES.get(match["split"] or "", "")
            sets.setdefault(match["name"], {}).setdefault(RECBOLE_TABLES[match["kind"]], []).append(
                File(str(path), {}, split)
            )
    names = [name] if name else sorted(each for each, found in sets.items() if "events" in found)
    if len(names) != 1:
        raise SourceError(
            "which data set is meant is not clear" if names else "the source holds no events",
            expected="one .inter file",
            found=", ".join(f"{each}.inter" for each in names) or describe_folder(folder),
            where=str(folder),
            hint="set ingest.name to the one you mean" if names else "set ingest.source to the folder that has one",
        )
    found = sets.get(names[0], {})
    for table, suffix in (("events", ".inter"), ("items", ".item")):
        if table not in found and not (table == "items" and source.items_from_events):
            raise SourceError(
                f"the source has no file of {table}",
                expected=f"{names[0]}{suffix}",
                found=describe_folder(folder),
                where=str(folder),
                hint="set ingest.source to the folder that holds it, and ingest.name to its name"
                + ("; or set ingest.items_from_events=true to go on without" if table == "items" else ""),
            )
    whole = [file for file in found["events"] if not file.split]
    found["events"] = sorted(whole or found["events"], key=lambda file: (*SPLITS, "").index(file.split))
    return {table: found[table] for table in ("events", "items", "users") if table in found}


def _find_beir(source: Source) -> Files:
    """corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv of a folder, gzip'd or not."""
    folder = Path(source.source).expanduser()
    if not folder.is_dir():
        raise _missing_source(folder, "a BEIR folder (corpus.jsonl, queries.jsonl, qrels/)")
    found: Files = {"events": []}
    for table, name in (("items", "corpus.jsonl"), ("queries", "queries.jsonl")):
        found[table] = [File(str(path)) for path in (folder / name, folder / f"{name}.gz") if path.is_file()][:1]
        if not found[table]:
            raise SourceError(
                f"the source has no file of {table}",
                expected=name,
                found=describe_folder(folder),
                where=str(folder),
                hint="set ingest.source to the BEIR folder that holds it",
            )
    for split, name in (("train", "train"), ("valid", "dev"), ("valid", "valid"), ("test", "test")):
        paths = (folder / "qrels" / f"{name}.tsv", folder / "qrels" / f"{name}.tsv.gz")
        found["events"] += [File(str(path), {}, split) for path in paths if path.is_file()][:1]
    if not found["events"]:
        raise SourceError(
            "the source has no judgments",
            expected="qrels/train.tsv, qrels/dev.tsv or qrels/test.tsv",
            found=describe_folder(folder / "qrels"),
            where=str(folder),
            hint="set ingest.source to the BEIR folder that holds qrels/",
        )
    return found


def _find_tables(source: Source) -> Files:
    """The files of each table that the settings name."""
    found = {}
    for table in ("events", "items", "users", "queries"):
        if pattern := getattr(source.tables, table):
            found[table] = _match_files(source.source, pattern, table)
    _require_tables(source, found)
    return found


def _find_database(source: Source) -> Files:
    """The file of a DuckDB database, and the log of what is not in it yet; none of a server."""
    named = {table: location for table, location in source.tables.model_dump().items() if location}
    _require_tables(source, named)
    if not is_file_database(source):
        return {}
    path = Path(source.source).expanduser()
    if not path.is_file():
        raise _missing_source(path, "a DuckDB file, or postgresql://host/database")
    log = path.with_name(f"{path.name}.wal")
    return {
        "database": [
            File(str(each)) for each in (path, log) if each == path or (each.is_file() and each.stat().st_size)
        ]
    }


def _require_tables(source: Source, named: Mapping[str, Any]) -> None:
    """Refuse a source without events, or without items where they are not to be made of the events."""
    for table in ("items",) if source.only_items else ("events", "items"):
        if table not in named and not (table == "items" and source.items_from_events):
            raise SourceError(
                f"the source has no table of {table}",
                expected=f"ingest.tables.{table}",
                found=", ".join(named) or "no table at all",
                where=mask_passwords(source.source),
                hint=f"set ingest.tables.{table} to where it is"
                + (", or ingest.items_from_events=true to take the items that the events name" if named else ""),
            )


def _match_files(base: str, location: str, table: str) -> list[File]:
    """The files of one table, in the order of their paths; folders named column=value add columns."""
    is_absolute = "://" in location or location.startswith("/")
    full_location = location if is_absolute else f"{base.rstrip('/')}/{location}"
    fs, path = source_filesystem(full_location)
    web = full_location.startswith(("http://", "https://"))
    with translate_errors(full_location):
        if web:
            root, paths = "", [path]
        elif pattern := re.search(r"[^/]*[*?\[]", path):
            root = path[: pattern.start()]
            found = [each for each, info in fs.glob(path, detail=True).items() if info["type"] != "directory"]
            paths = [each for each in found if not is_hidden(each[len(root) :])]
        elif fs.isdir(path):
            root = path.rstrip("/") + "/"
            paths = [each for each in fs.find(path) if not is_hidden(each[len(root) :])]
        else:
            root = path[: path.rfind("/") + 1]
            paths = [path] if fs.exists(path) else []
    if not paths:
        folder = Path(full_location).parent
        raise SourceError(
            f"there are no files of {table}",
            expected="a file, a pattern, a folder or a URL that names at least one file",
            found=describe_folder(folder) if "://" not in full_location else "none",
            where=mask_passwords(full_location),
            hint=f"set ingest.tables.{table} to where they are (relative to ingest.source, or a whole path or URL)",
        )
    keeps_path = web or "://" not in full_location
    # a place below the source may itself lie in such folders; of a whole path only the last ones are meant
    prefix = PARTITION_FOLDERS.findall(root)[0] if is_absolute else root[len(path) - len(location.rstrip("/")) :]
    partitions = {each: {} if web else _partition_values(prefix + each[len(root) :]) for each in sorted(paths)}
    return [File(each if keeps_path else fs.unstrip_protocol(each), info) for each, info in partitions.items()]


def is_hidden(name: str) -> bool:
    """Is a file of a folder no data? Hidden ones are not, nor markers such as _SUCCESS."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _partition_values(path: str) -> dict[str, str | None]:
    """The columns that folders named column=value add."""
    pairs = [folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder]
    return {unquote(name): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for name, value in pairs}


def _missing_source(path: Path, expected: str) -> SourceError:
    return SourceError(
        "the source is not there",
        expected=expected,
        found="no such file" if path.suffix else "no such folder",
        where=mask_passwords(str(path)),
        hint="set ingest.source to where it is",
    )


def describe_folder(folder: Path) -> str:
    """What a folder holds, in a few words."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "an empty folder"


COMPRESSION_SUFFIXES = ("gz", "zst", "bz2")
PARTITION_FOLDERS = re.compile(r"(?:[^/=]+=[^/]*/)*$")  # the folders named column=value that a path ends in
RECBOLE_TABLES = {"inter": "events", "item": "items", "user": "users"}
SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}
RECBOLE_NAME = re.compile(
    r"(?P<name>.+?)(\.(?P<split>train|valid|validation|dev|test))?\.(?P<kind>inter|item|user)(\.gz)?"
)
FINDERS: dict[str, Callable[[Source], Files]] = {
    "recbole": _find_recbole,
    "beir": _find_beir,
    "tables": _find_tables,
    "sql": _find_database,
}
