"""Settings: what the map says of a reading, and what the recipe changes for it."""

from __future__ import annotations

import math
from typing import Any

from onboarding.inference.interpretation import MANY, ROLES, WORDY, Reading
from onboarding.inference.names import event_label

# words that stand for nothing
MISSING = ("NULL", "null", "\\N", "NA", "N/A", "n/a", "None", "none", "nan", "NaN", "-")
STEMMERS = {
    "en": "english", "de": "german", "fr": "french", "nl": "dutch", "it": "italian", "es": "spanish", "ru": "russian",
    "pt": "portuguese", "sv": "swedish", "no": "norwegian", "fi": "finnish", "hu": "hungarian", "tr": "turkish",
    "da": "danish", "ro": "romanian", "ar": "arabic", "el": "greek", "id": "indonesian",
}  # fmt: skip


def settings_of(made: Reading) -> dict[str, Any]:
    """The map: ingest's own settings, without where the source is."""
    survey = made.survey
    told: dict[str, Any] = {"format": survey.format}
    if survey.name:
        told["name"] = survey.name
    if survey.connection:
        told["connection"] = survey.connection
    if survey.format == "beir":
        return told
    if "items" not in made.roles:
        told["items_from_events"] = True
    if survey.format in ("tables", "sql"):
        places = {role: survey.tables[table].place for role, table in made.roles.items()}
        told["tables"] = places
    if files := _files(made):
        told["files"] = files
    columns: dict[str, Any] = {"user_id": "", "item_id": "", "timestamp": "", "labels": {}}
    for role in ROLES:
        for meaning in made.meanings.get(role, ()):
            if meaning.setting.startswith("labels."):
                columns["labels"][meaning.setting.partition(".")[2]] = meaning.column
            elif meaning.setting in MANY:
                columns.setdefault(meaning.setting, []).append(meaning.column)
            elif role == "events" or meaning.setting not in columns or not columns[meaning.setting]:
                columns[meaning.setting] = meaning.column
    if made.unit and columns["timestamp"]:
        columns["timestamp_unit"] = made.unit
    if made.zone:
        columns["time_zone"] = made.zone
    if columns.get("event_type"):
        values = survey.values(made.roles["events"], columns["event_type"])
        columns["event_types"] = {value: event_label(value) or "" for value in values}
    if (category := made.column("items", "category")) and (mark := made.facts("items", category).separator):
        columns["category_separator"] = mark.strip()
    if created := made.column("items", "created_at"):
        times = made.facts("items", created).times
        columns["created_at_unit"] = times[0]
    told["columns"] = columns
    return told


def _files(made: Reading) -> dict[str, Any]:
    """How the text files are written, where that is not the usual way."""
    told: dict[str, Any] = {}
    if made.survey.format != "tables":
        return told
    if made.survey.files.encoding not in ("utf-8", "ascii"):
        told["encoding"] = made.survey.files.encoding
    if made.survey.files.decimal == ",":
        told["decimal"] = ","
    missing = set()
    for role, table in made.roles.items():
        for meaning in made.meanings.get(role, ()):
            facts = made.facts(role, meaning.column)
            if facts.kind != "text" or (0 < facts.numbers < 0.2):
                continue
            values = made.survey.values(table, meaning.column, most=200)
            sure = ("NULL", "\\N") if meaning.setting in WORDY else MISSING
            missing |= {word for word in sure if word in values and (facts.numbers > 0.3 or word in ("NULL", "\\N"))}
    if missing:
        told["missing"] = sorted(missing)
    return told


def knobs_of(made: Reading) -> dict[str, Any]:
    """The recipe's changes: its name, the scale of its labels, the language of its words."""
    name = made.name.replace("_", "-")
    told: dict[str, Any] = {
        "name": name, "validate.profile_name": name, "export.recipe": name, "export.catalogue": name,
    }  # fmt: skip
    usual = {"click": (0, 1), "purchase": (0, 1), "rating": (1, 5), "relevance": (0, 3)}
    scales = dict(usual)
    for meaning in made.meanings.get("events", ()):
        label = meaning.setting.partition("labels.")[2]
        if label and (facts := made.facts("events", meaning.column)).low is not None and facts.high is not None:
            low, high = usual[label]
            scales[label] = (min(low, math.floor(facts.low)), max(high, math.ceil(facts.high)))
    if scales != usual:
        told["validate.scales"] = {label: list(scale) for label, scale in scales.items()}
    language = next((code for code in made.languages.values() if code), "en")
    if made.kind in ("search", "shop") and STEMMERS.get(language, "") != "english":
        told |= {f"{step}.stemmer": STEMMERS.get(language, "") for step in ("finetune", "distill", "evaluate")}
    return told
