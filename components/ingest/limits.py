"""What makes ingest refuse a source: too many rejected rows or unreadable prices, and too few events."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from components.ingest.config import Columns, IngestConfig
from components.ingest.expressions import INFINITE_WORDS, sql_list
from components.ingest.ids import find_meeting
from components.ingest.readers.csv_table import BACKSLASH_QUOTE, UNCLOSED_QUOTE, WRONG_NUMBER
from components.ingest.readers.encoding import EncodingGuess, guess_encoding
from components.ingest.readers.text_stream import NUL, SAMPLE_BYTES, decompressed
from components.ingest.rejection import rejected_counts
from components.ingest.staging import TABLES, Staged, StagedFile, column_names
from rankline.contracts import SUPERSEDED, TIME_ZONE
from rankline.errors import SourceError, TooSmall
from rankline.io import sources
from rankline.io.sql import fetch_row, literal

ESCAPE_HINT = "set ingest.files.escape=\\ (a backslash), which precedes quotes or separators inside values"
ESCAPED = literal(r"\\[\"',;\t|]")
MIN_MEETING = 0.2  # share of unknown ids that a normalisation has to make known to be named
HINTS = (  # pattern of a reason, what to try
    (re.escape(UNCLOSED_QUOTE), "set ingest.files.quote='' if quotes enclose nothing"),
    (re.escape(BACKSLASH_QUOTE), ESCAPE_HINT),
    ("time without a zone", "set ingest.columns.time_zone to the zone of these times, such as UTC or Europe/Berlin"),
    (
        "unparsable timestamp.*",
        "set ingest.columns.timestamp_unit to their format (s, ms, us, ns, iso, or a pattern such as "
        "'%Y-%m-%d %I:%M:%S %p'; iso writes its zone as Z or +02:00, not as a name)",
    ),
    ("unparsable available", "name a column of yes and no (true, false, 1, 0); put a stock count into item_numbers"),
    ("duplicate event", "if the same event can happen twice, ingest.columns.timestamp must differ"),
    (".*is not a plain value", "name the value inside it (outer.inner), or write one row for each value of a list"),
    (".*than its type can hold", "export ids as text or as integers: as floats they have lost their last digits"),
    (
        "duplicate item",
        "if an item has a row for each of its prices or versions, set ingest.columns.valid_from to the "
        "column of their times",
    ),
    ("unparsable valid_from", "write times in ISO 8601, or numbers that grow"),
    (NUL, "remove them: tr -d '\\000' < FILE > COPY"),
    ("missing key", "words such as NULL and nan are no ids"),
    ("unknown event type", "name them in ingest.columns.event_types (an empty label for a type without one)"),
)


class Rejections(NamedTuple):
    """A table with too many rejected rows; ``harmless`` is a reason that does not count."""

    table: str
    files: list[StagedFile]
    rows: int
    bad: int
    harmless: str


def check_rejected_share(db: Any, config: IngestConfig, columns: Columns, staged: Staged, raw: Path) -> None:
    """Refuse a source without rows, or with too many rejected ones.

    Raises:
        SourceError: a table is empty, or more than ``config.max_rejected_share`` of its rows are rejected.
    """
    # without times, and with days alone, a repeated event is a quantity and no fault of the source
    are_quantities = not columns.timestamp or _are_whole_days(db, columns)
    for table in TABLES:  # events come last: an item that cannot be read takes its events along
        has_versions = config.changes or (table == "items" and columns.valid_from)
        harmless = SUPERSEDED if has_versions else "duplicate event" if are_quantities else ""
        if not (files := staged.files.get(table)):
            continue
        (rows,) = fetch_row(db, f"SELECT count(*) FROM {table}")
        (bad,) = fetch_row(db, f"SELECT count(*) FROM bad_{table} WHERE reason <> '{harmless}'")
        if rows == 0 and table != "users" and not config.changes:
            raise SourceError(
                f"the source has no {table}",
                expected="rows below the header",
                found="only a header",
                where=files[0].where,
                hint="fetch the data again, or point ingest.source at another copy",
            )
        rows -= fetch_row(db, f"SELECT count(*) FROM bad_{table} WHERE reason = '{SUPERSEDED}'")[0]
        if bad == rows > 0 or bad > config.max_rejected_share * rows:
            raise _too_many_rejected(db, config, Rejections(table, files, rows, bad, harmless), raw)


def _are_whole_days(db: Any, columns: Columns) -> bool:
    """Whether the events' times are days without hours: midnight in their zone, or the same hour on many days."""
    local_time = f"timezone({literal(columns.time_zone or 'UTC')}, event_timestamp)"
    hours, midnight, days = fetch_row(
        db,
        f"SELECT count(DISTINCT CAST({local_time} AS TIME)), bool_and(CAST({local_time} AS TIME) = TIME '00:00:00'), "
        f"count(DISTINCT event_timestamp) FROM events WHERE reject_reason IS NULL AND event_timestamp IS NOT NULL",
    )
    return bool(midnight) or (hours == 1 and days >= 5)


def _too_many_rejected(db: Any, config: IngestConfig, rejections: Rejections, raw: Path) -> SourceError:
    """The error with the reasons, the first bad row, and a hint for the most frequent reason."""
    table, files, rows, bad, harmless = rejections
    counts = rejected_counts(db)[table]
    reasons = sorted(counts.items(), key=lambda each: (each[0] == harmless, -each[1], each[0]))
    row, example = fetch_row(
        db,
        f"SELECT row, coalesce(raw, '') FROM bad_{table} JOIN {table} USING (row) "
        f"WHERE reason <> '{harmless}' ORDER BY row LIMIT 1",
    )
    file = next(file for file in reversed(files) if file.first_row <= row)
    return SourceError(
        f"{bad} of {rows} rows of {table} cannot be used "
        f"({', '.join(f'{reason} {count}' for reason, count in reasons)})",
        expected=f"at most {config.max_rejected_share:.1%} rejected (ingest.max_rejected_share)",
        found=f"{bad / rows:.1%}; the first is line {row - file.first_row + 1}: {example[:120]!r}",
        where=f"{file.where}; all of them are in {raw / 'rejected.parquet'}",
        hint=_hint(db, table, reasons[0][0], config, file.where)
        + "correct the rows, or ingest.columns if they are read as the "
        "wrong columns; raise ingest.max_rejected_share to go on without them",
    )


def check_prices(db: Any, config: IngestConfig, columns: Columns) -> int:
    """The number of good items whose price cannot be read, and is therefore null.

    Raises:
        SourceError: too many cannot be read, or the prices are in several currencies.
    """
    if "price_as_written" not in column_names(db, "items"):
        return 0
    infinite = f"lower(price_as_written) IN {sql_list(INFINITE_WORDS)}"
    priced, unreadable, infinite_ones, example, codes, marks = fetch_row(
        db,
        f"""SELECT count(price_as_written), count(price_as_written) FILTER (price IS NULL AND NOT {infinite}),
            count(*) FILTER ({infinite}), arg_min(price_as_written, row) FILTER (price IS NULL AND NOT {infinite}),
            list(DISTINCT code) FILTER (code IS NOT NULL), list(DISTINCT mark) FILTER (mark IS NOT NULL)
        FROM (SELECT *, currency_of(mark) AS code FROM (
            SELECT *, currency_mark(priced) AS mark
            FROM (SELECT *, CASE WHEN price > 0 THEN price_text(price_as_written) END AS priced FROM good_items)))""",
    )
    where = f"column {columns.price} of items"
    if unreadable > config.max_rejected_share * priced:
        raise SourceError(
            f"{unreadable} of {priced} prices cannot be read",
            expected=f"numbers in all but {config.max_rejected_share:.1%} of the cells (ingest.max_rejected_share)",
            found=repr(example[:80]),
            where=where,
            hint=_decimal_hint(db, config) + "only a currency may precede or follow a price",
        )
    if len(codes or ()) > 1:
        raise SourceError(
            "prices are in several currencies",
            expected="one currency, so that prices can be compared",
            found=" and ".join(sorted(marks)[:4]),
            where=where,
            hint="convert them to one currency, or leave ingest.columns.price empty",
        )
    return int(unreadable + infinite_ones)


def count_unknown_zones(db: Any, config: IngestConfig) -> dict[str, int]:
    """Table -> the number of good rows whose time zone is none, and is therefore null; of tables with a zone.

    Raises:
        SourceError: too many are none.
    """
    unknown = {}
    for table in ("users", "events"):
        if "time_zone_as_written" not in column_names(db, table):
            continue
        written, unknown[table], example = fetch_row(
            db,
            f"""SELECT count(time_zone_as_written), count(time_zone_as_written) FILTER ({TIME_ZONE} IS NULL),
                arg_min(time_zone_as_written, row) FILTER ({TIME_ZONE} IS NULL) FROM good_{table}""",
        )
        if unknown[table] > config.max_rejected_share * written:
            raise SourceError(
                f"{unknown[table]} of {written} time zones of {table} are unknown",
                expected=f"names such as Europe/Berlin in all but {config.max_rejected_share:.1%} of the cells "
                "(ingest.max_rejected_share)",
                found=repr(example[:80]),
                where=f"column {getattr(config.columns, f'{table[:-1]}_time_zone')} of {table}",
                hint=f"write the names of the zones, or leave ingest.columns.{table[:-1]}_time_zone empty for UTC",
            )
    return unknown


def _decimal_hint(db: Any, config: IngestConfig) -> str:
    """The decimal sign to set for prices that cannot be read, if the other one reads more of them."""
    other, macro = (",", "number_comma") if config.files.decimal == "." else (".", "number_point")
    unread = "SELECT price_text(price_as_written) AS priced FROM good_items WHERE price IS NULL AND priced IS NOT NULL"
    bare = f"SELECT without_mark(priced) AS bare FROM ({unread})"
    (share,) = fetch_row(db, f"SELECT avg(CAST({macro}(bare) IS NOT NULL AS INTEGER)) FROM ({bare})")
    return f"set ingest.files.decimal={other}, which reads {share:.0%} of these; " if share else ""


def _hint(db: Any, table: str, reason: str, config: IngestConfig, where: str) -> str:
    """What to try for the most frequent reason."""
    if reason == WRONG_NUMBER:
        return f"{_layout_hint(db, table)}; "
    if reason in ("unknown item", "unknown query"):
        return f"{_meeting_hint(db, reason.removeprefix('unknown '))}; "
    for pattern, hint in HINTS:
        if re.fullmatch(pattern, reason):
            return f"{hint}; "
    if reason.startswith("not ") and (encoding := _fitting_encoding(config, where)).name:
        other = f" (or {encoding.runner_up})" * bool(encoding.runner_up)
        return f"set ingest.files.encoding={encoding.name}, which fits{other}; "
    return ""


def _layout_hint(db: Any, table: str) -> str:
    """What to try for records with another number of values: the setting that their texts point at."""
    (escaped, quoted) = fetch_row(
        db,
        f"SELECT avg(CAST(regexp_matches(raw, {ESCAPED}) AS INTEGER)), avg(CAST(contains(raw, '\"') AS INTEGER)) "
        f"FROM bad_{table} JOIN {table} USING (row) WHERE reason = {literal(WRONG_NUMBER)}",
    )
    if escaped and escaped >= 0.5:
        return ESCAPE_HINT
    if quoted and quoted >= 0.5:
        return "set ingest.files.quote='\"' if quotes enclose values, or ingest.files.quote='' if they enclose nothing"
    return "set ingest.files.delimiter to what separates the values, or ingest.files.names to the names of all columns"


def _meeting_hint(db: Any, subject: str) -> str:
    """What to try for ids that are in no table: one of each side, and how they would be the same."""
    table, key = {"item": ("items", "item_id"), "query": ("queries", "query_id")}[subject]
    meeting = find_meeting(
        db,
        f"SELECT {key} AS id FROM events JOIN bad_events USING (row) WHERE reason = 'unknown {subject}'",
        f"SELECT {key} AS id FROM good_{table}",
    )
    examples = f"the events say {meeting.left!r}, the {table} {meeting.right!r}"
    if meeting.share < MIN_MEETING:
        return f"{examples}: set ingest.columns.{subject}_id and ingest.columns.{subject}_key to the columns of one id"
    names = ", ".join(f'"{name}"' for name in meeting.names)
    return f"{examples}: set ingest.columns.normalise_ids=[{names}], with which {meeting.share:.0%} of these ids meet"


def _fitting_encoding(config: IngestConfig, where: str) -> EncodingGuess:
    """The encoding that fits a text file; empty for other files, or if none fits."""
    file = sources.File(where)
    if config.format == "sql" or file.kind in ("parquet", "pq"):
        return EncodingGuess((), ())
    with file.open_stored() as stored:
        return guess_encoding(decompressed(file, stored).read(SAMPLE_BYTES))


def check_event_count(summary: dict[str, Any], config: IngestConfig, raw: Path) -> None:
    """Raise TooSmall if the window holds fewer events than ``config.min_events``."""
    events, outside = summary["rows"]["events"], summary["outside_window"]
    if events < config.min_events and not config.only_items:
        raise TooSmall(
            f"the data window holds {events} events",
            expected=f"at least {config.min_events} (ingest.min_events)",
            found=f"{events} events in [{config.window_start or 'ever'}, {config.window_end or 'now'}), "
            f"{outside} outside it",
            where=str(raw / "summary.json"),
            hint="widen ingest.window_start and ingest.window_end, or provide more data",
        )
