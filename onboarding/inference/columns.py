"""What the columns of a table are: the given ones first, then the most likely candidates, each column once."""

from __future__ import annotations

from collections.abc import Mapping

from components.ingest.config import RESERVED_NAMES, stored_name
from onboarding.inference.candidates import column_candidates
from onboarding.inference.keys import find_key
from onboarding.inference.schema import KEY_SETTINGS, LIST_SETTINGS, SETTING_ROLES, ColumnMapping, SchemaMapping
from onboarding.inference.vocabulary import is_id, name_tokens
from rankline.errors import UsageError
from rankline.io.sources import PLACE_COLUMN

MOSTLY_DISTINCT = 0.9  # share of the rows of a table with a row for each item
MIN_CONFIDENCE, MAX_CONFIDENCE = 0.3, 0.99
BEIR = {
    "events": {"query-id": "query_id", "corpus-id": "item_id", "score": "labels.relevance"},
    "items": {"_id": "item_key", "title": "title", "text": "text"},
    "queries": {"_id": "query_key", "text": "query_text"},
    "users": {},
}


def assign_overrides(mapping: SchemaMapping, overrides: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Role -> setting -> column, of the overrides a user gave.

    Raises:
        UsageError: there is no such setting, or no table of its roles has such a column.
    """
    assigned: dict[str, dict[str, str]] = {}
    for setting, column in overrides.items():
        if setting == "timestamp_unit":
            continue
        roles = SETTING_ROLES.get(setting.partition(".")[0])
        if roles is None:
            raise UsageError(
                f"there is no setting {setting!r} for columns",
                expected="one of " + ", ".join(SETTING_ROLES) + "; a label as labels.rating",
                found=f"{setting}={column}",
            )
        present = [role for role in roles if role in mapping.roles]
        names = column.split(",") if column else []
        matching = [role for role in present if all(name in mapping.table(role).columns for name in names)]
        if not matching:
            columns = [name for role in present for name in mapping.table(role).columns]
            raise UsageError(
                f"no table of {' or '.join(roles)} has a column {column!r}",
                expected="one of " + ", ".join(columns),
                found=f"{setting}={column}",
                where=mapping.survey.source,
            )
        for role in matching if setting in KEY_SETTINGS.values() else matching[:1]:
            assigned.setdefault(role, {})[setting] = column
    return assigned


def map_columns(mapping: SchemaMapping, role: str, overrides: Mapping[str, str]) -> list[ColumnMapping]:
    """What the columns of a role's table are, in their order."""
    table = mapping.table(role)
    if mapping.survey.format == "beir":
        known = BEIR[role].items()
        return [
            ColumnMapping(setting, column, 1.0, "as BEIR defines")
            for column, setting in known
            if column in table.columns
        ]
    mapped = {
        column: ColumnMapping(setting, column, 1.0, "as you said")
        for setting, columns in overrides.items()
        if columns
        for column in columns.split(",")
    }
    settled = set(overrides)
    if role in KEY_SETTINGS:
        _map_key(mapping, role, mapped, settled)
    _map_candidates(mapping, role, mapped, settled)
    if role == "events" and mapping.kind == "interactions" and not settled & {"user_id", "query_id", "query_text"}:
        _map_remaining_id(mapping, mapped)
    order = {name: number for number, name in enumerate(table.columns)}
    ordered = sorted(mapped.values(), key=lambda each: order.get(each.column, -1))
    if role == "items" and "title" not in overrides:
        _map_title(mapping, ordered)
    return _without_reserved(mapping, role, ordered)


def _without_reserved(mapping: SchemaMapping, role: str, columns: list[ColumnMapping]) -> list[ColumnMapping]:
    """The columns without further ones that ingest refuses for their names, which `not_read` then has."""
    names: set[str] = set()
    free = []
    for each in columns:
        stored = stored_name(each.column).casefold()
        is_declared = each.setting.endswith(("_attributes", "_numbers", "_vectors", "_texts"))
        if is_declared and each.confidence < 1 and (stored in RESERVED_NAMES or stored in names):
            other = "ingest writes" if stored in RESERVED_NAMES else "the table has"
            mapping.not_read[role, each.column] = f"{other} another column of this name"
            continue
        names |= {stored} if is_declared else set()
        free.append(each)
    return free


def _map_key(mapping: SchemaMapping, role: str, mapped: dict[str, ColumnMapping], settled: set[str]) -> None:
    """Map the key of a table, which follows from the log's column of its ids."""
    id_setting = KEY_SETTINGS[role]
    key_settings = {id_setting, id_setting.replace("_id", "_key")}
    log = mapping.survey.tables.get(mapping.roles.get("events", ""))
    id_column = mapping.column("events", id_setting)
    if settled & key_settings or not log:
        return
    table = mapping.table(role)
    if not (key := find_key(mapping.survey, log, table, id_column)):
        return
    share = mapping.survey.overlap(log.name, id_column, table.name, key) if id_column else 0.0
    is_history = table.columns[key].distinct < MOSTLY_DISTINCT * table.columns[key].values
    why = ("several rows of one" if is_history else "one value per row") + (
        f"; contains {share:.0%} of the ids in {log.name}" if id_column else ""
    )
    setting = id_setting if key == id_column else id_setting.replace("_id", "_key")
    mapped[key] = ColumnMapping(setting, key, min(MAX_CONFIDENCE, 0.5 + 0.5 * share), why)
    settled |= key_settings


def _map_candidates(mapping: SchemaMapping, role: str, mapped: dict[str, ColumnMapping], settled: set[str]) -> None:
    """Map the columns that are left to their candidates, the most likely first; most settings take one column."""
    candidates = [
        (confidence, why, setting, name)
        for name, stats in mapping.table(role).columns.items()
        if name not in mapped and stats.distinct and (role == "events" or name != PLACE_COLUMN)
        for setting, confidence, why in column_candidates(mapping, role, name)
    ]
    for confidence, why, setting, name in sorted(candidates, key=lambda each: -each[0]):
        if name not in mapped and setting not in settled and confidence > MIN_CONFIDENCE:
            mapped[name] = ColumnMapping(setting, name, min(confidence, MAX_CONFIDENCE), why)
            if setting not in LIST_SETTINGS:
                settled.add(setting)


def _map_remaining_id(mapping: SchemaMapping, mapped: dict[str, ColumnMapping]) -> None:
    """Map the id column with the most values to the user, where nothing else identifies who the events are of."""
    ids = [
        stats
        for name, stats in mapping.table("events").columns.items()
        if name not in mapped
        and not stats.times
        and not stats.is_unique
        and stats.distinct > 20
        and (is_id(name) or name_tokens(name) == ["session"])
    ]
    if ids:
        name = max(ids, key=lambda each: each.distinct).name
        mapped[name] = ColumnMapping("user_id", name, 0.4, "an id column, and the items have theirs already")


def _map_title(mapping: SchemaMapping, columns: list[ColumnMapping]) -> None:
    """Take the shortest text of the items for their title, if no column is one."""
    texts = [each for each in columns if each.setting == "text"]
    if texts and not any(each.setting == "title" for each in columns):
        shortest = min(texts, key=lambda each: mapping.stats("items", each.column).characters)
        why = "the shortest text, as no column is named like a title"
        columns[columns.index(shortest)] = ColumnMapping("title", shortest.column, 0.5, why)
