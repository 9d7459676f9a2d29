"""Where events that no run writes are shown, such as a rollback: as the runs of the workspace say."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pipelines.recipe import Recipe, run_context
from pipelines.runs.folder import RECIPE, read_recipe, read_recipe_name, run_folders
from rankline.announcer import Announcer
from rankline.errors import RanklineError, UsageError
from rankline.registry.model_registry import ModelRegistry


def recorded_recipe(workspace: Path, *, name: str = "") -> Recipe | None:
    """The recipe of the newest run, if possible of one with this name; None where no run recorded one."""
    folders = [folder for folder in reversed(run_folders(workspace)) if (folder / RECIPE).is_file()]
    for folder in sorted(folders, key=lambda each: read_recipe_name(each) != name):
        with contextlib.suppress(UsageError):  # of a version with other settings
            return read_recipe(folder)
    return None


def announcer_of(workspace: Path, models: ModelRegistry, model_id: str) -> Announcer | None:
    """Where the events of a model are shown; None where no run of the workspace says it."""
    name = ""
    with contextlib.suppress(RanklineError):
        name = models.manifest(model_id).recipe
    recipe = recorded_recipe(workspace, name=name)
    return None if recipe is None else run_context(recipe, workspace).announcer
