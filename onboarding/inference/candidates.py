"""Guesses: what one column may be, by its name and its values, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onboarding.inference.interpretation import KEYS, Reading
from onboarding.inference.keys import id_score, key_of
from onboarding.inference.kinds import labelled
from onboarding.inference.names import LABEL_NAMES, WORDS, event_label, fit, is_id, words_of
from onboarding.survey import Seen
from onboarding.survey.statistics import Facts

Guess = tuple[str, float, str]  # setting, how sure, why


def _of_events(made: Reading, table: Seen, name: str, facts: Facts) -> Iterable[Guess]:
    if made.kind == "labels" and (pair := labelled(table)):
        if name == pair[0]:
            yield "query_text", 0.9, f"texts of {facts.characters:.0f} characters on average"
        if name == pair[1]:
            yield "item_id", 0.9, f"{facts.distinct} distinct values beside texts: the labels"
        return
    for subject in ("user", "item", "query"):
        if score := id_score(name, facts, subject):
            yield from _known(made, table, name, facts, subject, score)
    if subject_free := [role for role in ("items", "users", "queries") if role in made.roles]:
        for role in subject_free:  # a column whose values are another table's keys names them, whatever it is called
            other = made.table(role)
            if facts.times or facts.unique or facts.distinct < 5:
                continue
            key = key_of(made.survey, table, other, name)
            if (
                key
                and (is_id(name) or facts.numbers < 0.5)
                and (share := made.survey.overlap(table.name, name, other.name, key)) > 0.7
            ):
                yield KEYS[role], 0.65 * share, f"{share:.0%} of its values are among {other.name}.{key}"
    if facts.times:
        named = 0.35 * bool(words_of(name) & WORDS["time"])
        late = 0.1 * (facts.distinct > 0.02 * facts.values)
        yield "timestamp", 0.5 + named + late, told_time(facts)
        if fit(name, "known_at") > 0.9:
            yield "known_at", 0.95, told_time(facts)
        return
    for label in LABEL_NAMES:
        if score := fit(name, label):
            binary = facts.distinct <= 2 and facts.flags > 0.9
            few = facts.numbers > 0.95 and facts.distinct <= 30
            fits = binary if label in ("click", "purchase") else few
            if label == ("relevance" if made.kind != "search" else "rating"):
                score *= 0.7  # people rate, queries have judgments
            if fits:
                yield f"labels.{label}", 0.5 + 0.45 * score, f"{facts.distinct} distinct numbers{_range(facts)}"
    if 2 <= facts.distinct <= 30 and facts.numbers < 0.5:
        score, values = fit(name, "event_type"), made.survey.values(table.name, name)
        known = [value for value in values if event_label(value) is not None]
        plain = len(known) == len(values) and any(map(event_label, values))  # whatever it is called
        if known and (score or plain):
            yield "event_type", 0.4 + 0.2 * score + 0.39 * len(known) / len(values), f"values such as {known[0]}"
    if "queries" not in made.roles and facts.is_text and (score := fit(name, "query_text")) > 0.9:
        yield "query_text", 0.5 + 0.3 * score, f"texts of {facts.words:.0f} words on average"
    if fit(name, "split") and facts.distinct <= 3:
        values = set(made.survey.values(table.name, name))
        if {value.lower() for value in values} <= {"train", "valid", "validation", "dev", "test"}:
            yield "split", 0.95, "its values are " + ", ".join(sorted(values))
    if fit(name, "turns") and (facts.kind == "list" or facts.arrays > 0.9):
        yield "turns", 0.9, "lists of texts"


def _known(
    made: Reading, table: Seen, name: str, facts: Facts, subject: str, score: float
) -> Iterable[Guess]:  # fmt: skip
    role = {"user": "users", "item": "items", "query": "queries"}[subject]
    setting, sure, why = f"{subject}_id", 0.65 * score, f"{facts.distinct:,} distinct values"
    if role in made.roles:
        other = made.table(role)
        if key := key_of(made.survey, table, other, name):
            share = made.survey.overlap(table.name, name, other.name, key)
            sure += 0.34 * share
            why = f"{share:.0%} of its {facts.distinct:,} values are among {other.name}.{key}"
    elif score == 1.0:
        sure += 0.2
    yield setting, sure, why


def _of_items(made: Reading, table: Seen, name: str, facts: Facts) -> Iterable[Guess]:
    if facts.vectors > 0.9 and (
        facts.kind in ("list", "float_seq") or (facts.kind == "text" and facts.characters > 20)
    ):
        yield "item_vectors", 0.85, "lists of numbers"
        return
    if facts.times and (score := fit(name, "created_at")):
        yield "created_at", 0.45 + 0.5 * score, told_time(facts)
        return
    if facts.times and not (facts.numbers > 0.9):
        yield "created_at", 0.4, told_time(facts)
        return
    if score := fit(name, "created_year"):  # noqa: SIM102
        if facts.low is not None and facts.high is not None and facts.low >= 1000 and facts.high < 2200:
            yield "created_year", 0.45 + 0.5 * score, f"numbers{_range(facts)}"
            return
    if (score := fit(name, "price")) and facts.numbers > 0.9 and (facts.low or 0) >= 0:
        yield "price", 0.45 + 0.5 * score, f"numbers{_range(facts)}"
        return
    if (score := fit(name, "available")) and facts.flags > 0.95:
        yield "available", 0.45 + 0.5 * score, "yes or no"
        return
    if (score := fit(name, "language")) and facts.characters < 8 and facts.distinct < 200:
        yield "language", 0.45 + 0.5 * score, f"{facts.distinct} codes"
        return
    listed = facts.kind in ("list", "token_seq") or facts.arrays > 0.9 or bool(facts.separator)
    if (score := fit(name, "category")) and facts.distinct > 1 and (facts.distinct < 0.5 * facts.values or listed):
        few = 0.1 * (facts.distinct > 8 or score == 1)  # the very name needs no more to be said for it
        yield "category", 0.4 + 0.45 * score + few, f"{facts.distinct:,} distinct values" + " in lists" * listed
        yield "text", 0.46, f"{facts.distinct:,} distinct values"
    if facts.is_text and not facts.urls:
        if score := fit(name, "title"):
            fits = facts.words < 25 and facts.distinct > min(50, 0.02 * facts.values)
            yield "title", (0.4 + 0.5 * score) * (1 if fits else 0.5), f"texts of {facts.words:.0f} words"
        if score := fit(name, "text"):
            yield "text", 0.4 + 0.5 * score, f"texts of {facts.words:.0f} words"
        if facts.words > 4:
            yield "text", 0.5, f"texts of {facts.words:.0f} words"
        if facts.distinct > 1 and not is_id(name):
            few = facts.distinct <= 200 and facts.distinct < 0.5 * facts.values
            yield "item_attributes" if few else "text", 0.45 if few else 0.4, f"{facts.distinct:,} distinct values"
        return
    if facts.numbers > 0.95 and not is_id(name) and facts.distinct > 1:
        yield "item_numbers", 0.45, f"numbers{_range(facts)}"


def _of_users(made: Reading, table: Seen, name: str, facts: Facts) -> Iterable[Guess]:
    private = {"email", "phone", "mail", "address", "ssn", "password", "firstname", "lastname", "surname", "name", "ip"}
    if words_of(name) & private or is_id(name) or facts.times or facts.urls > 0.5 or facts.distinct < 2:
        return
    if facts.numbers > 0.95:
        yield "user_numbers" if facts.distinct > 10 else "user_attributes", 0.6, f"numbers{_range(facts)}"
    elif facts.distinct <= max(50, 0.05 * facts.values):
        yield "user_attributes", 0.6, f"{facts.distinct} distinct values"


def _of_queries(made: Reading, table: Seen, name: str, facts: Facts) -> Iterable[Guess]:
    if facts.kind == "list" or facts.arrays > 0.9:
        yield "turns", 0.5 + 0.4 * bool(fit(name, "turns")), "lists of texts"
    elif facts.is_text:
        yield "query_text", 0.45 + 0.5 * fit(name, "query_text"), f"texts of {facts.words:.0f} words"


GUESSES: dict[str, Callable[[Reading, Seen, str, Facts], Iterable[Guess]]] = {
    "events": _of_events, "items": _of_items, "users": _of_users, "queries": _of_queries,
}  # fmt: skip


def _range(facts: Facts) -> str:
    if facts.low is None or facts.high is None:
        return ""
    return f" from {facts.low:g} to {facts.high:g}"


def told_time(facts: Facts) -> str:
    if facts.zoned is None:
        return f"numbers that are {facts.times[0]} since 1970" if facts.times else ""
    zone = "with a zone" if facts.zoned == 1 else "without a zone" if facts.zoned == 0 else "some without a zone"
    typed = facts.kind in ("naive", "moment")
    return f"times {zone}" + ("" if typed else f", written as {' or '.join(facts.times)}")
