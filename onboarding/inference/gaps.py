"""Lacks: what a good model needs and the source has not, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onboarding.inference.interpretation import Reading
from onboarding.inference.names import event_label
from onboarding.survey import Seen


@dataclass(frozen=True)
class Lack:
    """Something that a good model needs and the source has not, and what to do."""

    what: str
    do: str
    flag: str = ""  # the option that answers it; where there is one, nothing is written before it is answered


def lacks_of(made: Reading) -> Iterable[Lack]:
    """What is missing, and what has to be asked."""
    if made.survey.format == "beir":
        return
    if "events" not in made.roles:
        yield Lack("no table says what happened", "name it: a log, ratings, purchases, judgments", "--events")
        return
    log = made.table("events")
    if not made.column("events", "item_id"):
        yield Lack(
            "which column of events names the item is not clear",
            f"say it; there are {', '.join(log.columns)}", "--column item_id=…",
        )  # fmt: skip
    asks = [made.column("events", name) for name in ("user_id", "query_id", "query_text", "turns")]
    if not any(asks):
        yield Lack(
            "no column of events says who or what asks",
            f"say it; there are {', '.join(log.columns)}", "--column user_id=… or --column query_text=…",
        )  # fmt: skip
    yield from _lacks_of_time(made, log)
    yield from _lacks_of_zones(made)
    if made.kind == "labels":
        yield from _lacks_of_classes(made, log)
    else:
        yield from _lacks_of_items(made)
    yield from _lacks_of_labels(made, log)
    yield from _lacks_of_users(made, log)
    if "queries" not in made.roles and made.column("events", "query_id") and not made.column("events", "query_text"):
        yield Lack("nothing says the words of the queries", "give a table with them", "--queries")


def _lacks_of_items(made: Reading) -> Iterable[Lack]:
    if "items" not in made.roles:
        yield Lack(
            "there is no table of items, so they have no words: a language model has nothing to read, and an item "
            "without events cannot be found",
            "give one with --items, if there is one",
        )
        return
    words = [each.column for each in made.meanings["items"] if each.setting in ("title", "text")]
    if not words:
        yield Lack("the items have no words", "name their texts: --column title=… --column text=…,…")
    else:
        filled = max(made.facts("items", column).filled for column in words)
        if filled < 0.9:
            yield Lack(f"{1 - filled:.0%} of the items have no words", "add titles or descriptions to them")
    if not made.column("items", "item_id") and not made.column("items", "item_key"):
        columns = ", ".join(made.table("items").columns)
        yield Lack("which column names the items is not clear", f"say it; there are {columns}",
                   "--column item_key=…")  # fmt: skip


def _lacks_of_classes(made: Reading, log: Seen) -> Iterable[Lack]:
    if label := made.column("events", "item_id"):
        values = made.survey.values(log.name, label)
        if len(values) < 2:
            yield Lack("all texts have one label", "bring texts of another, too")
        elif min(values.values()) < 20:
            rare = min(values, key=lambda value: values[value])
            yield Lack(f"label {rare} has only {values[rare]} texts", "bring more of it, or join it to another")


def _lacks_of_labels(made: Reading, log: Seen) -> Iterable[Lack]:
    for meaning in made.meanings.get("events", ()):
        if meaning.setting.startswith("labels.") and made.facts("events", meaning.column).distinct < 2:
            yield Lack(
                f"every event has the same {meaning.column}: there is nothing to learn from it",
                "bring events of the other kind, too; without them every event counts as wanted",
            )
        facts = made.facts("events", meaning.column)
        if meaning.setting == "labels.rating" and facts.high is not None and not 4 <= facts.high <= 5:
            yield Lack(
                f"ratings reach {facts.high:g}; the head that learns what is liked takes 4 or more for liked",
                "scale them to 1 to 5 where they are made, or set finetune.like_weight=0",
            )
    if kind := made.column("events", "event_type"):
        values = made.survey.values(log.name, kind)
        if unknown := [value for value in values if event_label(value) is None]:
            yield Lack(
                f"what these values of {kind} mean is not known, so they count for nothing: {', '.join(unknown)}",
                "say it in [columns] event_types of the map: click, purchase, or nothing",
            )


def _lacks_of_users(made: Reading, log: Seen) -> Iterable[Lack]:
    if user := made.column("events", "user_id"):
        users = made.facts("events", user).distinct
        if users < 200 and log.whole:
            yield Lack(f"only {users} users have events: scores will say little", "a few hundred are needed to judge")
        per_user = made.facts("events", user).values / max(users, 1)
        if per_user < 3 and log.whole:
            yield Lack(
                f"a user has {per_user:.1f} events: there is little history to learn from",
                "bring a longer time, or more kinds of events",
            )


def _lacks_of_time(made: Reading, log: Seen) -> Iterable[Lack]:
    column = made.column("events", "timestamp")
    if not column:
        if made.kind in ("interactions", "shop"):
            times = [name for name, facts in log.columns.items() if facts.times]
            yield Lack(
                "the events have no times: what came first is not known, and the split cannot be causal",
                f"say which: --column timestamp={times[0]}" if times else "log the moment of every event",
            )
        return
    facts = made.facts("events", column)
    if not made.unit:
        yield Lack(
            f"{column} can be read in more than one way ({', '.join(facts.times) or 'none that is known'})"
            + f", such as {facts.examples[0]}" * bool(facts.examples),
            "say how it is written", "--column timestamp_unit=…",
        )  # fmt: skip


def _lacks_of_zones(made: Reading) -> Iterable[Lack]:
    for role, column in made.zoneless if not made.zone else ():
        yield Lack(
            f"{column} of {role} does not tell its zone, and it cannot be guessed",
            "say where those clocks were: UTC, Europe/Berlin, America/New_York…", "--time-zone",
        )  # fmt: skip
