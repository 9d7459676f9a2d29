"""The flow that keeps the champion's features fresh between promotions:

    resolve_inputs -> ingest -> validate -> featurize -> materialize

The same doors as in training, with the same reuse, so what a training run has computed of the same data is taken as it
is, and the other way round. It is watched, cancelled, retried and scheduled like any other run.
Its data is held against the last training run's profile and leaves none of its own: the next training is compared with
the training before it, not with an hour ago.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.recipe import Recipe, step_settings, storage_settings
from pipelines.recipes import change
from pipelines.runs.runner import RunHandle, Runner, run
from pipelines.training import build_pipeline, task_factory
from rankline.runtime.current_user import current_user


def features_pipeline(
    recipe: Recipe, *, workspace: str, cluster: bool = False, schedule: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """The Kubeflow pipeline that brings a recipe's features online; ``workspace`` is the folder its steps share.

    There is no verdict to say on a ``cluster``: where the last step is done, they are online. A ``schedule`` is told
    of as in training.
    """
    from kfp import dsl

    from components.featurize.component import featurize
    from components.ingest.component import ingest
    from components.promote.component import materialize
    from components.resolve_inputs.component import resolve_inputs
    from components.summary.component import summary
    from components.validate.component import validate

    settings = step_settings(recipe, workspace)
    step = task_factory(recipe, workspace=workspace, cluster=cluster, schedule=schedule, flow="features")

    def define_tasks(scheduled: dict[str, Any]) -> None:
        with dsl.ExitHandler(step(summary), name="the-line"):
            inputs = step(resolve_inputs, data=settings["ingest"])
            raw = step(ingest, source_digest=inputs.outputs["source_digest"], **scheduled)
            clean = step(validate, raw=raw.outputs["raw"])
            feature_set = step(featurize, clean=clean.outputs["clean"])
            step(materialize, features=feature_set.outputs["features"], config=settings["promote"])

    name, description = f"rankline-{recipe.name}-features", f"Newer rows of the features of: {recipe.description}"
    return build_pipeline(define_tasks, name=name, description=description, scheduled=bool(schedule))


def materialize(
    recipe: Recipe,
    workspace: Path,
    *,
    until: datetime | None = None,
    watch: Callable[[RunHandle], None] | None = None,
    runner: Runner = "local",
    trigger: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Bring the champion's features up to ``until`` (up to the recipe's own window if left out); the run's summary.

    A champion that reads another feature-service version is told before anything begins; the step looks again.

    Raises:
        UsageError: there is no champion, or it reads another version.
        StepFailed: a step stopped.
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
    """See that the champion reads what this code makes, before anything is fetched or run.

    Raises:
        UsageError: there is no champion, or it reads another feature-service version.
    """
    from components.promote.materialize import champion_feature_service
    from rankline.features.transforms import SERVICE
    from rankline.runtime.run_context import RunContext

    run_context = RunContext.from_parameters(
        {"workspace": str(workspace), **storage_settings(recipe, str(workspace))}, ""
    )
    champion_feature_service(
        run_context.repository, run_service=SERVICE, where=f"recipe {recipe.name}, in this version", repair_cache=False
    )
