"""Meanings: what each column of a table is, the likeliest guess first and each column once."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.candidates import CANDIDATES
from onboarding.inference.interpretation import KEY_SETTINGS, LIST_SETTINGS, ColumnMapping, SchemaMapping
from onboarding.inference.keys import find_key
from onboarding.inference.names import is_id

BEIR = {
    "events": {"query-id": "query_id", "corpus-id": "item_id", "score": "labels.relevance"},
    "items": {"_id": "item_key", "title": "title", "text": "text"},
    "queries": {"_id": "query_key", "text": "query_text"},
    "users": {},
}


def map_columns(mapping: SchemaMapping, role: str, overrides: Mapping[str, str]) -> list[ColumnMapping]:
    """What the columns of a table are: what was said first, then the likeliest, each column once."""
    table = mapping.table(role)
    if mapping.survey.format == "beir":
        known = BEIR[role].items()
        return [
            ColumnMapping(setting, column, 1.0, "as BEIR says") for column, setting in known if column in table.columns
        ]
    taken: dict[str, ColumnMapping] = {}
    settled = set(overrides)
    for setting, columns in overrides.items():
        for column in columns.split(",") if columns else ():
            taken[column] = ColumnMapping(setting, column, 1.0, "as you said")
    # what follows from a key that was said or found in another table
    if role in KEY_SETTINGS and not settled & {KEY_SETTINGS[role], KEY_SETTINGS[role].replace("_id", "_key")}:
        log = mapping.survey.tables.get(mapping.roles.get("events", ""))
        id_columns = mapping.column("events", KEY_SETTINGS[role])
        if log and (key := find_key(mapping.survey, log, table, id_columns)):
            share = mapping.survey.overlap(log.name, id_columns, table.name, key) if id_columns else 0.0
            setting = KEY_SETTINGS[role] if key == id_columns else KEY_SETTINGS[role].replace("_id", "_key")
            why = (
                f"one value a row; it holds {share:.0%} of what the {log.name} name"
                if id_columns
                else "one value a row"
            )
            taken[key] = ColumnMapping(setting, key, min(0.99, 0.5 + 0.5 * share), why)
            settled |= {KEY_SETTINGS[role], KEY_SETTINGS[role].replace("_id", "_key")}
    scored = []
    for name, stats in table.columns.items():
        if name not in taken and stats.distinct:
            scored += [
                (confidence, why, setting, name)
                for setting, confidence, why in CANDIDATES[role](mapping, table, name, stats)
            ]
    for confidence, why, setting, name in sorted(scored, key=lambda each: -each[0]):
        if name not in taken and setting not in settled and confidence > 0.3:
            taken[name] = ColumnMapping(setting, name, min(confidence, 0.99), why)
            if setting not in LIST_SETTINGS:
                settled.add(setting)
    if role == "events" and mapping.kind == "interactions" and not settled & {"user_id", "query_id", "query_text"}:
        left = [
            each for name, each in table.columns.items() if name not in taken and not each.times and not each.is_unique
        ]
        if id_columns := [each for each in left if is_id(each.name) and each.distinct > 20]:
            most = max(id_columns, key=lambda each: each.distinct)
            taken[most.name] = ColumnMapping(
                "user_id", most.name, 0.4, "names something, and the items are named already"
            )
    order = list(table.columns)
    ordered = sorted(taken.values(), key=lambda each: order.index(each.column) if each.column in order else -1)
    if role == "items" and not any(each.setting == "title" for each in ordered):  # the shortest text is the title
        texts = [each for each in ordered if each.setting == "text"]
        if texts and "title" not in overrides:
            short = min(texts, key=lambda each: table.columns[each.column].characters)
            swapped = ColumnMapping("title", short.column, 0.5, "the shortest of its texts, as no column is named so")
            ordered = [swapped if each is short else each for each in ordered]
    return ordered
