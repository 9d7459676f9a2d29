"""The settings that follow from a mapping: the map for ingest, and what the recipe changes."""

from __future__ import annotations

import math
from typing import Any

from components.ingest.expressions import MISSING_WORDS
from components.ingest.ids import NORMALISATIONS
from onboarding.inference.labels import EventLabels, event_labels, lowest_rating, unrated_numbers
from onboarding.inference.schema import KEY_SETTINGS, LIST_SETTINGS, ROLES, TEXT_SETTINGS, SchemaMapping

UNAMBIGUOUS_MISSING = ("NULL", "\\N")  # in natural language only these are no values
STEMMERS = {
    "en": "english", "de": "german", "fr": "french", "nl": "dutch", "it": "italian", "es": "spanish", "ru": "russian",
    "pt": "portuguese", "sv": "swedish", "no": "norwegian", "fi": "finnish", "hu": "hungarian", "tr": "turkish",
    "da": "danish", "ro": "romanian", "ar": "arabic", "el": "greek", "id": "indonesian",
}  # fmt: skip
MOST_MEET = 0.9  # share of the ids of events that another table has; with fewer, a normalisation is looked for
LABEL_SCALES = {"click": (0, 1), "purchase": (0, 1), "rating": (1, 5), "relevance": (0, 3)}


def map_settings(mapping: SchemaMapping) -> dict[str, Any]:
    """The map: ingest's own settings, without the source."""
    survey = mapping.survey
    settings: dict[str, Any] = {"format": survey.format}
    if survey.name:
        settings["name"] = survey.name
    if survey.connection:
        settings["connection"] = survey.connection
    if survey.format == "beir":
        return settings
    if "items" not in mapping.roles:
        settings["items_from_events"] = True
    if survey.format in ("tables", "sql"):
        settings["tables"] = {role: survey.tables[table].place for role, table in mapping.roles.items()}
    if files := _file_settings(mapping):
        settings["files"] = files
    events = event_labels(mapping)
    settings["columns"] = _column_settings(mapping, events)
    if events.labels:
        settings["labels"] = {
            name: {"type": label.type, "weight": label.weight, **label.model_dump(mode="json", exclude_defaults=True)}
            for name, label in events.labels.items()
        }
    return settings


def _column_settings(mapping: SchemaMapping, events: EventLabels) -> dict[str, Any]:
    columns: dict[str, Any] = {"user_id": "", "item_id": "", "timestamp": "", "labels": events.columns}
    if events.event_type:
        columns |= {"event_type": events.event_type, "event_types": events.event_types}
    for role in ROLES:
        for each in mapping.column_mappings.get(role, ()):
            if each.setting == "event_type" or each.setting.startswith("labels."):
                continue  # what the events say decides
            if each.setting in LIST_SETTINGS:
                columns.setdefault(each.setting, []).append(each.column)
            elif role == "events" or not columns.get(each.setting):
                columns[each.setting] = each.column
    if unrated := unrated_numbers(mapping):
        columns["unrated"] = unrated
    if normalisations := _normalisations(mapping):
        columns["normalise_ids"] = normalisations
    if mapping.time_unit and columns["timestamp"]:
        columns["timestamp_unit"] = mapping.time_unit
    if mapping.resolved_time_zone:
        columns["time_zone"] = mapping.resolved_time_zone
    if (category := mapping.column("items", "category")) and (mark := mapping.stats("items", category).separator):
        columns["category_separator"] = mark.strip()
    if created := mapping.column("items", "created_at"):
        columns["created_at_unit"] = mapping.stats("items", created).times[0]
    return columns


def _normalisations(mapping: SchemaMapping) -> list[str]:
    """What makes the ids of events those of the other tables, where they are written in two ways."""
    names: set[str] = set()
    for role, setting in KEY_SETTINGS.items():
        column = mapping.column("events", setting)
        key = mapping.column(role, setting) or mapping.column(role, setting.replace("_id", "_key"))
        if not column or not key:
            continue
        pair = (mapping.roles["events"], column, mapping.roles[role], key)
        share = mapping.survey.overlap(*pair)
        if share < MOST_MEET and (meeting := mapping.survey.meeting(*pair)).share > max(MOST_MEET, share):
            names |= set(meeting.names)
    return [name for name in NORMALISATIONS if name in names]


def _file_settings(mapping: SchemaMapping) -> dict[str, Any]:
    """How the text files are written, where it differs from ingest's defaults."""
    settings: dict[str, Any] = {}
    if mapping.survey.format != "tables":
        return settings
    survey = mapping.survey
    settings = survey.files.model_dump(exclude_defaults=True, exclude={"names"})
    if survey.files.encoding == "ascii":
        del settings["encoding"]
    names = {role: list(survey.names.get(survey.tables[table].place, ())) for role, table in mapping.roles.items()}
    if names := {role: named for role, named in names.items() if named}:
        settings["names"] = names
    missing = set(survey.files.missing)
    for role, table in mapping.roles.items():
        for each in mapping.column_mappings.get(role, ()):
            stats = mapping.stats(role, each.column)
            if stats.kind != "text" or (0 < stats.numbers < 0.2):
                continue
            values = {value.strip() for value in mapping.survey.values(table, each.column, most=200)}
            has_words = each.setting in TEXT_SETTINGS or not (
                max(stats.numbers, stats.money, stats.flags) > 0.3 or stats.times
            )
            missing |= values.intersection(UNAMBIGUOUS_MISSING if has_words else MISSING_WORDS)
    if missing:
        settings["missing"] = sorted(missing)
    return settings


def recipe_settings(mapping: SchemaMapping) -> dict[str, Any]:
    """The recipe's changes: its name, the scale of its labels, the language of its texts."""
    name = mapping.name.replace("_", "-")
    changes: dict[str, Any] = {
        "name": name, "validate.profile_name": name, "export.recipe": name, "export.catalogue": name,
    }  # fmt: skip
    scales = dict(LABEL_SCALES)
    events = event_labels(mapping)
    for label, column in events.columns.items() if not events.labels else ():
        if (stats := mapping.stats("events", column)).low is not None and stats.high is not None:
            low, high = LABEL_SCALES[label]
            least = lowest_rating(mapping) if label == "rating" else stats.low
            scales[label] = (min(low, math.floor(least)), max(high, math.ceil(stats.high)))
    if scales != LABEL_SCALES:
        changes["validate.scales"] = {label: list(scale) for label, scale in scales.items()}
    language = next((code for code in mapping.languages.values() if code), "en")
    stemmer = STEMMERS.get(language, "")
    if mapping.kind in ("search", "shop") and stemmer != "english":
        changes |= {f"{step}.stemmer": stemmer for step in ("finetune", "distill", "evaluate")}
    return changes
