"""The refresh flow: a newer catalogue for the champion, without training.

    resolve_inputs -> ingest -> catalogue -> publish

Items change all day, the model once a night. A refresh reads items alone: the recipe's own, or a file of changed items
in the same format. The champion embeds items whose text is new to it. The new catalogue is published if it passes every
check (components/catalogue/README.md), and servers load it by themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.placement import place
from pipelines.recipe import Recipe, change_of, run_context, step_settings
from pipelines.runs.runner import RunHandle, Runner, run
from pipelines.training import build_pipeline, task_factory
from rankline.contracts import ITEMS
from rankline.errors import UsageError
from rankline.io.sources import Tables

if TYPE_CHECKING:
    from components.ingest.config import IngestConfig

# what a source may say of an item -> the settings that name the columns
ITEM_COLUMNS = {name: (name,) for name in ITEMS.names if name != "item_id"} | {
    "created_at": ("created_at", "created_year")
}


def refresh_pipeline(
    recipe: Recipe, *, workspace: str, cluster: bool = False, schedule: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """The Kubeflow pipeline of a refresh; ``workspace`` is the folder that its steps share.

    ``cluster`` and ``schedule`` mean what they do for the training pipeline.
    """
    from kfp import dsl

    from components.catalogue.component import catalogue, publish
    from components.ingest.component import ingest
    from components.promote.component import refused
    from components.resolve_inputs.component import resolve_inputs
    from components.summary.component import summary

    settings = step_settings(recipe, workspace)
    step = task_factory(recipe, workspace=workspace, cluster=cluster, schedule=schedule, flow="refresh")

    def define_tasks(scheduled: dict[str, Any]) -> None:
        with dsl.ExitHandler(step(summary), name="steps"):
            inputs = step(resolve_inputs, data=settings["ingest"])
            raw = step(ingest, source_digest=inputs.outputs["source_digest"], **scheduled)
            candidate = step(catalogue, raw=raw.outputs["raw"], champion=inputs.outputs["champion"])
            with dsl.If(candidate.outputs["Output"] == "publish", name="checks-met"):
                step(publish, revision=candidate.outputs["revision"], config=settings["catalogue"])
            if cluster:
                with dsl.If(candidate.outputs["Output"] == refused.name, name=refused.name):
                    place(refused(), recipe.cluster, attempts=True)

    description = f"A newer catalogue for: {recipe.description}"
    return build_pipeline(define_tasks, recipe, "-refresh", description, cluster=cluster, scheduled=bool(schedule))


def items_recipe(
    recipe: Recipe, *, items: str | None = None, only: Collection[str] = (), whole: bool | None = None
) -> Recipe:
    """The recipe with its items as the only source, as a refresh reads it.

    Args:
        items: the place of the items, if it is not the recipe's.
        only: the attributes to change, such as price and available; the others stay as they are.
        whole: whether these are all items there are, so that others are removed. The default is the recipe's setting;
            a recipe's own table of items is complete.

    Raises:
        UsageError: ``only`` names an attribute that items do not have, or of which the recipe reads no column.
    """
    ingest = recipe.ingest
    if unknown := [name for name in only if name not in ITEM_COLUMNS]:
        raise UsageError(
            f"items have no {unknown[0]}",
            expected=f"some of {', '.join(ITEM_COLUMNS)}",
            found=", ".join(only),
            hint="name the attributes that change; the others stay as they are",
        )
    for name in only:
        _require_column(ingest, name)
    omitted = [name for name in ITEM_COLUMNS if only and name not in only]
    if omitted:
        unnamed: dict[str, Any] = {
            setting: () if setting == "text" else "" for name in omitted for setting in ITEM_COLUMNS[name]
        }
        if "title" in only and not ingest.columns.created_at:
            unnamed.pop("created_year", None)  # the year is part of the title
        unnamed |= dict.fromkeys(("item_attributes", "item_numbers", "item_vectors"), ())
        ingest = change_of(ingest, columns=change_of(ingest.columns, **unnamed), only=tuple(only))
    from_events = ingest.items_from_events and not ingest.tables.items
    if items is not None:
        location = items if ingest.format == "sql" or "://" in items else str(Path(items).expanduser().resolve())
        ingest = change_of(ingest, tables=Tables(items=location), only_items=True, items_from_events=False)
    elif not from_events:
        ingest = change_of(ingest, only_items=True)
    if whole is None:  # an event log names the items that somebody saw, not all there are
        whole = recipe.catalogue.whole or (items is None and not from_events)
    ingest = change_of(ingest, changes=items is not None and not whole)
    return dataclasses.replace(recipe, ingest=ingest, catalogue=change_of(recipe.catalogue, whole=whole))


def _require_column(ingest: IngestConfig, name: str) -> None:
    """Refuse an attribute for which the recipe names no column: nothing would be read, and nothing changed."""
    fixed = ("title", "text") if ingest.format == "beir" else ()  # the columns of this format have fixed names
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
    """Run the refresh flow to its end and return the run's summary; see `items_recipe` for the items.

    A refresh that fails a check is an outcome and not an error: the published catalogue stays.

    Raises:
        UsageError: there is no champion, or `items_recipe` refuses ``only``.
        StepFailed: a step failed.
    """
    from rankline.registry.model_registry import ModelRegistry
    from rankline.registry.run_models import champion_bundle

    workspace = workspace.resolve()
    context = run_context(recipe, workspace)
    if not ModelRegistry(context.repository, repair_cache=False).champion():
        champion_bundle(context, "")  # raises, before anything is read
    refresh_recipe = items_recipe(recipe, items=items, only=only, whole=whole)
    return run(refresh_recipe, workspace, watch=watch, runner=runner, trigger=trigger, flow="refresh")
