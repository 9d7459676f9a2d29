"""Kinds: which recipe fits a source, by who or what asks."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.interpretation import SchemaMapping
from onboarding.inference.keys import best_id
from onboarding.inference.names import name_score
from onboarding.survey import TableSurvey

KINDS = ("interactions", "search", "labels", "shop")
MAX_LABELS = 30


def infer_kind(mapping: SchemaMapping, role_overrides: Mapping[str, Mapping[str, str]]) -> str:
    """Which recipe fits: by who or what asks."""
    if mapping.survey.format == "beir":
        return "search"
    if "events" not in mapping.roles:
        return "interactions"
    log = mapping.table("events")
    event_overrides = role_overrides.get("events", {})
    has_user = "user_id" in event_overrides or best_id(log, "user")[1] > 0.4
    has_item = "item_id" in event_overrides or best_id(log, "item")[1] > 0.4
    has_query = "queries" in mapping.roles or "query_text" in event_overrides or best_id(log, "query")[1] > 0.4 or bool(
        [name for name, stats in log.columns.items() if name_score(name, "query_text") > 0.9 and stats.is_text]
    )  # fmt: skip
    if not has_user and not has_item and text_and_label_columns(log):
        return "labels"
    if has_user and has_query and "items" in mapping.roles:
        return "shop"
    return "search" if has_query and not has_user else "interactions"


def text_and_label_columns(table: TableSurvey) -> tuple[str, str] | None:
    """(column of texts, column of labels), where a table is texts with few distinct labels."""
    texts = [name for name, stats in table.columns.items() if stats.is_text and stats.distinct > 0.5 * stats.values]
    labels = [
        (name_score(name, "label"), -stats.distinct, name)
        for name, stats in table.columns.items()
        if 1 <= stats.distinct <= MAX_LABELS and stats.distinct < 0.2 * stats.values and name not in texts
        and not stats.times
    ]  # fmt: skip
    if not texts or not labels:
        return None
    text = max(texts, key=lambda name: (name_score(name, "query_text"), table.columns[name].characters))
    return text, max(labels)[2]
