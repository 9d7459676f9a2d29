"""The training flow: raw events in, a promoted model out. Read this first.

    resolve_inputs -> ingest -> validate -> featurize -> finetune -> distill -> export -> evaluate -> decide -> promote

The same definition runs on a laptop, in containers on one machine and on a cluster (pipelines/runs/runner.py and
pipelines/package.py). Each step decides for itself what it reuses from earlier runs (rankline/runtime/run_step.py), so
Kubeflow's own cache is off.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from pipelines.placement import place
from pipelines.recipe import WORKSPACE_PLACEHOLDER, Recipe, as_dict, run_parameters, step_settings
from rankline.contracts import replace_in_strings
from rankline.runtime.steps import Flow


def training_pipeline(
    recipe: Recipe, *, workspace: str, cluster: bool = False, schedule: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """The Kubeflow pipeline that trains a recipe's model; ``workspace`` is the folder that its steps share.

    On a ``cluster`` failed steps are retried, and a refusal is an empty task of that name, because the API of a cluster
    lists the tasks that ran and not what they returned; where models are reviewed, `pending` is one, too. Then the only
    verdict without a task of its own is that the candidate serves already. With `cluster.pack` the small steps at both
    ends share a pod each, and there are no branches. With a ``schedule`` (a ScheduledWindow) the
    pipeline takes the scheduled time as a parameter, and the data window ends there.
    """
    from kfp import dsl

    from components.distill.component import distill
    from components.evaluate.component import evaluate
    from components.export.component import export
    from components.featurize.component import featurize
    from components.finetune.component import finetune
    from components.promote.component import decide, pending, promote, refused

    settings = step_settings(recipe, workspace)
    step = task_factory(recipe, workspace=workspace, cluster=cluster, schedule=schedule, flow="train")
    is_packed = cluster and recipe.cluster.pack

    def define_tasks(scheduled: dict[str, Any]) -> None:
        with exit_handler(step, is_packed=is_packed):
            champion, validated = first_tasks(step, settings, scheduled, is_packed=is_packed)
            features = step(featurize, clean=validated["clean"])
            teacher = step(finetune, features=features.outputs["features"], champion=champion)
            student = step(distill, features=features.outputs["features"], teacher=teacher.outputs["teacher"])
            bundle = step(export, features=features.outputs["features"], student=student.outputs["student"])
            report = step(
                evaluate,
                bundle=bundle.outputs["bundle"],
                features=features.outputs["features"],
                teacher=teacher.outputs["teacher"],
                student=student.outputs["student"],
                champion=champion,
            )
            candidate = {"bundle": bundle.outputs["bundle"], "evaluation": report.outputs["report"]}
            judged_with = {"checks": validated["report"], "prices": settings["summary"]}
            if is_packed:
                from pipelines import packed

                configs = {f"{name}_config": settings[name] for name in ("decide", "promote")}
                ingredients = {"teacher": teacher.outputs["teacher"], "features": features.outputs["features"]}
                step(packed.conclude, **candidate, **ingredients, **configs, **judged_with)
                return
            verdict = step(decide, **candidate, teacher=teacher.outputs["teacher"], **judged_with)
            with dsl.If(verdict.outputs["Output"] == "promote", name="gates-met"):
                outputs = {"verdict": verdict.outputs["verdict"], "features": features.outputs["features"]}
                step(promote, **candidate, **outputs)
            outcomes = [refused, *([pending] if recipe.decide.mode == "review" else [])] if cluster else []
            for outcome in outcomes:
                with dsl.If(verdict.outputs["Output"] == outcome.name, name=outcome.name):
                    place(outcome(), recipe.cluster, attempts=True)

    return build_pipeline(define_tasks, recipe, "", recipe.description, cluster=cluster, scheduled=bool(schedule))


def exit_handler(step: Callable[..., Any], *, is_packed: bool) -> contextlib.AbstractContextManager[Any]:
    """The group of a flow's steps, with the summary after it; packed into few pods, the last step writes it."""
    from kfp import dsl

    from components.summary.component import summary

    return contextlib.nullcontext() if is_packed else dsl.ExitHandler(step(summary), name="steps")


def first_tasks(
    step: Callable[..., Any], settings: dict[str, Any], scheduled: dict[str, Any], *, is_packed: bool
) -> tuple[Any, Any]:
    """The tasks from the source to clean tables, or the one they are packed into.

    Returns the champion, and what validate writes by name.
    """
    from components.ingest.component import ingest
    from components.resolve_inputs.component import resolve_inputs
    from components.validate.component import validate

    if is_packed:
        from pipelines import packed

        configs = {f"{name}_config": settings[name] for name in ("ingest", "validate")}
        prepared = step(packed.prepare, **configs, prices=settings["summary"], **scheduled)
        return prepared.outputs["Output"], prepared.outputs
    inputs = step(resolve_inputs, data=settings["ingest"])
    raw = step(ingest, source_digest=inputs.outputs["source_digest"], **scheduled)
    validated = step(validate, raw=raw.outputs["raw"])
    return inputs.outputs["champion"], validated.outputs


def build_pipeline(
    define_tasks: Callable[[dict[str, Any]], None],
    recipe: Recipe,
    suffix: str,
    description: str,
    *,
    cluster: bool,
    scheduled: bool,
) -> Callable[..., Any]:
    """A Kubeflow pipeline; ``define_tasks`` gets ingest's arguments for a scheduled run, and no others.

    It is named after the recipe, with a ``suffix`` for the flow. Where it is ``scheduled`` that time is a parameter of
    the pipeline; otherwise the pipeline has none. On a ``cluster`` the recipe may limit the time of a run and that of
    its pods afterwards.
    """
    from kfp import dsl

    def flow() -> None:
        define_tasks({})

    def scheduled_flow(scheduled_at: str) -> None:
        define_tasks({"scheduled_at": scheduled_at, "schedule_time": dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER})

    # Kubeflow does not resolve postponed annotations
    flow.__annotations__, scheduled_flow.__annotations__ = {}, {"scheduled_at": str}
    limits = dsl.PipelineConfig()
    if cluster:
        limits = dsl.PipelineConfig(
            active_deadline_seconds=recipe.cluster.run_timeout_s, ttl_seconds_after_finished=recipe.cluster.keep_s
        )
    decorate = dsl.pipeline(name=f"rankline-{recipe.name}{suffix}", description=description, pipeline_config=limits)
    pipeline_function: Callable[..., Any] = decorate(scheduled_flow if scheduled else flow)
    return pipeline_function


def task_factory(
    recipe: Recipe, *, workspace: str, flow: Flow, cluster: bool = False, schedule: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """A function that makes the task of a component, with its settings, its run and its placement."""
    from kfp import dsl

    settings = step_settings(recipe, workspace)
    run = {**run_parameters(recipe, workspace), "flow": flow, **({"schedule": schedule} if schedule else {})}

    if cluster and (recipe.cluster.volume or recipe.storage.resolved.artifacts):
        run["references"] = True  # steps share the cache that outputs are in

    def step(component: Any, **values: Any) -> Any:
        name = component.component_spec.name
        config = settings.get(name)
        arguments: dict[str, Any] = {"config": config} if config is not None else {}
        if cluster and name in ("resolve-inputs", "prepare"):
            recipe_values = replace_in_strings(as_dict(recipe), WORKSPACE_PLACEHOLDER, workspace)
            arguments["recipe"] = json.dumps(recipe_values, sort_keys=True)
        task = component(run=run, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **arguments, **values)
        return place(task, recipe.cluster, attempts=cluster)

    return step
