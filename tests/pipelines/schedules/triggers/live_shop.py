"""A shop whose events go on day by day, and trainings of it: their ingest is real, and nothing else of them runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from components.ingest.step import ingest
from pipelines.recipe import Recipe, as_dict
from pipelines.recipes import named
from pipelines.schedules.firing import Firing
from pipelines.schedules.model import Schedule
from pipelines.schedules.store import ScheduleStore
from rankline.io.artifacts import declared_digest, write_digests
from rankline.io.files import write_json
from rankline.runtime import ledger

FIRST_DAY = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
SETTINGS = ("ingest.columns.price=price", "ingest.columns.category=shelf")
ITEMS = 40


class LiveShop:
    """A workspace, and a source in it that grows."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.source = folder / "workspace", folder / "source"
        self.source.mkdir(parents=True)
        self.workspace.mkdir()
        items = [f"i{n},item {n},{n + 1}.0,shelf{n % 4}" for n in range(ITEMS)]
        (self.source / "items.csv").write_text("\n".join(["item_id,movie_title,price,shelf", *items]) + "\n")
        self._rng, self._lines = np.random.default_rng(7), ["user_id,item_id,timestamp,click"]

    @property
    def recipe(self) -> Recipe:
        """The recipe that reads the source."""
        return named("interactions", SETTINGS, source=str(self.source))

    def sell(self, first: int, last: int, *, events: int = 60, cheapest: int = 0) -> None:
        """Add the events of some days, of items from ``cheapest`` on; fewer at weekends."""
        for day in range(first, last):
            start = FIRST_DAY + timedelta(days=day)
            count = int(events * (0.6 if start.weekday() >= 5 else 1) * self._rng.uniform(0.95, 1.05))
            seconds = self._rng.choice(86_400, count, replace=False)
            for second, item in zip(seconds, self._rng.integers(cheapest, ITEMS, count)):
                at = int((start + timedelta(seconds=int(second))).timestamp())
                self._lines.append(f"u{second % 30},i{item},{at},1")
        (self.source / "events.csv").write_text("\n".join(self._lines) + "\n")

    def train(self, day: int, *, outcome: str = "refused", trigger: dict[str, Any] | None = None) -> str:
        """A finished training on the events up to a day; returns its run."""
        end = self.day(day).isoformat()
        recipe = named("interactions", [*SETTINGS, f"ingest.window_end={end}"], source=str(self.source))
        folder = self.workspace / "runs" / f"{self.day(day):%Y%m%d-%H%M%S}-interactions"
        raw = folder / "artifacts" / "raw"
        result = ingest(raw, config=recipe.ingest)
        write_digests(raw)
        write_json(folder / "recipe.json", as_dict(recipe))
        write_json(folder / "summary.json", {"run": folder.name, "outcome": outcome, "steps": []})
        if trigger:
            write_json(folder / "trigger.json", trigger)
        entry = ledger.Entry(
            step="ingest", status="done", started=0.0, finished=1.0, result=result,
            outputs={"raw": declared_digest(raw)}, paths={"raw": str(raw)},
        )  # fmt: skip
        ledger.write_entry(folder, entry)
        return folder.name

    def schedule(self, *when: str, day: int = 0, **settings: Any) -> Schedule:
        """A schedule of the recipe with these triggers."""
        values = {
            "name": "shop", "recipe": "interactions", "source": str(self.source), "settings": SETTINGS, "when": when,
            "directory": str(self.workspace), **settings,
        }  # fmt: skip
        return self.store.create(values, now=self.day(day))

    @property
    def store(self) -> ScheduleStore:
        """The schedules of the workspace."""
        return ScheduleStore(self.workspace)

    def firings(self) -> list[Firing]:
        """The firings of the schedule."""
        return self.store.firings("shop").all()

    @staticmethod
    def day(number: float) -> datetime:
        """Midnight at the start of a day."""
        return FIRST_DAY + timedelta(days=number)
