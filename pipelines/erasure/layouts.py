"""How the files of sources are written and which of their columns hold users, as the recipes of runs recorded it."""

from __future__ import annotations

import codecs
import contextlib
import fnmatch
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.erasure.ids import UserIds

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The layout of one file; ``tables`` are the tables that recipes read from it, none if no recipe does."""

    columns: frozenset[str] = frozenset({"user_id"})
    tables: frozenset[str] = frozenset()
    encodings: tuple[str, ...] = ()
    delimiter: str = ""
    quote: str | None = None
    escape: str = ""
    names: tuple[tuple[str, ...], ...] = ()  # of the columns of files without a header

    def users(self, names: Iterable[str], ids: UserIds) -> frozenset[str]:
        """The columns that hold the ids of users: those that the recipes name, else those whose names say so."""
        if self.tables and not self.tables & {"events", "users"}:
            return frozenset()
        plain = {name: name.partition(":")[0] for name in names}
        declared = {name for name, each in plain.items() if each in self.columns}
        return frozenset(declared or {name for name in plain if ids.are_in_column(name)})

    def names_of(self, count: int) -> tuple[str, ...]:
        """The declared names of a file without a header that has this many columns; none if there are none."""
        return next((each for each in self.names if len(each) == count), ())

    def decode(self, content: bytes) -> tuple[str, str] | None:
        """A file as text, and its encoding; None if neither a mark nor a recipe tells it."""
        for mark, encoding in _MARKS:
            if content.startswith(mark):
                with contextlib.suppress(UnicodeDecodeError):
                    return content.decode(encoding), encoding
        for encoding in ("utf-8", *self.encodings):
            with contextlib.suppress(UnicodeDecodeError):
                text = content.decode(encoding)
                if "\0" not in text:
                    return text, encoding
        return None


def layout_of(file: str, ingests: Collection[Mapping[str, Any]]) -> Layout:
    """The layout of a file by the settings of ingest that read it, or by all of them if none does."""
    read = [(each, tables) for each in ingests if (tables := _tables_of(file, each))]
    columns = {"user_id"} if not read else set()
    for each, tables in read or [(each, {"events"}) for each in ingests]:
        named = each.get("columns") or {}
        columns |= {str(named.get("user_id", "user_id"))} if "events" in tables or not named.get("user_key") else set()
        columns |= {str(named["user_key"])} if "users" in tables and named.get("user_key") else set()
    files = [each.get("files") or {} for each, _ in read] or [each.get("files") or {} for each in ingests]
    first = files[0] if read else {}
    names = {tuple(map(str, some)) for each in files for some in (each.get("names") or {}).values()}
    return Layout(
        frozenset(columns - {""}),
        frozenset(table for _, tables in read for table in tables),
        tuple(dict.fromkeys(str(each["encoding"]) for each in files if each.get("encoding"))),
        str(first.get("delimiter") or ""),
        first.get("quote"),
        str(first.get("escape") or ""),
        tuple(sorted(names)),
    )


def _tables_of(file: str, ingest: Mapping[str, Any]) -> set[str]:
    """The tables that settings of ingest read from a file."""
    tables = set()
    for table, patterns in (ingest.get("tables") or {}).items():
        for pattern in [patterns] if isinstance(patterns, str) else patterns or ():
            tail = str(pattern).rpartition("://")[2].lstrip("./")
            if tail and (fnmatch.fnmatch(file, tail) or fnmatch.fnmatch(file, f"*/{tail}")):
                tables.add(str(table))
    return tables
