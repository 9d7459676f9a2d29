"""The adapter for RecBole atomic files: tab-separated text under a header of `name:type`.

An adapter fills the DuckDB tables `items`, `users` and `events` (`users` may be left out): the canonical
columns, the declared ones behind them, and three of its own: `row` (the line in the file, the header being
line 1), `raw` (that line) and `wrong` (why it cannot be read, or null).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.ingest.config import Columns
from rankline.errors import SourceError

CHUNK_BYTES = 4 << 20
TYPES = ("token", "token_seq", "float", "float_seq")
LATEST_S = 253_402_300_799  # the end of the year 9999; milliseconds taken for seconds lie beyond it


def stage(db: Any, files: dict[str, Path], columns: Columns, progress: Callable[[int, int], None]) -> None:
    """Fill `items`, `users` and `events` in ``db`` from the files.

    Raises:
        SourceError: where a header is not one, or lacks a column that the settings name.
    """
    total, before = sum(path.stat().st_size for path in files.values()), 0
    for table, path in files.items():
        fields = Fields(path, table)
        select = {"events": _events, "items": _items, "users": _users}[table](fields, columns)
        _load(db, path, lambda done, before=before: progress(before + done, total))
        before += path.stat().st_size
        db.execute(f"CREATE TABLE {table} AS SELECT row, raw, {fields.wrong()} AS wrong, {select} FROM lines")
        db.execute("DROP TABLE lines")


class Fields:
    """The columns of one file as SQL expressions over `cell`, a line's list of strings."""

    def __init__(self, path: Path, table: str) -> None:
        self.path, self.table = path, table
        with path.open("rb") as stream:
            header = stream.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
        pairs = [name.rpartition(":") for name in header.split("\t")]
        if any(not name or kind not in TYPES for name, _, kind in pairs):
            raise SourceError(
                "a RecBole file begins with a header",
                expected="tab-separated name:type, type being token, token_seq, float or float_seq",
                found=repr(header[:80]),
                where=str(path),
                hint="write that header as the file's first line",
            )
        self.kinds = {name: kind for name, _, kind in pairs}
        self.places = {name: place for place, (name, _, _) in enumerate(pairs, start=1)}
        self.checks: list[tuple[str, str]] = [
            (f"len(cell) <> {len(pairs)}", "wrong number of columns"),
            ("contains(raw, chr(65533))", "not UTF-8"),
        ]

    def words(self, name: str, *, setting: str) -> str:
        """A column as text; null where it is empty."""
        if name not in self.places:
            raise SourceError(
                f"the {self.table} have no column {name!r}",
                expected=f"a column {name!r} in the header",
                found=", ".join(self.places),
                where=str(self.path),
                hint=f"set ingest.columns.{setting} to the column that is meant (empty where there is none)",
            )
        return f"nullif(trim(cell[{self.places[name]}]), '')"

    def number(self, name: str, *, setting: str, reason: str) -> str:
        """A column as a float64; a line in which it is neither empty nor a finite number is wrong."""
        words = self.words(name, setting=setting)
        number = f"TRY_CAST({words} AS DOUBLE)"
        self.checks.append((f"{words} IS NOT NULL AND NOT coalesce(isfinite({number}), false)", reason))
        return number

    def moment(self, name: str, *, setting: str) -> str:
        """A column of unix seconds as a moment; a line without one is wrong."""
        seconds = f"TRY_CAST({self.words(name, setting=setting)} AS DOUBLE)"
        fine = f"coalesce({seconds} BETWEEN 0 AND {LATEST_S}, false)"
        self.checks.append((f"NOT {fine}", "unparsable timestamp"))
        return f"CASE WHEN {fine} THEN to_timestamp({seconds}) END"

    def sequence(self, name: str, *, setting: str) -> str:
        """A column as a list of words; one word where its type says so, empty where it is empty."""
        words = self.words(name, setting=setting)
        if self.kinds.get(name) == "token":
            return f"CASE WHEN {words} IS NULL THEN [] ELSE [{words}] END"
        return f"list_filter(string_split(coalesce({words}, ''), ' '), lambda word: word <> '')"

    def declared(self, name: str, *, setting: str) -> str:
        """A column as its header says it is."""
        words, kind = self.words(name, setting=setting), self.kinds[name]
        if kind == "float":
            return self.number(name, setting=setting, reason=f"unparsable {name}")
        if kind == "token":
            return words
        sequence = f"list_filter(string_split(coalesce({words}, ''), ' '), lambda word: word <> '')"
        if kind == "float_seq":
            numbers = f"list_transform({sequence}, lambda word: TRY_CAST(word AS DOUBLE))"
            fine = f"list_bool_and(list_transform({numbers}, lambda number: number IS NOT NULL))"
            self.checks.append((f"NOT coalesce({fine}, true)", f"unparsable {name}"))
            return numbers
        return sequence

    def wrong(self) -> str:
        """Why a line cannot be read: the first check it fails, or null."""
        return "CASE " + " ".join(f"WHEN {check} THEN '{_quoted(reason)}'" for check, reason in self.checks) + " END"


def _events(fields: Fields, columns: Columns) -> str:
    moment = fields.moment(columns.timestamp, setting="timestamp")
    known = fields.moment(columns.known_at, setting="known_at") if columns.known_at else moment
    return _select(
        {
            "event_timestamp": moment,
            "known_at": known,
            "user_id": fields.words(columns.user_id, setting="user_id"),
            "query_id": "NULL::VARCHAR",
            "item_id": fields.words(columns.item_id, setting="item_id"),
        }
        | {
            label: fields.number(name, setting="labels", reason=f"unparsable {label}")
            for label, name in sorted(columns.labels.items())
        }
        | {name: fields.declared(name, setting="event_attributes") for name in columns.event_attributes}
    )


def _items(fields: Fields, columns: Columns) -> str:
    title = fields.words(columns.title, setting="title") if columns.title else "NULL::VARCHAR"
    words = [fields.words(name, setting="text") for name in columns.text]
    created, extra = "NULL::TIMESTAMPTZ", {}
    if columns.created_year:
        # a year that is none leaves the item without one: its words and its events are still good
        stated = f"TRY_CAST({fields.words(columns.created_year, setting='created_year')} AS DOUBLE)"
        year = f"CASE WHEN {stated} BETWEEN 1 AND 9999 THEN CAST(floor({stated}) AS INTEGER) END"
        created = f"CAST(make_timestamp({year}, 1, 1, 0, 0, 0) AS TIMESTAMPTZ)"
        suffix = f"' (' || ({year}) || ')'"
        dated = f"{year} IS NULL OR ends_with({title}, {suffix})"
        title = f"CASE WHEN {dated} THEN {title} ELSE {title} || {suffix} END"
        extra["release_year"] = year
    return _select(
        {
            "item_id": fields.words(columns.item_id, setting="item_id"),
            "title": title,
            "text": f"nullif(concat_ws(' ', {', '.join(words)}), '')" if words else "NULL::VARCHAR",
            "language": fields.words(columns.language, setting="language") if columns.language else "NULL::VARCHAR",
            "category": fields.sequence(columns.category, setting="category") if columns.category else "[]::VARCHAR[]",
            "price": (
                fields.number(columns.price, setting="price", reason="unparsable price")
                if columns.price
                else "NULL::DOUBLE"
            ),
            "available": "true",
            "created_at": created,
        }
        | extra
        | {name: fields.declared(name, setting="item_attributes") for name in columns.item_attributes}
    )


def _users(fields: Fields, columns: Columns) -> str:
    return _select(
        {"user_id": fields.words(columns.user_id, setting="user_id")}
        | {name: fields.declared(name, setting="user_attributes") for name in columns.user_attributes}
    )


def _select(expressions: dict[str, str]) -> str:
    return ", ".join(f'{expression} AS "{_quoted(name)}"' for name, expression in expressions.items())


def _quoted(text: str) -> str:
    return text.replace("'", "''").replace('"', '""')


def _load(db: Any, path: Path, progress: Callable[[int], None]) -> None:
    """The lines of a file as the table `lines`, a few megabytes at a time; empty lines hold no row."""
    import pyarrow as pa

    schema = pa.schema([("row", pa.int64()), ("raw", pa.string())])

    def batches() -> Iterator[Any]:
        with path.open("rb") as stream:
            stream.readline()
            row = 2
            while lines := stream.readlines(CHUNK_BYTES):
                texts = [line.decode("utf-8", "replace").rstrip("\r\n") for line in lines]
                batch = pa.record_batch([pa.array(range(row, row + len(texts)), pa.int64()), pa.array(texts)], schema)
                row += len(texts)
                progress(stream.tell())
                yield batch

    db.register("arriving", pa.RecordBatchReader.from_batches(schema, batches()))
    db.execute(
        "CREATE TABLE lines AS SELECT row, raw, string_split(raw, chr(9)) AS cell FROM arriving WHERE trim(raw) <> ''"
    )
    db.unregister("arriving")
