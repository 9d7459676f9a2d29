"""The declared columns that a recipe makes features of users and of the context of a request."""

from __future__ import annotations

from components.ingest.config import Columns, stored_name
from pipelines.recipe import Recipe
from rankline.errors import UsageError
from rankline.features.profile import feature_service


def recipe_service(recipe: Recipe) -> str:
    """The feature service that a recipe's features are computed for."""
    columns, featurize = recipe.ingest.columns, recipe.featurize
    zoned = bool(columns.user_time_zone or columns.event_time_zone)
    return feature_service(featurize.user_features, featurize.context_features, time_zone=zoned)


def refuse_undeclared(recipe: Recipe) -> None:
    """Refuse features that no setting declares, before anything runs.

    Raises:
        UsageError: naming the first such feature, and those that there are.
    """
    for setting, subject in (("user_features", "user"), ("context_features", "event")):
        declared = _declared(recipe.ingest.columns, subject)
        for name in getattr(recipe.featurize, setting):
            if name not in declared:
                kinds = " or ".join(f"{subject}_{kind}" for kind in ("attributes", "numbers"))
                raise UsageError(
                    f"featurize.{setting} names {name}, which no setting declares",
                    expected=", ".join(declared) or f"a column that ingest.columns.{kinds} declares",
                    found=name,
                    where=f"recipe {recipe.name}",
                    hint=f"declare the column of {subject}s in ingest.columns.{kinds}, or take it out",
                )


def _declared(columns: Columns, subject: str) -> list[str]:
    """The names under which the declared columns of users or events are stored."""
    return [stored_name(name) for name in columns.declared(subject)]
