"""The flow that refreshes the champion's catalogue, without training anything:

    resolve_inputs -> ingest -> catalogue -> publish

Items change all day, a model once a night. What is read are items alone: the recipe's own, or changed ones that lie
elsewhere and look the same. The champion embeds those whose words it has not read; the new catalogue is published
where every check of it is met (components/catalogue/README.md), and servers change over to it by themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.placement import place
from pipelines.recipe import Recipe, step_settings
from pipelines.recipes import change_of
from pipelines.runs.runner import RunHandle, Runner, run
from pipelines.training import build_pipeline, task_factory
from rankline.contracts import ITEMS
from rankline.errors import UsageError
from rankline.io.sources import Tables

if TYPE_CHECKING:
    from components.ingest.config import IngestConfig

# what a source may tell of an item -> the settings that name where
ITEM_COLUMNS = {name: (name,) for name in ITEMS.names if name != "item_id"} | {
    "created_at": ("created_at", "created_year")
}


def refresh_pipeline(
    recipe: Recipe, *, workspace: str, cluster: bool = False, schedule: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """The Kubeflow pipeline of a refresh; ``workspace`` is the folder that its steps share.

    For a ``cluster`` a verdict is said by the task of its name, and a ``schedule`` is told of, as in training.
    """
    from kfp import dsl

    from components.catalogue.component import OUTCOME_TASKS, catalogue, publish
    from components.ingest.component import ingest
    from components.promote.component import refused
    from components.resolve_inputs.component import resolve_inputs
    from components.summary.component import summary

    settings = step_settings(recipe, workspace)
    step = task_factory(recipe, workspace=workspace, cluster=cluster, schedule=schedule)

    def define_tasks(scheduled: dict[str, Any]) -> None:
        with dsl.ExitHandler(step(summary), name="the-line"):
            inputs = step(resolve_inputs, data=settings["ingest"])
            raw = step(ingest, source_digest=inputs.outputs["source_digest"], **scheduled)
            candidate = step(catalogue, raw=raw.outputs["raw"], champion=inputs.outputs["champion"])
            with dsl.If(candidate.outputs["Output"] == "publish", name="checks-met"):
                step(publish, revision=candidate.outputs["revision"], config=settings["catalogue"])
            for outcome, verdict_component in {**OUTCOME_TASKS, "refused": refused}.items() if cluster else ():
                with dsl.If(candidate.outputs["Output"] == outcome, name=outcome):
                    place(verdict_component(), recipe.cluster, attempts=True)

    name, description = f"rankline-{recipe.name}-refresh", f"A newer catalogue for: {recipe.description}"
    return build_pipeline(define_tasks, name=name, description=description, scheduled=bool(schedule))


def items_recipe(
    recipe: Recipe, *, items: str | None = None, only: Collection[str] = (), whole: bool | None = None
) -> Recipe:
    """The recipe as a refresh reads it: its items alone.

    ``items`` is where they are, if not where the recipe has them; ``only`` what they tell, if less than those do (such
    as price and available); ``whole`` says that they are all there are, which a recipe's own table of items is unless
    it is told otherwise.

    Raises:
        UsageError: ``only`` names something that no item has, or of which the recipe reads no column.
    """
    ingest = recipe.ingest
    if unknown := [name for name in only if name not in ITEM_COLUMNS]:
        raise UsageError(
            f"items have no {unknown[0]}",
            expected=f"some of {', '.join(ITEM_COLUMNS)}",
            found=", ".join(only),
            hint="name what the changed items tell; in the rest they stay as they are",
        )
    for name in only:
        _require_column(ingest, name)
    omitted = [name for name in ITEM_COLUMNS if only and name not in only]
    if omitted:
        unnamed: dict[str, Any] = {
            setting: () if setting == "text" else "" for name in omitted for setting in ITEM_COLUMNS[name]
        }
        if "title" in only and not ingest.columns.created_at:
            unnamed.pop("created_year", None)  # a title carries its year
        unnamed |= dict.fromkeys(("item_attributes", "item_numbers", "item_vectors"), ())
        ingest = change_of(ingest, columns=change_of(ingest.columns, **unnamed), only=tuple(only))
    from_events = ingest.items_from_events and not ingest.tables.items
    if items is not None:
        location = items if ingest.format == "sql" or "://" in items else str(Path(items).expanduser().resolve())
        ingest = change_of(ingest, tables=Tables(items=location), only_items=True, items_from_events=False)
    elif not from_events:
        ingest = change_of(ingest, only_items=True)
    if whole is None:  # a log tells of the items that somebody met, not of all there are
        whole = recipe.catalogue.whole or (items is None and not from_events)
    ingest = change_of(ingest, changes=items is not None and not whole)
    return dataclasses.replace(recipe, ingest=ingest, catalogue=change_of(recipe.catalogue, whole=whole))


def _require_column(ingest: IngestConfig, name: str) -> None:
    """Refuse a name of ``only`` for which the recipe names no column: nothing would be read, and nothing change.

    Raises:
        UsageError: there is none.
    """
    fixed = ("title", "text") if ingest.format == "beir" else ()  # its columns are the format's own
    named = name in fixed if fixed else any(getattr(ingest.columns, setting) for setting in ITEM_COLUMNS[name])
    if not named:
        setting = f"ingest.columns.{ITEM_COLUMNS[name][0]}"
        column = "'[\"COLUMN\"]'" if name == "text" else "COLUMN"
        raise UsageError(
            f"the recipe reads no {name} of items, so --only {name} would change nothing",
            expected=f"{' and '.join(fixed)} of a beir source" if fixed else setting,
            found="a format without that column" if fixed else "no column named",
            hint="read the items with --set ingest.format=tables" if fixed else f"--set {setting}={column}",
        )


def refresh(
    recipe: Recipe,
    workspace: Path,
    *,
    items: str | None = None,
    only: Collection[str] = (),
    whole: bool | None = None,
    watch: Callable[[RunHandle], None] | None = None,
    runner: Runner = "local",
    trigger: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Refresh the catalogue of the workspace's champion to the end; the run's summary (see `of_items`).

    A refresh that a check refuses is an outcome and no error: what serves goes on as it was.

    Raises:
        UsageError: nothing serves yet, or ``only`` names something that no item has, or that the recipe does not read.
        StepFailed: a step stopped.
    """
    from pipelines.recipe import storage_settings
    from rankline.registry.model_registry import ModelRegistry
    from rankline.runtime.run_context import RunContext

    workspace = workspace.resolve()
    run_context = RunContext.from_parameters(
        {"workspace": str(workspace), **storage_settings(recipe, str(workspace))}, ""
    )
    if not ModelRegistry(run_context.repository, repair_cache=False).champion():
        run_context.champion_bundle("")  # refuses, before anything is read
    refresh_recipe = items_recipe(recipe, items=items, only=only, whole=whole)
    return run(refresh_recipe, workspace, watch=watch, runner=runner, trigger=trigger, flow="refresh")
