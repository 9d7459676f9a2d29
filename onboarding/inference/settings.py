"""Settings: what the map says of a reading, and what the recipe changes for it."""

from __future__ import annotations

import math
from typing import Any

from onboarding.inference.interpretation import LIST_SETTINGS, ROLES, TEXT_SETTINGS, SchemaMapping
from onboarding.inference.names import event_label

# words that stand for nothing
MISSING = ("NULL", "null", "\\N", "NA", "N/A", "n/a", "None", "none", "nan", "NaN", "-")
STEMMERS = {
    "en": "english", "de": "german", "fr": "french", "nl": "dutch", "it": "italian", "es": "spanish", "ru": "russian",
    "pt": "portuguese", "sv": "swedish", "no": "norwegian", "fi": "finnish", "hu": "hungarian", "tr": "turkish",
    "da": "danish", "ro": "romanian", "ar": "arabic", "el": "greek", "id": "indonesian",
}  # fmt: skip


def map_settings(mapping: SchemaMapping) -> dict[str, Any]:
    """The map: ingest's own settings, without where the source is."""
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
        places = {role: survey.tables[table].place for role, table in mapping.roles.items()}
        settings["tables"] = places
    if files := _file_settings(mapping):
        settings["files"] = files
    columns: dict[str, Any] = {"user_id": "", "item_id": "", "timestamp": "", "labels": {}}
    for role in ROLES:
        for meaning in mapping.column_mappings.get(role, ()):
            if meaning.setting.startswith("labels."):
                columns["labels"][meaning.setting.partition(".")[2]] = meaning.column
            elif meaning.setting in LIST_SETTINGS:
                columns.setdefault(meaning.setting, []).append(meaning.column)
            elif role == "events" or meaning.setting not in columns or not columns[meaning.setting]:
                columns[meaning.setting] = meaning.column
    if mapping.time_unit and columns["timestamp"]:
        columns["timestamp_unit"] = mapping.time_unit
    if mapping.resolved_time_zone:
        columns["time_zone"] = mapping.resolved_time_zone
    if columns.get("event_type"):
        values = survey.values(mapping.roles["events"], columns["event_type"])
        columns["event_types"] = {value: event_label(value) or "" for value in values}
    if (category := mapping.column("items", "category")) and (mark := mapping.stats("items", category).separator):
        columns["category_separator"] = mark.strip()
    if created := mapping.column("items", "created_at"):
        times = mapping.stats("items", created).times
        columns["created_at_unit"] = times[0]
    settings["columns"] = columns
    return settings


def _file_settings(mapping: SchemaMapping) -> dict[str, Any]:
    """How the text files are written, where that is not the usual way."""
    settings: dict[str, Any] = {}
    if mapping.survey.format != "tables":
        return settings
    if mapping.survey.files.encoding not in ("utf-8", "ascii"):
        settings["encoding"] = mapping.survey.files.encoding
    if mapping.survey.files.decimal == ",":
        settings["decimal"] = ","
    missing = set()
    for role, table in mapping.roles.items():
        for meaning in mapping.column_mappings.get(role, ()):
            stats = mapping.stats(role, meaning.column)
            if stats.kind != "text" or (0 < stats.numbers < 0.2):
                continue
            values = mapping.survey.values(table, meaning.column, most=200)
            markers = ("NULL", "\\N") if meaning.setting in TEXT_SETTINGS else MISSING
            missing |= {word for word in markers if word in values and (stats.numbers > 0.3 or word in ("NULL", "\\N"))}
    if missing:
        settings["missing"] = sorted(missing)
    return settings


def recipe_settings(mapping: SchemaMapping) -> dict[str, Any]:
    """The recipe's changes: its name, the scale of its labels, the language of its words."""
    name = mapping.name.replace("_", "-")
    changes: dict[str, Any] = {
        "name": name, "validate.profile_name": name, "export.recipe": name, "export.catalogue": name,
    }  # fmt: skip
    defaults = {"click": (0, 1), "purchase": (0, 1), "rating": (1, 5), "relevance": (0, 3)}
    scales = dict(defaults)
    for meaning in mapping.column_mappings.get("events", ()):
        label = meaning.setting.partition("labels.")[2]
        if label and (stats := mapping.stats("events", meaning.column)).low is not None and stats.high is not None:
            low, high = defaults[label]
            scales[label] = (min(low, math.floor(stats.low)), max(high, math.ceil(stats.high)))
    if scales != defaults:
        changes["validate.scales"] = {label: list(scale) for label, scale in scales.items()}
    language = next((code for code in mapping.languages.values() if code), "en")
    if mapping.kind in ("search", "shop") and STEMMERS.get(language, "") != "english":
        changes |= {f"{step}.stemmer": STEMMERS.get(language, "") for step in ("finetune", "distill", "evaluate")}
    return changes
