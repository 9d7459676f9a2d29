"""Who the rows are of: erased users are left out before anything is written, and ids are hashed with a key."""

from __future__ import annotations

from typing import Any

from components.ingest.config import IngestConfig
from components.ingest.expressions import ColumnExpressions
from components.ingest.ids import tag, whole
from rankline.io.sql import fetch_row, literal
from rankline.users.erased import ErasedUsers
from rankline.users.hashing import UserKey

BETWEEN_WORDS = r"""\s,;|"'{}\[\]()<>:="""
MAX_PARTS = 16  # of an id with blanks, commas or quotes: its words and what is between them


class Identity:
    """What becomes of the users of a source's rows."""

    def __init__(self, db: Any, config: IngestConfig, erased: ErasedUsers | None) -> None:
        self._db, self._hashes_ids = db, bool(config.hash_users)
        self._erases, self._normalise_ids = bool(erased), config.columns.normalise_ids
        self.removed: dict[str, int] = {}
        if self._hashes_ids:
            UserKey.from_environment(config.hash_users).add_macro(db, "hash_user")
        if erased:
            erased.key.add_macro(db, "erased_hash")
            db.execute("SET VARIABLE erased_users = $1", [[*erased.hashes, *erased.normalised]])
            db.execute("CREATE TEMP TABLE erased_users AS SELECT unnest(getvariable('erased_users')) AS hash")

    def raw(self, source: ColumnExpressions) -> str:
        """A row as it came; with hashed ids the rows of users have no text, which would hold the id."""
        is_of_users = source.part.table in ("users", "events")
        return "NULL::VARCHAR" if self._hashes_ids and is_of_users else source.part.raw

    def condition(self, source: ColumnExpressions) -> str:
        """SQL that is true for the rows that stay; empty where all do.

        A rejected row whose user cannot be read is left out if an erased id is one of its words.
        """
        if not self._erases or not source.plain_user:
            return ""
        names = self._normalise_ids
        forms = dict.fromkeys([source.plain_user, source.raw_user, whole(source.raw_user)])
        tagged = [f"{literal(tag(names))} || ({source.plain_user})"] if names else []
        is_erased = " OR ".join(
            f"coalesce(erased_hash({form}) IN (SELECT hash FROM erased_users), false)" for form in [*forms, *tagged]
        )
        unreadable = f"({source.reject_reason()}) IS NOT NULL AND {_names_erased(source.part.raw)}"
        return f"NOT CASE WHEN ({source.plain_user}) IS NULL THEN {unreadable} ELSE {is_erased} END"

    def rejected(self) -> str:
        """SQL of the rejected rows; one of another user that names an erased one in its text has none."""
        raw = f"CASE WHEN {_names_erased('raw')} THEN '' ELSE raw END" if self._erases else "raw"
        return f'SELECT * REPLACE ({raw} AS raw) FROM rejected ORDER BY "table", row'

    def count_removed(self, table: str, relation: str, condition: str) -> None:
        """Count the rows of ``relation`` that are left out."""
        if condition:
            (rows,) = fetch_row(self._db, f"SELECT count(*) FROM {relation} WHERE NOT ({condition})")
            self.removed[table] = self.removed.get(table, 0) + int(rows)

    def summary(self) -> dict[str, Any]:
        """The part of the step's summary; empty without erased users."""
        return {"erased_rows": dict(sorted(self.removed.items()))} if self._erases else {}


def _names_erased(text: str) -> str:
    """SQL for whether some words of a text, with what is between them, are an erased id; quotes may be escaped."""
    parts = literal(f"[^{BETWEEN_WORDS}]+|[{BETWEEN_WORDS}]")
    unescaped = f"""[{text}, replace({text}, '""', '"'), replace({text}, '\\"', '"')]"""
    split = f"list_transform({unescaped}, lambda written: regexp_extract_all(written, {parts}))"
    span = "erased_hash(array_to_string(parts[first:first + more], ''))"
    spans = f"list_transform(range({MAX_PARTS}), lambda more: {span})"
    hashes = f"flatten(list_transform(range(1, len(parts) + 1), lambda first: {spans}))"
    is_named = f"list_has_any({hashes}, getvariable('erased_users'))"
    return f"coalesce(list_bool_or(list_transform({split}, lambda parts: {is_named})), false)"


def hashing_summary(config: IngestConfig) -> dict[str, Any]:
    """The variable and the fingerprint of the key that hashes users; empty without one."""
    if not config.hash_users:
        return {}
    key = UserKey.from_environment(config.hash_users)
    return {"hash_users": {"variable": config.hash_users, "key": key.fingerprint}}
