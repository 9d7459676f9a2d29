"""Gaps: what a good model needs and the source does not have, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from components.ingest.expressions import BOOLEAN_WORDS
from onboarding.inference.candidates import unmapped_label
from onboarding.inference.event_words import event_label, is_negated
from onboarding.inference.joins import find_history, find_join
from onboarding.inference.keys import best_id
from onboarding.inference.labels import EventLabels, event_labels
from onboarding.inference.nested import find_nested_items
from onboarding.inference.queries import flattening_query, joining_query, newest_price_query
from onboarding.inference.schema import SchemaMapping
from onboarding.inference.vocabulary import name_score, name_tokens
from onboarding.survey.survey import TableSurvey
from rankline.io import sources
from rankline.labels import IMPRESSION

# last words of names that are the time of an event, and no hour or weekday
TIME_NAMES = frozenset(
    [
        "timestamp",
        "time",
        "date",
        "datetime",
        "ts",
        "at",
        "created_at",
        "datum",
        "zeit",
        "zeitpunkt",
        "zeitstempel",
        "fecha",
        "heure",
        "data_hora",
        "tijd",
        "время",
        "дата",
        "时间",
        "日期",
        "时间戳",
        "時間",
        "日時",
    ]
)
MAX_LEFT_OUT = 0.1  # of the log's rows, in a table that is not used and has its keys
MAX_TOGETHER = 200  # events of one value of a column that may name requests


@dataclass(frozen=True)
class Gap:
    """Something that a good model needs and the source does not have."""

    what: str
    advice: str
    flag: str = ""  # the option that answers a question; nothing is written while a question is open


def find_gaps(mapping: SchemaMapping) -> Iterable[Gap]:
    """What is missing, and what has to be asked."""
    if mapping.survey.format == "beir":
        return
    if "events" not in mapping.roles:
        yield Gap("no table looks like an event log", "name it: a log, ratings, purchases, judgments", "--events")
        return
    log = mapping.table("events")
    columns = f"the columns are {', '.join(log.columns)}"
    yield from _left_out_gaps(mapping, log)
    for (role, column), why in mapping.not_read.items():
        yield Gap(f"{column} of {role} is not read: {why}", "rename it in the source, or name what it is with --column")
    if other_layout := list(_layout_gaps(mapping, log)):
        yield from other_layout
        return
    if not mapping.column("events", "item_id"):
        yield Gap("it is not clear which column of events is the item", columns, "--column item_id=…")
    if not any(mapping.column("events", name) for name in ("user_id", "query_id", "query_text", "turns")):
        yield Gap(
            "no column of events identifies a user or a query", columns, "--column user_id=… or --column query_text=…"
        )
    yield from _time_gaps(mapping, log)
    yield from _zone_gaps(mapping)
    if mapping.kind == "labels":
        yield from _class_gaps(mapping, log)
    else:
        yield from _item_gaps(mapping)
        yield from _price_gaps(mapping, log)
    yield from _label_gaps(mapping, log)
    yield from _unmapped_gaps(mapping, log)
    yield from _request_gaps(mapping, log)
    yield from _user_gaps(mapping, log)
    has_query_text = "queries" in mapping.roles or bool(mapping.column("events", "query_text"))
    if mapping.column("events", "query_id") and not has_query_text:
        yield Gap("the queries have no text", "name the table that has it", "--queries")


def _layout_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    """The query that makes a log of what is one only once lists are rows, or two tables one."""
    item = mapping.column("events", "item_id")
    may_be_list = not item or mapping.stats("events", item).may_be_list
    is_open = "item_id" not in mapping.answered and mapping.kind != "labels"
    if is_open and may_be_list and (nested := find_nested_items(mapping.survey, log)):
        query = flattening_query(mapping.survey, log, nested) or "write one row for each item, with its id as item_id"
        yield Gap(f"the items of {log.name} are in {nested.description}", query, "--events")
        return
    is_answered = not mapping.answered.isdisjoint(("user_id", "query_id", "query_text"))
    if mapping.kind == "interactions" and not is_answered and (join := find_join(mapping.survey, log)):
        tables = {name: mapping.survey.tables[name].place or name for name in (join.lines, join.orders)}
        yield Gap(
            f"{tables[join.lines]} names the items and {tables[join.orders]} the users, by {join.lines_key}",
            joining_query(mapping.survey, join) or "write both as one log, with a user and an item in each row",
            "--events",
        )


def _left_out_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    """The tables with keys of events that have too many rows to be left out in silence."""
    roles = set(mapping.roles.values())
    left_out = [
        table for name, table in mapping.survey.tables.items() if name not in roles and _is_large_log(mapping, table)
    ]
    if mapping.kind == "labels" or "events" in mapping.answered or not left_out:
        return
    places = [table.place or table.name for table in left_out]
    counts = ", ".join(f"{place} ({table.rows_text})" for place, table in zip(places, left_out, strict=True))
    together = sources.BETWEEN_PLACES.join([log.place, *places])
    both = f", or both: --events {together!r}" if mapping.survey.format == "tables" else ", or a query that unites them"
    yield Gap(
        f"{counts} would be left out, with the keys of events, beside {log.place or log.name} ({log.rows_text})",
        f"say which is the log: --events {log.place or log.name} (and --items, --users){both}",
        "--events",
    )


def _is_large_log(mapping: SchemaMapping, table: TableSurvey) -> bool:
    """Whether a table has users and items of events, and more than a share of the log's rows."""
    log = mapping.table("events")
    is_counted = (table.is_complete and log.is_complete) or not (table.size and log.size)
    share = table.rows / log.rows if is_counted else table.size / log.size
    keys = [mapping.column("events", name) for name in ("user_id", "item_id")]
    has_keys = [key in table.columns or best_id(table, each)[1] > 0.4 for key, each in zip(keys, ("user", "item"))]
    return share > MAX_LEFT_OUT and all(has_keys)


def _item_gaps(mapping: SchemaMapping) -> Iterable[Gap]:
    if "items" not in mapping.roles:
        yield Gap(
            "there is no table of items, so they have no text: the language model has nothing to read, and items "
            "without events cannot be found",
            "name one with --items, if there is one",
        )
        return
    texts = [each.column for each in mapping.column_mappings["items"] if each.setting in ("title", "text")]
    if not texts:
        yield Gap("the items have no text", "name their texts: --column title=… --column text=…,…")
    else:
        filled = max(mapping.stats("items", column).filled for column in texts)
        if filled < 0.9:
            yield Gap(f"{1 - filled:.0%} of the items have no text", "add titles or descriptions to them")
    if not mapping.column("items", "item_id") and not mapping.column("items", "item_key"):
        columns = ", ".join(mapping.table("items").columns)
        yield Gap(
            "it is not clear which column is the key of items", f"the columns are {columns}", "--column item_key=…"
        )


def _price_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    """The tables of prices over time, which the items do not have yet."""
    survey, item = mapping.survey, mapping.column("events", "item_id")
    key = mapping.column("items", "item_id") or mapping.column("items", "item_key")
    if not item or not key:
        return
    for table in [table for name, table in survey.tables.items() if name not in mapping.roles.values()]:
        if history := find_history(survey, log, table, item):
            query = newest_price_query(survey, mapping.table("items"), key, table, history)
            yield Gap(
                f"{table.place or table.name} has the prices of items over time, and it is not used",
                query or "add the newest price of each item to the table of items",
            )


def _class_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    if label := mapping.column("events", "item_id"):
        values = mapping.survey.values(log.name, label)
        if len(values) < 2:
            yield Gap("all texts have the same label", "add texts with another one")
        elif min(values.values()) < 20:
            rare = min(values, key=lambda value: values[value])
            yield Gap(
                f"label {rare} has only {values[rare]} texts", "add more of them, or merge the label with another"
            )


def _label_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    events = event_labels(mapping)
    for each in mapping.column_mappings.get("events", ()):
        stats = mapping.stats("events", each.column)
        if each.setting.startswith("labels.") and stats.distinct < 2:
            is_never = bool(stats.examples) and stats.examples[0].lower() in BOOLEAN_WORDS["false"]
            yield Gap(
                f"every event has the same {each.column}: there is nothing to learn from it",
                "add events of the other kind; without them "
                + ("`rankline run` refuses the log" if is_never else "every event counts as positive"),
            )
        if each.setting == "labels.rating" and not events.labels and (stats.high or 5) < 4:
            yield Gap(
                f"ratings reach {stats.high:g}, and the head that learns what is liked counts 4 or more as liked",
                "say in [labels.rating] of the map what counts as liked, or set finetune.like_weight=0",
            )
    if events.event_types and not events.columns and not _has_negatives(events):
        yield Gap(
            "no event is a negative, so the model can rank, and cannot learn how likely a label is",
            "add the impressions: what was shown and not wanted",
        )
    if kind := mapping.column("events", "event_type"):
        values = mapping.survey.values(log.name, kind)
        if unknown := [value for value in values if event_label(value) is None]:
            yield Gap(
                f"the meaning of these values of {kind} is not known, so they are ignored: {', '.join(unknown)}",
                "name a label for them in [columns.event_types] of the map: one of [labels], impression, or nothing",
            )
        if not events.event_types:
            yield Gap(
                f"no value of {kind} makes a positive, so every event counts as one",
                "name a label for them in [columns.event_types] of the map, and declare it in [labels]",
            )


def _has_negatives(events: EventLabels) -> bool:
    """Whether a kind of event says that an item was shown, or not wanted."""
    return IMPRESSION in events.event_types.values() or any(label.weight < 0 for label in events.labels.values())


def _unmapped_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    """The columns that may say what happened, and that nothing is made of."""
    if mapping.kind == "labels":
        return
    mapped = {each.column for each in mapping.column_mappings.get("events", ())}
    declared = event_labels(mapping).labels
    without = "it is ignored" if declared else "without it every event counts as positive"
    known = {each.setting.removeprefix("labels.") for each in mapping.column_mappings.get("events", ())}
    for name, stats in log.columns.items():
        label = "" if name in mapped else unmapped_label(log, name)
        is_less = label in known or (label == "event_type" and declared)  # than what is mapped already says
        if not label or (is_less and not is_negated(name)):
            continue
        if stats.times:
            what, advice = "is a time of what may have happened", f"add a column of 0 and 1: whether {name} is filled"
        elif is_negated(name):
            what = "says what did not happen, or failed"
            advice = f"if a 0 in it means {label}, add a column of the opposite, and name it: --column labels.{label}=…"
        elif label == "event_type":
            what = f"may be the kinds of events ({stats.distinct} of them), and they are not known"
            advice = (
                f'set event_type = "{name}" in [columns] of the map, a label for each kind in [columns.event_types], '
                "and declare it in [labels]"
            )
        else:
            what, advice = "may say what happened", f"--column labels.{label}={name}, if above 0 is good"
        yield Gap(f"{name} {what}, and it is not mapped: {without}", advice)


def _request_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    """The columns that may name the request of an event, in a log of impressions where none is known to."""
    if mapping.column("events", "request_id") or not _has_negatives(event_labels(mapping)):
        return
    mapped = {each.column for each in mapping.column_mappings.get("events", ())}
    user = mapping.column("events", "user_id")
    users = log.columns[user].distinct if user else 1
    for name, stats in log.columns.items():
        shown_together = stats.values / max(stats.distinct, 1)
        is_text = stats.kind in ("text", "token") and stats.filled > 0.9 and not stats.times
        if name not in mapped and is_text and stats.distinct > users and 2 <= shown_together <= MAX_TOGETHER:
            yield Gap(
                f"{name} may name the request that showed items together ({shown_together:.0f} events each), and it is "
                "not mapped: time tells requests apart",
                f"--column request_id={name}, if it does",
            )


def _user_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    user = mapping.column("events", "user_id")
    if not user or not log.is_complete:
        return
    stats = mapping.stats("events", user)
    if stats.distinct < 200:
        yield Gap(
            f"only {stats.distinct} users have events, so scores are uncertain", "a few hundred are needed to compare"
        )
    events_per_user = stats.values / max(stats.distinct, 1)
    if events_per_user < 3:
        yield Gap(
            f"a user has {events_per_user:.1f} events on average: there is little history to learn from",
            "add a longer period, or more kinds of events",
        )


def _time_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    column = mapping.column("events", "timestamp")
    if not column:
        if unread := "" if "timestamp" in mapping.answered else _unread_times(mapping, log):
            yield Gap(
                f"no format is known in which {unread} is a time, such as {log.columns[unread].examples[0]}",
                "say how it is written, or that there are no times: --column timestamp=",
                f"--column timestamp={unread} --column timestamp_unit=…",
            )
        elif mapping.kind in ("interactions", "shop"):
            times = [name for name, stats in log.columns.items() if stats.times]
            yield Gap(
                "the events have no times: their order is not known, and the split cannot be causal",
                f"name the column: --column timestamp={times[0]}" if times else "log the time of every event",
            )
        return
    stats = mapping.stats("events", column)
    if not mapping.time_unit:
        example = f", such as {stats.examples[0]}" if stats.examples else ""
        yield Gap(
            f"{column} can be read in several ways ({', '.join(stats.times) or 'none that is known'}){example}",
            "say how it is written",
            "--column timestamp_unit=…",
        )


def _unread_times(mapping: SchemaMapping, log: TableSurvey) -> str:
    """The column whose name says that it is the time of the events, though no format reads it; empty without one."""
    mapped = {each.column for each in mapping.column_mappings.get("events", ())}
    for name, stats in log.columns.items():
        tokens = name_tokens(name)
        is_time = bool(tokens) and (tokens[-1] in TIME_NAMES or "_".join(tokens) in TIME_NAMES)
        is_amount = name_score(name, "dwell") > 0 or stats.flags > 0.9
        if is_time and name not in mapped and not stats.times and stats.distinct > 1 and not is_amount:
            return name
    return ""


def _zone_gaps(mapping: SchemaMapping) -> Iterable[Gap]:
    for role, column in mapping.naive_times if not mapping.resolved_time_zone else ():
        yield Gap(
            f"{column} of {role} has no time zone, and it cannot be inferred",
            "say which zone the times are in: UTC, Europe/Berlin, America/New_York…",
            "--time-zone",
        )
