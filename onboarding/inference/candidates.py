"""Guesses: what one column may be, by its name and its values, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onboarding.inference.interpretation import KEY_SETTINGS, SchemaMapping
from onboarding.inference.keys import find_key, id_score
from onboarding.inference.kinds import text_and_label_columns
from onboarding.inference.names import LABEL_NAMES, SUBJECT_WORDS, event_label, is_id, name_score, name_words
from onboarding.survey import TableSurvey
from onboarding.survey.statistics import ColumnStats

Candidate = tuple[str, float, str]  # setting, how sure, why


def _event_candidates(mapping: SchemaMapping, table: TableSurvey, name: str, stats: ColumnStats) -> Iterable[Candidate]:
    if mapping.kind == "labels" and (pair := text_and_label_columns(table)):
        if name == pair[0]:
            yield "query_text", 0.9, f"texts of {stats.characters:.0f} characters on average"
        if name == pair[1]:
            yield "item_id", 0.9, f"{stats.distinct} distinct values beside texts: the labels"
        return
    for subject in ("user", "item", "query"):
        if score := id_score(name, stats, subject):
            yield from _id_candidates(mapping, table, name, stats, subject, score)
    if described_roles := [role for role in ("items", "users", "queries") if role in mapping.roles]:
        for role in described_roles:  # a column whose values are another table's keys names them, whatever it is called
            other = mapping.table(role)
            if stats.times or stats.is_unique or stats.distinct < 5:
                continue
            key = find_key(mapping.survey, table, other, name)
            if (
                key
                and (is_id(name) or stats.numbers < 0.5)
                and (share := mapping.survey.overlap(table.name, name, other.name, key)) > 0.7
            ):
                yield KEY_SETTINGS[role], 0.65 * share, f"{share:.0%} of its values are among {other.name}.{key}"
    if stats.times:
        named = 0.35 * bool(name_words(name) & SUBJECT_WORDS["time"])
        late = 0.1 * (stats.distinct > 0.02 * stats.values)
        yield "timestamp", 0.5 + named + late, describe_times(stats)
        if name_score(name, "known_at") > 0.9:
            yield "known_at", 0.95, describe_times(stats)
        return
    for label in LABEL_NAMES:
        if score := name_score(name, label):
            binary = stats.distinct <= 2 and stats.flags > 0.9
            few = stats.numbers > 0.95 and stats.distinct <= 30
            fits = binary if label in ("click", "purchase") else few
            if label == ("relevance" if mapping.kind != "search" else "rating"):
                score *= 0.7  # people rate, queries have judgments
            if fits:
                yield f"labels.{label}", 0.5 + 0.45 * score, f"{stats.distinct} distinct numbers{_range_text(stats)}"
    if 2 <= stats.distinct <= 30 and stats.numbers < 0.5:
        score, values = name_score(name, "event_type"), mapping.survey.values(table.name, name)
        known = [value for value in values if event_label(value) is not None]
        plain = len(known) == len(values) and any(map(event_label, values))  # whatever it is called
        if known and (score or plain):
            yield "event_type", 0.4 + 0.2 * score + 0.39 * len(known) / len(values), f"values such as {known[0]}"
    if "queries" not in mapping.roles and stats.is_text and (score := name_score(name, "query_text")) > 0.9:
        yield "query_text", 0.5 + 0.3 * score, f"texts of {stats.words:.0f} words on average"
    if name_score(name, "split") and stats.distinct <= 3:
        values = set(mapping.survey.values(table.name, name))
        if {value.lower() for value in values} <= {"train", "valid", "validation", "dev", "test"}:
            yield "split", 0.95, "its values are " + ", ".join(sorted(values))
    if name_score(name, "turns") and (stats.kind == "list" or stats.arrays > 0.9):
        yield "turns", 0.9, "lists of texts"


def _id_candidates(
    mapping: SchemaMapping, table: TableSurvey, name: str, stats: ColumnStats, subject: str, score: float
) -> Iterable[Candidate]:  # fmt: skip
    role = {"user": "users", "item": "items", "query": "queries"}[subject]
    setting, confidence, why = f"{subject}_id", 0.65 * score, f"{stats.distinct:,} distinct values"
    if role in mapping.roles:
        other = mapping.table(role)
        if key := find_key(mapping.survey, table, other, name):
            share = mapping.survey.overlap(table.name, name, other.name, key)
            confidence += 0.34 * share
            why = f"{share:.0%} of its {stats.distinct:,} values are among {other.name}.{key}"
    elif score == 1.0:
        confidence += 0.2
    yield setting, confidence, why


def _item_candidates(mapping: SchemaMapping, table: TableSurvey, name: str, stats: ColumnStats) -> Iterable[Candidate]:
    if stats.vectors > 0.9 and (
        stats.kind in ("list", "float_seq") or (stats.kind == "text" and stats.characters > 20)
    ):
        yield "item_vectors", 0.85, "lists of numbers"
        return
    if stats.times and (score := name_score(name, "created_at")):
        yield "created_at", 0.45 + 0.5 * score, describe_times(stats)
        return
    if stats.times and not (stats.numbers > 0.9):
        yield "created_at", 0.4, describe_times(stats)
        return
    if score := name_score(name, "created_year"):  # noqa: SIM102
        if stats.low is not None and stats.high is not None and stats.low >= 1000 and stats.high < 2200:
            yield "created_year", 0.45 + 0.5 * score, f"numbers{_range_text(stats)}"
            return
    if (score := name_score(name, "price")) and stats.numbers > 0.9 and (stats.low or 0) >= 0:
        yield "price", 0.45 + 0.5 * score, f"numbers{_range_text(stats)}"
        return
    if (score := name_score(name, "available")) and stats.flags > 0.95:
        yield "available", 0.45 + 0.5 * score, "yes or no"
        return
    if (score := name_score(name, "language")) and stats.characters < 8 and stats.distinct < 200:
        yield "language", 0.45 + 0.5 * score, f"{stats.distinct} codes"
        return
    is_list = stats.kind in ("list", "token_seq") or stats.arrays > 0.9 or bool(stats.separator)
    if (
        (score := name_score(name, "category"))
        and stats.distinct > 1
        and (stats.distinct < 0.5 * stats.values or is_list)
    ):
        few = 0.1 * (stats.distinct > 8 or score == 1)  # the very name needs no more to be said for it
        yield "category", 0.4 + 0.45 * score + few, f"{stats.distinct:,} distinct values" + " in lists" * is_list
        yield "text", 0.46, f"{stats.distinct:,} distinct values"
    if stats.is_text and not stats.urls:
        if score := name_score(name, "title"):
            fits = stats.words < 25 and stats.distinct > min(50, 0.02 * stats.values)
            yield "title", (0.4 + 0.5 * score) * (1 if fits else 0.5), f"texts of {stats.words:.0f} words"
        if score := name_score(name, "text"):
            yield "text", 0.4 + 0.5 * score, f"texts of {stats.words:.0f} words"
        if stats.words > 4:
            yield "text", 0.5, f"texts of {stats.words:.0f} words"
        if stats.distinct > 1 and not is_id(name):
            few = stats.distinct <= 200 and stats.distinct < 0.5 * stats.values
            yield "item_attributes" if few else "text", 0.45 if few else 0.4, f"{stats.distinct:,} distinct values"
        return
    if stats.numbers > 0.95 and not is_id(name) and stats.distinct > 1:
        yield "item_numbers", 0.45, f"numbers{_range_text(stats)}"


def _user_candidates(mapping: SchemaMapping, table: TableSurvey, name: str, stats: ColumnStats) -> Iterable[Candidate]:
    private = {"email", "phone", "mail", "address", "ssn", "password", "firstname", "lastname", "surname", "name", "ip"}
    if name_words(name) & private or is_id(name) or stats.times or stats.urls > 0.5 or stats.distinct < 2:
        return
    if stats.numbers > 0.95:
        yield "user_numbers" if stats.distinct > 10 else "user_attributes", 0.6, f"numbers{_range_text(stats)}"
    elif stats.distinct <= max(50, 0.05 * stats.values):
        yield "user_attributes", 0.6, f"{stats.distinct} distinct values"


def _query_candidates(mapping: SchemaMapping, table: TableSurvey, name: str, stats: ColumnStats) -> Iterable[Candidate]:
    if stats.kind == "list" or stats.arrays > 0.9:
        yield "turns", 0.5 + 0.4 * bool(name_score(name, "turns")), "lists of texts"
    elif stats.is_text:
        yield "query_text", 0.45 + 0.5 * name_score(name, "query_text"), f"texts of {stats.words:.0f} words"


CANDIDATES: dict[str, Callable[[SchemaMapping, TableSurvey, str, ColumnStats], Iterable[Candidate]]] = {
    "events": _event_candidates, "items": _item_candidates, "users": _user_candidates, "queries": _query_candidates,
}  # fmt: skip


def _range_text(stats: ColumnStats) -> str:
    if stats.low is None or stats.high is None:
        return ""
    return f" from {stats.low:g} to {stats.high:g}"


def describe_times(stats: ColumnStats) -> str:
    if stats.zoned is None:
        return f"numbers that are {stats.times[0]} since 1970" if stats.times else ""
    zone = "with a zone" if stats.zoned == 1 else "without a zone" if stats.zoned == 0 else "some without a zone"
    typed = stats.kind in ("naive", "moment")
    return f"times {zone}" + ("" if typed else f", written as {' or '.join(stats.times)}")
