"""Which kind of recipe fits a source: decided by who or what asks for items."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.keys import best_id
from onboarding.inference.schema import SchemaMapping
from onboarding.inference.vocabulary import name_score
from onboarding.survey.survey import TableSurvey

KINDS = ("interactions", "search", "labels", "shop")
MAX_LABELS = 30


def infer_kind(mapping: SchemaMapping, role_overrides: Mapping[str, Mapping[str, str]]) -> str:
    """The kind of recipe: users' interactions, search, classification by labels, or a shop (search for users)."""
    if mapping.survey.format == "beir":
        return "search"
    if "events" not in mapping.roles:
        return "interactions"
    log = mapping.table("events")
    overrides = role_overrides.get("events", {})
    has_user = "user_id" in overrides or best_id(log, "user")[1] > 0.4
    has_item = "item_id" in overrides or best_id(log, "item")[1] > 0.4
    has_query = (
        "queries" in mapping.roles
        or "query_text" in overrides
        or best_id(log, "query")[1] > 0.4
        or any(name_score(name, "query_text") > 0.9 and stats.is_text for name, stats in log.columns.items())
    )
    if not has_user and not has_item and (pair := text_and_label_columns(log)) and log.columns[pair[1]].distinct > 1:
        return "labels"
    if has_user and has_query and "items" in mapping.roles:
        return "shop"
    return "search" if has_query and not has_user else "interactions"


def text_and_label_columns(table: TableSurvey) -> tuple[str, str] | None:
    """(text column, label column) of a table of texts with few distinct labels; None for other tables."""
    texts = [name for name, stats in table.columns.items() if stats.is_text and stats.distinct > 0.5 * stats.values]
    labels = [
        (name_score(name, "label"), -stats.distinct, name)
        for name, stats in table.columns.items()
        if 1 <= stats.distinct <= MAX_LABELS and stats.distinct < 0.2 * stats.values and name not in texts
        and not stats.times and stats.objects < 0.5
    ]  # fmt: skip
    if not texts or not labels:
        return None
    text = max(texts, key=lambda name: (name_score(name, "query_text"), table.columns[name].characters))
    return text, max(labels)[2]
