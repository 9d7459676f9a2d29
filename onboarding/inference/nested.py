"""Logs whose items are in lists of objects, as analytics and shops export them, and the query that flattens them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from onboarding.inference.vocabulary import SUBJECT_WORDS, is_id, name_words
from onboarding.survey.survey import Survey, TableSurvey
from rankline.io import sources
from rankline.io.sql import identifier, literal

SAMPLED_VALUES = 200
READERS = {"parquet": "read_parquet", "pq": "read_parquet", "csv": "read_csv", "tsv": "read_csv", "txt": "read_csv"}


class NestedItems(NamedTuple):
    """A column with lists of objects, and the key of each object that is the item's id."""

    column: str
    key: str
    is_text: bool  # the lists are JSON in a text


def find_nested_items(survey: Survey, log: TableSurvey) -> NestedItems | None:
    """The column of a log whose lists of objects name the items; None if there is none."""
    candidates: list[tuple[float, NestedItems]] = []
    for name, stats in log.columns.items():
        if stats.objects < 0.5 and stats.kind != "list":
            continue
        value = identifier(name) if stats.kind == "text" else f"CAST(to_json({identifier(name)}) AS VARCHAR)"
        rows = survey.db.execute(
            f"SELECT {value} FROM {identifier(log.name)} WHERE {identifier(name)} IS NOT NULL LIMIT {SAMPLED_VALUES}"
        ).fetchall()
        keys = {key for (text,) in rows for key in _keys(text)}
        scores = {key: _item_score(key) for key in keys}
        if best := max(scores, key=lambda key: (scores[key], key), default=""):
            candidates.append((scores[best], NestedItems(name, best, stats.kind == "text")))
    score, nested = max(candidates, default=(0.0, None))
    return nested if score > 0 else None


def flattening_query(survey: Survey, log: TableSurvey, nested: NestedItems) -> str:
    """How to write one row for each item: the command that does it in DuckDB, or the query of a database."""
    path = ".".join(map(identifier, nested.column.split(".")))
    if survey.format == "sql" and (survey.connection or "://" in survey.source):  # Postgres
        key = f"item ->> {literal(nested.key)} AS item_id"
        lists = f"jsonb_array_elements(CAST({path} AS jsonb)) AS item"
        return (
            f"write one row for each item and name the query: SELECT log.*, {key} FROM {_relation(log)} AS log, {lists}"
        )
    is_json = survey.format == "tables" and _kind(log) not in READERS
    lists = f"CAST({path} AS JSON[])" if nested.is_text and not is_json else path
    key = f"item ->> {literal(nested.key)}" if nested.is_text and not is_json else f"item.{identifier(nested.key)}"
    if survey.format != "tables":
        relation = _relation(log)
    else:
        place = log.place if "://" in log.place else f"{survey.source.rstrip('/')}/{log.place}"
        relation = f"{READERS.get(_kind(log), 'read_json')}({literal(place)})"
    query = f"SELECT * EXCLUDE (item), {key} AS item_id FROM (SELECT *, unnest({lists}) AS item FROM {relation})"
    if survey.format != "tables":
        return f"write one row for each item and name the query: {query}"
    command = f"COPY ({query}) TO 'events.parquet'".replace('"', r"\"")
    return f'write one row for each item: duckdb -c "{command}"'


def _relation(log: TableSurvey) -> str:
    return ".".join(map(identifier, log.place.split(".")))


def _kind(log: TableSurvey) -> str:
    return sources.File(log.place).kind


def _keys(text: str) -> list[str]:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return []
    objects = value if isinstance(value, list) else []
    return [key for each in objects if isinstance(each, dict) for key in each]


def _item_score(key: str) -> float:
    """How likely a key of the objects is the item's id; 0 if it is none."""
    if not is_id(key):
        return 0.0
    words = name_words(key)
    return 1.0 if words & SUBJECT_WORDS["item"] else 0.5 if words <= {"id", "sku", "asin", "isbn"} else 0.0
