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
from pipelines.recipes import Recipe, at, change_of
from pipelines.runs.runner import Runner, Started, run
from pipelines.training import opener, pipeline
from rankline.contracts import ITEMS
from rankline.errors import UsageError
from rankline.io.sources import Tables

if TYPE_CHECKING:
    from components.ingest.config import IngestConfig

# what a source may tell of an item -> the settings that name where
TOLD = {name: (name,) for name in ITEMS.names if name != "item_id"} | {"created_at": ("created_at", "created_year")}


def refreshing(
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

    settings = at(recipe, workspace)
    step = opener(recipe, workspace=workspace, cluster=cluster, schedule=schedule)

    def line(scheduled: dict[str, Any]) -> None:
        with dsl.ExitHandler(step(summary), name="the-line"):
            seen = step(resolve_inputs, data=settings["ingest"])
            raw = step(ingest, source_digest=seen.outputs["source_digest"], **scheduled)
            made = step(catalogue, raw=raw.outputs["raw"], champion=seen.outputs["champion"])
            with dsl.If(made.outputs["Output"] == "publish", name="checks-met"):
                step(publish, revision=made.outputs["revision"], config=settings["catalogue"])
            for outcome, said in {**OUTCOME_TASKS, "refused": refused}.items() if cluster else ():
                with dsl.If(made.outputs["Output"] == outcome, name=outcome):
                    place(said(), recipe.cluster, attempts=True)

    name, told = f"rankline-{recipe.name}-refresh", f"A newer catalogue for: {recipe.description}"
    return pipeline(line, name=name, description=told, scheduled=bool(schedule))


def of_items(
    recipe: Recipe, *, items: str | None = None, only: Collection[str] = (), whole: bool | None = None
) -> Recipe:
    """The recipe as a refresh reads it: its items alone.

    ``items`` is where they are, if not where the recipe has them; ``only`` what they tell, if less than those do (such
    as price and available); ``whole`` says that they are all there are, which a recipe's own table of items is unless
    it is told otherwise.

    Raises:
        UsageError: ``only`` names something that no item has, or of which the recipe reads no column.
    """
    told = recipe.ingest
    if unknown := [name for name in only if name not in TOLD]:
        raise UsageError(
            f"items have no {unknown[0]}",
            expected=f"some of {', '.join(TOLD)}",
            found=", ".join(only),
            hint="name what the changed items tell; in the rest they stay as they are",
        )
    for name in only:
        _refuse_unread(told, name)
    silent = [name for name in TOLD if only and name not in only]
    if silent:
        unnamed: dict[str, Any] = {knob: () if knob == "text" else "" for name in silent for knob in TOLD[name]}
        if "title" in only and not told.columns.created_at:
            unnamed.pop("created_year", None)  # a title carries its year
        unnamed |= dict.fromkeys(("item_attributes", "item_numbers", "item_vectors"), ())
        told = change_of(told, columns=change_of(told.columns, **unnamed), only=tuple(only))
    from_events = told.items_from_events and not told.tables.items
    if items is not None:
        place = items if told.format == "sql" or "://" in items else str(Path(items).expanduser().resolve())
        told = change_of(told, tables=Tables(items=place), only_items=True, items_from_events=False)
    elif not from_events:
        told = change_of(told, only_items=True)
    if whole is None:  # a log tells of the items that somebody met, not of all there are
        whole = recipe.catalogue.whole or (items is None and not from_events)
    told = change_of(told, changes=items is not None and not whole)
    return dataclasses.replace(recipe, ingest=told, catalogue=change_of(recipe.catalogue, whole=whole))


def _refuse_unread(told: IngestConfig, name: str) -> None:
    """Refuse a name of ``only`` for which the recipe names no column: nothing would be read, and nothing change.

    Raises:
        UsageError: there is none.
    """
    fixed = ("title", "text") if told.format == "beir" else ()  # its columns are the format's own
    named = name in fixed if fixed else any(getattr(told.columns, knob) for knob in TOLD[name])
    if not named:
        knob = f"ingest.columns.{TOLD[name][0]}"
        column = "'[\"COLUMN\"]'" if name == "text" else "COLUMN"
        raise UsageError(
            f"the recipe reads no {name} of items, so --only {name} would change nothing",
            expected=f"{' and '.join(fixed)} of a beir source" if fixed else knob,
            found="a format without that column" if fixed else "no column named",
            hint="read the items with --set ingest.format=tables" if fixed else f"--set {knob}={column}",
        )


def refresh(
    recipe: Recipe,
    workspace: Path,
    *,
    items: str | None = None,
    only: Collection[str] = (),
    whole: bool | None = None,
    watch: Callable[[Started], None] | None = None,
    runner: Runner = "local",
    trigger: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Refresh the catalogue of the workspace's champion to the end; the run's summary (see `of_items`).

    A refresh that a check refuses is an outcome and no error: what serves goes on as it was.

    Raises:
        UsageError: nothing serves yet, or ``only`` names something that no item has, or that the recipe does not read.
        StepFailed: a step stopped.
    """
    from pipelines.recipes import kept
    from rankline.registry.model_registry import ModelRegistry
    from rankline.runtime.run_step import RunContext

    workspace = workspace.resolve()
    here = RunContext.from_parameters({"workspace": str(workspace), **kept(recipe, str(workspace))}, "")
    if not ModelRegistry(here.repository, repair_cache=False).champion():
        here.champion_bundle("")  # refuses, before anything is read
    told = of_items(recipe, items=items, only=only, whole=whole)
    return run(told, workspace, watch=watch, runner=runner, trigger=trigger, flow="refresh")
