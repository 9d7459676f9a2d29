"""Kinds: which recipe fits a source, by who or what asks."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.interpretation import Reading
from onboarding.inference.keys import best_id
from onboarding.inference.names import fit
from onboarding.survey import Seen

KINDS = ("interactions", "search", "labels", "shop")
FEW_LABELS = 30


def kind_of(made: Reading, told: Mapping[str, Mapping[str, str]]) -> str:
    """Which recipe fits: by who or what asks."""
    if made.survey.format == "beir":
        return "search"
    if "events" not in made.roles:
        return "interactions"
    log = made.table("events")
    said = told.get("events", {})
    user = "user_id" in said or best_id(log, "user")[1] > 0.4
    item = "item_id" in said or best_id(log, "item")[1] > 0.4
    asked = "queries" in made.roles or "query_text" in said or best_id(log, "query")[1] > 0.4 or bool(
        [name for name, facts in log.columns.items() if fit(name, "query_text") > 0.9 and facts.is_text]
    )  # fmt: skip
    if not user and not item and labelled(log):
        return "labels"
    if user and asked and "items" in made.roles:
        return "shop"
    return "search" if asked and not user else "interactions"


def labelled(table: Seen) -> tuple[str, str] | None:
    """(column of texts, column of labels), where a table is texts with few distinct labels."""
    texts = [name for name, facts in table.columns.items() if facts.is_text and facts.distinct > 0.5 * facts.values]
    labels = [
        (fit(name, "label"), -facts.distinct, name)
        for name, facts in table.columns.items()
        if 1 <= facts.distinct <= FEW_LABELS and facts.distinct < 0.2 * facts.values and name not in texts
        and not facts.times
    ]  # fmt: skip
    if not texts or not labels:
        return None
    text = max(texts, key=lambda name: (fit(name, "query_text"), table.columns[name].characters))
    return text, max(labels)[2]
