"""Lacks: what a good model needs and the source has not, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onboarding.inference.interpretation import SchemaMapping
from onboarding.inference.names import event_label
from onboarding.survey import TableSurvey


@dataclass(frozen=True)
class Gap:
    """Something that a good model needs and the source has not, and what to do."""

    what: str
    advice: str
    flag: str = ""  # the option that answers it; where there is one, nothing is written before it is answered


def find_gaps(mapping: SchemaMapping) -> Iterable[Gap]:
    """What is missing, and what has to be asked."""
    if mapping.survey.format == "beir":
        return
    if "events" not in mapping.roles:
        yield Gap("no table says what happened", "name it: a log, ratings, purchases, judgments", "--events")
        return
    log = mapping.table("events")
    if not mapping.column("events", "item_id"):
        yield Gap(
            "which column of events names the item is not clear",
            f"say it; there are {', '.join(log.columns)}", "--column item_id=…",
        )  # fmt: skip
    request_columns = [mapping.column("events", name) for name in ("user_id", "query_id", "query_text", "turns")]
    if not any(request_columns):
        yield Gap(
            "no column of events says who or what asks",
            f"say it; there are {', '.join(log.columns)}", "--column user_id=… or --column query_text=…",
        )  # fmt: skip
    yield from _time_gaps(mapping, log)
    yield from _zone_gaps(mapping)
    if mapping.kind == "labels":
        yield from _class_gaps(mapping, log)
    else:
        yield from _item_gaps(mapping)
    yield from _label_gaps(mapping, log)
    yield from _user_gaps(mapping, log)
    if (
        "queries" not in mapping.roles
        and mapping.column("events", "query_id")
        and not mapping.column("events", "query_text")
    ):
        yield Gap("nothing says the words of the queries", "give a table with them", "--queries")


def _item_gaps(mapping: SchemaMapping) -> Iterable[Gap]:
    if "items" not in mapping.roles:
        yield Gap(
            "there is no table of items, so they have no words: a language model has nothing to read, and an item "
            "without events cannot be found",
            "give one with --items, if there is one",
        )
        return
    words = [each.column for each in mapping.column_mappings["items"] if each.setting in ("title", "text")]
    if not words:
        yield Gap("the items have no words", "name their texts: --column title=… --column text=…,…")
    else:
        filled = max(mapping.stats("items", column).filled for column in words)
        if filled < 0.9:
            yield Gap(f"{1 - filled:.0%} of the items have no words", "add titles or descriptions to them")
    if not mapping.column("items", "item_id") and not mapping.column("items", "item_key"):
        columns = ", ".join(mapping.table("items").columns)
        yield Gap("which column names the items is not clear", f"say it; there are {columns}",
                   "--column item_key=…")  # fmt: skip


def _class_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    if label := mapping.column("events", "item_id"):
        values = mapping.survey.values(log.name, label)
        if len(values) < 2:
            yield Gap("all texts have one label", "bring texts of another, too")
        elif min(values.values()) < 20:
            rare = min(values, key=lambda value: values[value])
            yield Gap(f"label {rare} has only {values[rare]} texts", "bring more of it, or join it to another")


def _label_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    for meaning in mapping.column_mappings.get("events", ()):
        if meaning.setting.startswith("labels.") and mapping.stats("events", meaning.column).distinct < 2:
            yield Gap(
                f"every event has the same {meaning.column}: there is nothing to learn from it",
                "bring events of the other kind, too; without them every event counts as wanted",
            )
        stats = mapping.stats("events", meaning.column)
        if meaning.setting == "labels.rating" and stats.high is not None and not 4 <= stats.high <= 5:
            yield Gap(
                f"ratings reach {stats.high:g}; the head that learns what is liked takes 4 or more for liked",
                "scale them to 1 to 5 where they are made, or set finetune.like_weight=0",
            )
    if kind := mapping.column("events", "event_type"):
        values = mapping.survey.values(log.name, kind)
        if unknown := [value for value in values if event_label(value) is None]:
            yield Gap(
                f"what these values of {kind} mean is not known, so they count for nothing: {', '.join(unknown)}",
                "say it in [columns] event_types of the map: click, purchase, or nothing",
            )


def _user_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    if user := mapping.column("events", "user_id"):
        users = mapping.stats("events", user).distinct
        if users < 200 and log.is_complete:
            yield Gap(f"only {users} users have events: scores will say little", "a few hundred are needed to judge")
        per_user = mapping.stats("events", user).values / max(users, 1)
        if per_user < 3 and log.is_complete:
            yield Gap(
                f"a user has {per_user:.1f} events: there is little history to learn from",
                "bring a longer time, or more kinds of events",
            )


def _time_gaps(mapping: SchemaMapping, log: TableSurvey) -> Iterable[Gap]:
    column = mapping.column("events", "timestamp")
    if not column:
        if mapping.kind in ("interactions", "shop"):
            times = [name for name, stats in log.columns.items() if stats.times]
            yield Gap(
                "the events have no times: what came first is not known, and the split cannot be causal",
                f"say which: --column timestamp={times[0]}" if times else "log the moment of every event",
            )
        return
    stats = mapping.stats("events", column)
    if not mapping.time_unit:
        yield Gap(
            f"{column} can be read in more than one way ({', '.join(stats.times) or 'none that is known'})"
            + f", such as {stats.examples[0]}" * bool(stats.examples),
            "say how it is written", "--column timestamp_unit=…",
        )  # fmt: skip


def _zone_gaps(mapping: SchemaMapping) -> Iterable[Gap]:
    for role, column in mapping.naive_times if not mapping.resolved_time_zone else ():
        yield Gap(
            f"{column} of {role} does not tell its zone, and it cannot be guessed",
            "say where those clocks were: UTC, Europe/Berlin, America/New_York…", "--time-zone",
        )  # fmt: skip
