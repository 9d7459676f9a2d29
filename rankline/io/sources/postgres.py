"""Postgres as a source, read in one snapshot.

The password comes from the environment: PGPASSWORD or whatever else libpq reads, or a whole URL in the variable that
`connection` names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from rankline.errors import SourceError
from rankline.io import digest
from rankline.io.sources.settings import MASK, Source, mask_passwords

CONNECT_TIMEOUT_S = 10


@contextlib.contextmanager
def connect(source: Source) -> Iterator[Any]:
    """A connection in one read-only transaction: all queries see the same snapshot.

    Raises:
        SourceError: the server is unreachable, refuses, or disconnects; the message never holds a password.
    """
    import psycopg

    url = _connection_url(source)
    with translate_errors(source), psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET DateStyle = 'ISO'")
        connection.execute("SET extra_float_digits = 3")
        yield connection


@contextlib.contextmanager
def translate_errors(source: Source) -> Iterator[None]:
    """Turn the driver's exceptions into SourceError."""
    import psycopg

    try:
        yield
    except psycopg.OperationalError as error:
        raise SourceError(
            "the database cannot be reached, or the connection was lost",
            expected="a Postgres server that responds until everything is read",
            found=_safe_message(error, _connection_url(source)),
            where=database_label(source),
            hint="check that it runs and that PGHOST, PGUSER, PGPASSWORD or the URL are right; then run again",
        ) from None
    except psycopg.Error as error:
        raise SourceError(
            "the database refuses a query",
            expected="tables or queries that this user may read (ingest.tables)",
            found=_safe_message(error, _connection_url(source)),
            where=database_label(source),
            hint="try the query in psql with the same user",
        ) from None


def _connection_url(source: Source) -> str:
    """The URL of the database, with the password if it is in the environment; never print it."""
    if not source.connection:
        return source.source
    url = os.environ.get(source.connection, "")
    if not url:
        raise SourceError(
            "the database's URL is not in the environment",
            expected=f"{source.connection}=postgresql://user:password@host/database",
            found="no such variable, or an empty one",
            where="ingest.connection",
            hint=f"set {source.connection} where the step runs (a secret on a cluster)",
        )
    return url


def _safe_message(error: BaseException, url: str) -> str:
    """The driver's message in one line, without passwords."""
    import psycopg

    try:
        password = psycopg.conninfo.conninfo_to_dict(url).get("password")
    except psycopg.Error:
        return "a URL that cannot be parsed"  # the driver's message would repeat the password
    text = mask_passwords(" ".join(str(error).split()))
    for secret in (password, os.environ.get("PGPASSWORD")):
        if secret:
            text = text.replace(str(secret), MASK)
    return text or type(error).__name__


def database_label(source: Source) -> str:
    """The name of the database in messages."""
    return f"${source.connection}" if source.connection else mask_passwords(source.source)


def select_statement(table_or_query: str) -> str:
    """The query for a table's name; a query is returned as it is."""
    if any(character.isspace() for character in table_or_query.strip()):
        return table_or_query.strip().rstrip(";") + "\n"  # it may end in a comment
    return "SELECT * FROM " + ".".join(
        '"' + name.replace('"', '""') + '"' for name in table_or_query.strip().split(".")
    )


def database_digest(source: Source) -> str:
    """The digest of the rows of every table: their number and the sum of their 64-bit hashes.

    The database computes it and transfers no row. The order of the rows does not count. Two changes whose hashes
    cancel out go unnoticed.
    """
    checksums = {}
    with connect(source) as connection:
        for table, table_or_query in source.tables:
            if table_or_query:
                checksums[table] = connection.execute(
                    "SELECT count(*)::text, coalesce(sum(hashtextextended(source_row::text, 0)::numeric), 0)::text "
                    f"FROM ({select_statement(table_or_query)}) AS source_row"
                ).fetchone()
    return digest.json_digest(checksums)
