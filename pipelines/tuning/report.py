"""The history of a study: history.json, a page with plots, and the best settings as a file for `--set @FILE`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rankline.contracts import FrozenModel
from rankline.io.files import write_json

HISTORY, PAGE, BEST = "history.json", "index.html", "best.toml"
COMPLETE = "complete"


class TrialRecord(FrozenModel):
    """One trial: its settings, how it ended, and what it reached."""

    number: int
    state: str  # complete, pruned, fail or running
    value: float | None
    settings: dict[str, float]
    seconds: float | None = None
    run: str = ""
    error: str = ""


class History(FrozenModel):
    """All trials of a study; ``own`` are the recipe's own values of the tuned settings."""

    recipe: str
    metric: str
    own: dict[str, float]
    trials: tuple[TrialRecord, ...]

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials that came to their end."""
        return [each for each in self.trials if each.state == COMPLETE and each.value is not None]

    @property
    def best(self) -> TrialRecord | None:
        """The best trial, the earliest among equals; None before one has ended."""
        return max(self.complete, key=lambda each: (each.value or 0.0, -each.number), default=None)

    @property
    def own_trial(self) -> TrialRecord | None:
        """The trial of the recipe's own settings."""
        return next((each for each in self.complete if each.settings == self.own), None)

    @property
    def is_better(self) -> bool:
        """Whether a trial is better than the recipe's own settings."""
        return self.best is not None and self.best is not self.own_trial


def write_report(folder: Path, history: History) -> None:
    """Write the history, its page, and the best settings where a trial has ended."""
    best = history.best
    write_json(folder / HISTORY, {**history.model_dump(), "best": best.number if best else None})
    if best is not None:
        (folder / BEST).write_text(best_settings(history, best), encoding="utf-8")
    (folder / PAGE).write_text(_page(history), encoding="utf-8")


def best_settings(history: History, best: TrialRecord) -> str:
    """The settings of a trial in TOML, a table per section."""
    import tomli_w

    sections: dict[str, dict[str, Any]] = {}
    for setting, value in best.settings.items():
        section, name = setting.split(".")
        sections.setdefault(section, {})[name] = value
    heading = f"# recipe {history.recipe}: trial {best.number} of rankline tune, {history.metric} {best.value:.4f}\n"
    return heading + tomli_w.dumps(sections)


def _page(history: History) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipelines.tuning", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    plots = [_values_plot(history), *(_setting_plot(history, name) for name in history.own)] if history.complete else []
    return environment.get_template("history.html").render(history=history, plots=plots)


def _values_plot(history: History) -> str:
    """The metric of every trial, and the best so far."""
    from rankline.io import svg

    with svg.style(named_rows=False):
        figure, axes = svg.figure(2.6)
        numbers = [each.number for each in history.complete]
        values = [each.value or 0.0 for each in history.complete]
        best, so_far = -math.inf, []
        for value in values:
            best = max(best, value)
            so_far.append(best)
        axes.step(numbers, so_far, where="post", color=svg.AMBER, linewidth=1.5)
        axes.plot(numbers, values, "o", color=svg.BLUE, markersize=5)
        axes.set_xlabel("trial")
        axes.set_ylabel(history.metric)
        return svg.svg(figure, f"{history.metric} of each trial, and the best so far")


def _setting_plot(history: History, setting: str) -> str:
    """The metric by the value of one setting."""
    from rankline.io import svg

    with svg.style(named_rows=False):
        figure, axes = svg.figure(2.0, 3.0)
        axes.plot(
            [each.settings[setting] for each in history.complete],
            [each.value or 0.0 for each in history.complete],
            "o", color=svg.BLUE, markersize=4,
        )  # fmt: skip
        axes.axvline(history.own[setting], color=svg.AMBER, linewidth=1)
        axes.set_xlabel(setting)
        return svg.svg(figure, f"{history.metric} by {setting}")
