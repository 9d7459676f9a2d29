"""The features flow: newer rows of the champion's features online, between promotions.

    resolve_inputs -> ingest -> validate -> featurize -> materialize

The steps are those of the training flow and share its cache, in both directions. Its data is compared with the profile
of the last training run and leaves no profile itself, so that a training run is compared with the one before it and not
with an hour ago.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.overrides import change
from pipelines.recipe import Recipe, run_context, step_settings
from pipelines.runs.runner import RunHandle, Runner, run
from pipelines.training import build_pipeline, exit_handler, first_tasks, task_factory
from rankline.runtime.current_user import current_user


def features_pipeline(
    recipe: Recipe, *, workspace: str, cluster: bool = False, schedule: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """The Kubeflow pipeline that brings a recipe's features online; ``workspace`` is the folder its steps share.

    ``cluster`` and ``schedule`` mean what they do for the training pipeline; there is no verdict.
    """
    from components.featurize.component import featurize
    from components.promote.component import materialize

    settings = step_settings(recipe, workspace)
    step = task_factory(recipe, workspace=workspace, cluster=cluster, schedule=schedule, flow="features")

    is_packed = cluster and recipe.cluster.pack

    def define_tasks(scheduled: dict[str, Any]) -> None:
        with exit_handler(step, is_packed=is_packed):
            _, validated = first_tasks(step, settings, scheduled, is_packed=is_packed)
            feature_set = step(featurize, clean=validated["clean"])
            step(materialize, features=feature_set.outputs["features"], config=settings["promote"])

    description = f"Newer rows of the features of: {recipe.description}"
    return build_pipeline(define_tasks, recipe, "-features", description, cluster=cluster, scheduled=bool(schedule))


def materialize(
    recipe: Recipe,
    workspace: Path,
    *,
    until: datetime | None = None,
    watch: Callable[[RunHandle], None] | None = None,
    runner: Runner = "local",
    trigger: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the features flow to its end and return the run's summary.

    The data window ends at ``until``, by default at the end of the recipe's own window.

    Raises:
        UsageError: there is no champion, or it reads another version.
        StepFailed: a step failed.
    """
    workspace = workspace.resolve()
    require_champion(recipe, workspace)
    if until is not None:
        recipe = change(recipe, [f"ingest.window_end={until.astimezone(UTC).isoformat()}"])
    run_trigger = dict(trigger) if trigger else {"kind": "manual", "who": current_user()}
    if until is not None:
        run_trigger.setdefault("window_end", until.astimezone(UTC).isoformat())
    return run(recipe, workspace, watch=watch, runner=runner, trigger=run_trigger, flow="features")


def require_champion(recipe: Recipe, workspace: Path) -> None:
    """Require a champion that reads the features of this version, before anything is downloaded or run.

    Raises:
        UsageError: there is no champion, or it reads another feature-service version.
    """
    from components.promote.materialize import champion_feature_service
    from pipelines.declared_features import recipe_service

    champion_feature_service(
        run_context(recipe, workspace).repository,
        run_service=recipe_service(recipe),
        where=f"recipe {recipe.name}, in this version",
        repair_cache=False,
    )
