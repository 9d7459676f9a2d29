"""What the triggers of one check have in common: the schedule, its recipe, the last training, the live data."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipelines.recipe import Recipe, run_context
from pipelines.schedules.model import Schedule
from pipelines.schedules.triggers.live import Live, Reference, read_live, read_reference
from pipelines.schedules.triggers.training import Training, last_training
from rankline.errors import UsageError
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import PROMOTING, Event


@dataclass(frozen=True)
class Subject:
    """The subject of one check; what several triggers need is read once, when the first of them needs it."""

    schedule: Schedule
    recipe: Recipe
    workspace: Path
    folder: Path  # where the schedule stores its checks
    now: datetime

    @functools.cached_property
    def training(self) -> Training | None:
        """The last training; None where there is none."""
        return last_training(self.workspace, recipe=self.recipe.name, flow=self.schedule.flow)

    @functools.cached_property
    def reference(self) -> Reference:
        """The days of the last training, for every column that a trigger names."""
        assert self.training is not None, "asked after that"
        names = [each.subject for each in self.schedule.triggers if each.kind == "drift"]
        return read_reference(self.folder, self.training, self.recipe, self.workspace, names, zone=self.schedule.zone)

    @functools.cached_property
    def live(self) -> Live:
        """The events since the last training, up to where a run would read them now."""
        bins = {}
        if self.training is not None and any(each.kind == "drift" for each in self.schedule.triggers):
            with contextlib.suppress(UsageError):  # the trigger that compares says so; others need no reference
                bins = {name: each.bins for name, each in self.reference.columns.items()}
        return read_live(
            self.folder, self.training, self.recipe, self.workspace, bins,
            until=self.schedule.window_of(self.now).end, zone=self.schedule.zone,
        )  # fmt: skip

    @functools.cached_property
    def history(self) -> list[Event]:
        """The events of the model registry."""
        repository = run_context(self.recipe, self.workspace).repository
        return ModelRegistry(repository, repair_cache=False).history()

    @property
    def promotion(self) -> Event | None:
        """The event since which the champion serves; None where no model does."""
        return next((event for event in reversed(self.history) if event.kind in PROMOTING), None)
