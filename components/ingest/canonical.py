"""The canonical columns of items, users, queries and events, as SQL over the columns of a part."""

from collections.abc import Callable

from components.ingest.config import EVENT_TYPE, Columns
from components.ingest.expressions import NULL_KEYS, ColumnExpressions, sql_list
from rankline.errors import SourceError
from rankline.io.sources import SPLIT_NAMES
from rankline.io.sql import literal
from rankline.labels import IMPRESSION

NULL_TEXT = "NULL::VARCHAR"
FIXED_TIME = "2000-01-01 00:00:00+00"  # of events from a source without times


def events(source: ColumnExpressions, columns: Columns) -> dict[str, str]:
    """The canonical columns of events, then labels, split and declared columns."""
    timestamp = f"TIMESTAMPTZ '{FIXED_TIME}'"
    if columns.timestamp:
        timestamp = source.timestamp(columns.timestamp, setting="timestamp", unit=columns.timestamp_unit)
    known = timestamp
    if source.has(columns.known_at, setting="known_at"):
        known = source.timestamp(columns.known_at, setting="known_at", unit=columns.timestamp_unit)
    user = source.key(columns.user_id, setting="user_id") if columns.user_id else NULL_TEXT
    expressions = {
        "event_timestamp": timestamp,
        "known_at": known,
        "user_id": user,
        "query_id": source.key(columns.query_id, setting="query_id") if columns.query_id else NULL_TEXT,
        "item_id": source.key(columns.item_id, setting="item_id"),
    }
    if "queries" not in source.tables:
        expressions |= _event_queries(source, columns)
    expressions |= _labels(source, columns)
    if split := _split(source, columns):
        expressions["split"] = split
    return expressions | source.extra("event")


def _event_queries(source: ColumnExpressions, columns: Columns) -> dict[str, str]:
    """The queries of events, for a source without a table of queries."""
    query_columns = _query_columns(source, columns) if columns.query_text or columns.turns else {}
    if columns.query_id and not query_columns:
        raise SourceError(
            "the queries have no words",
            expected="a table of queries, or a column of events with the words",
            found=f"only their ids ({columns.query_id})",
            where=source.part.where,
            hint="set ingest.tables.queries, or ingest.columns.query_text to their column; set "
            "ingest.columns.query_id='' to ignore queries",
        )
    expressions = {f"event_query_{name}": expression for name, expression in query_columns.items()}
    if query_columns and not columns.query_id:  # a query is identified by its words
        identity = " || chr(30) || ".join(f"coalesce(CAST({each} AS VARCHAR), '')" for each in query_columns.values())
        all_null = " AND ".join(f"({each}) IS NULL" for each in query_columns.values())
        expressions["query_id"] = f"CASE WHEN NOT ({all_null}) THEN left(sha256({identity}), 20) END"
    return expressions


def _split(source: ColumnExpressions, columns: Columns) -> str:
    """The split of events, from the name of their file or from a column; empty without one."""
    if source.part.split:
        return literal(source.part.split)
    if not columns.split:
        return ""
    text = f"lower({source.text(columns.split, setting='split')})"
    cases = " ".join(f"WHEN {literal(word)} THEN {literal(split)}" for word, split in SPLIT_NAMES.items())
    split = f"CASE {text} {cases} END"
    source.add_check(f"({split}) IS NULL", "unknown split")
    return split


def _labels(source: ColumnExpressions, columns: Columns) -> dict[str, str]:
    """The labels, from columns and from the type of event, and what tells the exposures of one request."""
    labels = {
        label: source.number(name, setting="labels", reason=f"unparsable {label}")
        for label, name in sorted(source.config.label_columns().items())
        if source.has(name, setting="labels")
    }
    if "rating" in labels and columns.unrated:
        unrated = ", ".join(map(repr, columns.unrated))
        labels["rating"] = f"CASE WHEN {labels['rating']} NOT IN ({unrated}) THEN {labels['rating']} END"
    if "relevance" in labels and not source.config.labels:  # TREC judges junk below zero: it is not relevant either
        labels["relevance"] = f"CASE WHEN {labels['relevance']} < 0 THEN 0 ELSE {labels['relevance']} END"
    if columns.event_type:
        labels = _event_type_labels(source, columns, labels)
    if not source.config.effective_labels():
        return labels
    if columns.request_id:
        request = source.text(columns.request_id, setting="request_id")
        written = f"hash_user({request})" if source.config.hash_users else request  # it may hold the user's id
        labels["request_id"] = f"CASE WHEN {request} NOT IN {sql_list((*NULL_KEYS, 'None'))} THEN {written} END"
    if columns.position:
        place = source.number(columns.position, setting="position", reason="unparsable position")
        labels["position"] = f"CASE WHEN {place} BETWEEN 0 AND 1e9 THEN CAST({place} AS INTEGER) END"
    return labels


def _event_type_labels(source: ColumnExpressions, columns: Columns, labels: dict[str, str]) -> dict[str, str]:
    """All labels: 1 if the event's type sets it, else 0; none of an empty type, or one kept out of learning."""
    config, types = source.config, columns.event_types
    if config.effective_labels():
        types = {"": "", **types}
    text = f"coalesce({source.text(columns.event_type, setting='event_type')}, '')"
    source.add_check(f"{text} NOT IN {sql_list(types)}", "unknown event type")

    def is_type_of(*wanted: str) -> str:
        values = [value for value, label in types.items() if label in wanted]
        return f"{text} IN {sql_list(values)}" if values else "false"

    # a type whose label decides nothing says nothing of the others either: who scrolled may have clicked
    undecided = [name for name, label in config.labels.items() if label.weight == 0]
    for name in sorted(set(types.values()) - {"", IMPRESSION}):
        value = f"CAST({is_type_of(name)} AS DOUBLE)"
        others = [each for each in undecided if each != name]
        labels[name] = f"CASE WHEN NOT ({is_type_of(*others)}) THEN {value} END" if others else value
    if not config.effective_labels():
        return labels
    labels = {name: f"CASE WHEN NOT ({is_type_of('')}) THEN {value} END" for name, value in labels.items()}
    return labels | {EVENT_TYPE: text}


def _query_columns(source: ColumnExpressions, columns: Columns) -> dict[str, str]:
    """A query's text and turns; the text of a conversation without one is its last turn."""
    turns = ""
    if columns.turns:
        turns = source.sequence(columns.turns, setting="turns", separator=columns.turns_separator)
        turns = f"CASE WHEN len({turns}) > 0 THEN {turns} END"
    text = source.text(columns.query_text, setting="query_text") if columns.query_text else f"({turns})[-1]"
    return {"text": text, "turns": turns or "NULL::VARCHAR[]"}


def items(source: ColumnExpressions, columns: Columns) -> dict[str, str]:
    """The canonical columns of items, then the declared columns."""
    title = NULL_TEXT
    if source.has(columns.title, setting="title"):
        title = source.text(columns.title, setting="title")
    text = [source.text(name, setting="text") for name in columns.text if source.has(name, setting="text")]
    created, extra = "NULL::TIMESTAMPTZ", {}
    if columns.created_at:
        created = source.timestamp(
            columns.created_at, setting="created_at", unit=columns.created_at_unit, required=False
        )
    elif source.has(columns.created_year, setting="created_year"):
        # an invalid year leaves the item without one: its words and its events are still usable
        year_value = f"TRY_CAST({source.text(columns.created_year, setting='created_year')} AS DOUBLE)"
        year = f"CASE WHEN {year_value} BETWEEN 1 AND 9999 THEN CAST(floor({year_value}) AS INTEGER) END"
        created = f"CAST(make_timestamp({year}, 1, 1, 0, 0, 0) AS TIMESTAMPTZ)"
        suffix = f"' (' || ({year}) || ')'"
        already_dated = f"{year} IS NULL OR ends_with({title}, {suffix})"
        title = f"CASE WHEN {already_dated} THEN {title} ELSE {title} || {suffix} END"
        extra["release_year"] = year
    price, price_as_written = source.price(columns.price) if columns.price else ("NULL::DOUBLE", NULL_TEXT)
    language = source.text(columns.language, setting="language") if columns.language else NULL_TEXT
    category = "[]::VARCHAR[]"
    if source.has(columns.category, setting="category"):
        category = source.sequence(columns.category, setting="category", separator=columns.category_separator)
    return (
        {
            "item_id": _key_column(source, columns, "item"),
            "title": title,
            "text": f"nullif(concat_ws(' ', {', '.join(text)}), '')" if text else NULL_TEXT,
            "language": f"replace(lower({language}), '_', '-')",
            "category": category,
            "price": price,
            "price_as_written": price_as_written,
            "available": source.flag(columns.available, setting="available") if columns.available else "true",
            "created_at": created,
        }
        | extra
        | ({"holds_from": source.growing(columns.valid_from, setting="valid_from")} if columns.valid_from else {})
        | source.extra("item")
    )


def users(source: ColumnExpressions, columns: Columns) -> dict[str, str]:
    """The canonical column of users, then the declared columns."""
    return {"user_id": _key_column(source, columns, "user")} | source.extra("user")


def queries(source: ColumnExpressions, columns: Columns) -> dict[str, str]:
    if not columns.query_text and not columns.turns:
        source.column("", setting="query_text")
    return {"query_id": _key_column(source, columns, "query")} | _query_columns(source, columns)


def _key_column(source: ColumnExpressions, columns: Columns, subject: str) -> str:
    """The id column of a table, which may have another name than in the events."""
    setting = f"{subject}_key" if getattr(columns, f"{subject}_key") else f"{subject}_id"
    return source.key(getattr(columns, setting), setting=setting)


SELECTS: dict[str, Callable[[ColumnExpressions, Columns], dict[str, str]]] = {
    "events": events,
    "items": items,
    "users": users,
    "queries": queries,
}
