"""Meanings: what each column of a table is, the likeliest guess first and each column once."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.candidates import GUESSES
from onboarding.inference.interpretation import KEYS, MANY, Meaning, Reading
from onboarding.inference.keys import key_of
from onboarding.inference.names import is_id

BEIR = {
    "events": {"query-id": "query_id", "corpus-id": "item_id", "score": "labels.relevance"},
    "items": {"_id": "item_key", "title": "title", "text": "text"},
    "queries": {"_id": "query_key", "text": "query_text"},
    "users": {},
}


def meanings_of(made: Reading, role: str, said: Mapping[str, str]) -> list[Meaning]:
    """What the columns of a table are: what was said first, then the likeliest, each column once."""
    table = made.table(role)
    if made.survey.format == "beir":
        known = BEIR[role].items()
        return [Meaning(setting, column, 1.0, "as BEIR says") for column, setting in known if column in table.columns]
    taken: dict[str, Meaning] = {}
    settled = set(said)
    for setting, columns in said.items():
        for column in columns.split(",") if columns else ():
            taken[column] = Meaning(setting, column, 1.0, "as you said")
    # what follows from a key that was said or found in another table
    if role in KEYS and not settled & {KEYS[role], KEYS[role].replace("_id", "_key")}:
        log = made.survey.tables.get(made.roles.get("events", ""))
        named = made.column("events", KEYS[role])
        if log and (key := key_of(made.survey, log, table, named)):
            share = made.survey.overlap(log.name, named, table.name, key) if named else 0.0
            setting = KEYS[role] if key == named else KEYS[role].replace("_id", "_key")
            why = f"one value a row; it holds {share:.0%} of what the {log.name} name" if named else "one value a row"
            taken[key] = Meaning(setting, key, min(0.99, 0.5 + 0.5 * share), why)
            settled |= {KEYS[role], KEYS[role].replace("_id", "_key")}
    scored = []
    for name, facts in table.columns.items():
        if name not in taken and facts.distinct:
            scored += [(sure, why, setting, name) for setting, sure, why in GUESSES[role](made, table, name, facts)]
    for sure, why, setting, name in sorted(scored, key=lambda each: -each[0]):
        if name not in taken and setting not in settled and sure > 0.3:
            taken[name] = Meaning(setting, name, min(sure, 0.99), why)
            if setting not in MANY:
                settled.add(setting)
    if role == "events" and made.kind == "interactions" and not settled & {"user_id", "query_id", "query_text"}:
        left = [
            each for name, each in table.columns.items() if name not in taken and not each.times and not each.unique
        ]
        if named := [each for each in left if is_id(each.name) and each.distinct > 20]:
            most = max(named, key=lambda each: each.distinct)
            taken[most.name] = Meaning("user_id", most.name, 0.4, "names something, and the items are named already")
    order = list(table.columns)
    told = sorted(taken.values(), key=lambda each: order.index(each.column) if each.column in order else -1)
    if role == "items" and not any(each.setting == "title" for each in told):  # the shortest text is the title
        texts = [each for each in told if each.setting == "text"]
        if texts and "title" not in said:
            short = min(texts, key=lambda each: table.columns[each.column].characters)
            swapped = Meaning("title", short.column, 0.5, "the shortest of its texts, as no column is named so")
            told = [swapped if each is short else each for each in told]
    return told
