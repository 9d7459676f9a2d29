"""Postgres as a source: connected to without a password in any setting, read as of one moment, streamed.

The password comes from the environment: PGPASSWORD (or whatever libpq reads, such as a password file), or a
whole URL in the variable that `connection` names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from rankline.errors import SourceError
from rankline.io import digest
from rankline.io.sources import Source, mask_passwords

CONNECT_TIMEOUT_S = 10


@contextlib.contextmanager
def connect(source: Source) -> Iterator[Any]:
    """A connection in one read-only transaction: all that is read is of one moment.

    Raises:
        SourceError: where there is no server, it refuses, or it goes away; never with a password in the message.
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
    """The driver's errors as ours."""
    import psycopg

    try:
        yield
    except psycopg.OperationalError as error:
        raise SourceError(
            "the database cannot be reached, or went away",
            expected="a Postgres server that answers until all is read",
            found=_safe_message(error, _connection_url(source)),
            where=database_label(source),
            hint="see that it runs and that PGHOST, PGUSER, PGPASSWORD or the URL are right; then run again: "
            "nothing half-read was kept",
        ) from None
    except psycopg.Error as error:
        raise SourceError(
            "the database refuses what it is asked",
            expected="tables or queries that can be read (ingest.tables)",
            found=_safe_message(error, _connection_url(source)),
            where=database_label(source),
            hint="try the query in psql with the same user",
        ) from None


def _connection_url(source: Source) -> str:
    """Where the database is, password and all where it comes that way; never to be shown."""
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
    """A driver's message in one line, without what is secret in the URL."""
    import psycopg

    try:
        password = psycopg.conninfo.conninfo_to_dict(url).get("password")
    except psycopg.Error:
        return "a URL that cannot be read"  # the driver would repeat it, password and all
    text = mask_passwords(" ".join(str(error).split()))
    for secret in (password, os.environ.get("PGPASSWORD")):
        if secret:
            text = text.replace(str(secret), "***")
    return text or type(error).__name__


def database_label(source: Source) -> str:
    """What messages call the database."""
    return f"${source.connection}" if source.connection else mask_passwords(source.source)


def select_statement(table_or_query: str) -> str:
    """A table's name, or a query, as a query."""
    if any(character.isspace() for character in table_or_query.strip()):
        return table_or_query.strip().rstrip(";") + "\n"  # it may end in a comment
    return "SELECT * FROM " + ".".join(
        '"' + name.replace('"', '""') + '"' for name in table_or_query.strip().split(".")
    )


def database_digest(source: Source) -> str:
    """One digest for the rows of every table, made by the database: their number, and the sum of their hashes.

    It reads every row there, and sends none. The order of the rows does not count; two rows that changed in ways
    whose 64-bit hashes cancel would go unseen.
    """
    checksums = {}
    with connect(source) as connection:
        for table, table_or_query in source.tables:
            if table_or_query:
                checksums[table] = connection.execute(
                    "SELECT count(*)::text, coalesce(sum(hashtextextended(told::text, 0)::numeric), 0)::text "
                    f"FROM ({select_statement(table_or_query)}) AS told"
                ).fetchone()
    return digest.json_digest(checksums)
