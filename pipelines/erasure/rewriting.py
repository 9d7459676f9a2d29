"""Files without the words of users: what may be written anew instead of being removed."""

from __future__ import annotations

import sqlite3

from pipelines.erasure.ids import ERASED, UserIds
from pipelines.erasure.search import as_text, cell_holds, cells, opened
from rankline.evidence.comparisons import COMPARISONS, page_without_users, without_users
from rankline.io.sql import identifier

PAGES = ("evidence.html", "page", "page.html", "report.html")  # in which each request is an article of its own


def redacted(content: bytes, ids: UserIds, *, name: str = "") -> bytes | None:
    """A text or a database in which the users are replaced by a placeholder; None for another kind of file.

    What files of evidence, of this ``name``, show of single requests of the users is left out.
    """
    if content.startswith(b"SQLite format 3"):
        return _redacted_database(content, ids)
    text = as_text(content)
    if text is None:
        return None
    if name == COMPARISONS:
        text = without_users(text, ids.is_in)
    elif name in PAGES:
        text = page_without_users(text, ids.is_in)
    return ids.redact(text).encode()


def _redacted_database(content: bytes, ids: UserIds) -> bytes:
    with opened(content) as (db, path):
        for table, column, row, value in list(cells(db)):
            if cell_holds(column, value, ids):
                new = ids.redact(value) if isinstance(value, str) and value not in ids.forms else ERASED
                _update(db, table, column, row, new)
        db.commit()
        db.execute("VACUUM")
        return path.read_bytes()


def _update(db: sqlite3.Connection, table: str, column: str, row: int, value: str) -> None:
    db.execute(f"UPDATE {identifier(table)} SET {identifier(column)} = ? WHERE rowid = ?", [value, row])
