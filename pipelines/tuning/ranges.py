"""The settings that `rankline tune` varies, and between which values.

Only settings that the towers' validation can judge are here. The scorer is fitted to the validation requests, so
nothing is left to choose its settings by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.recipe import Recipe
from rankline.contracts import FrozenModel
from rankline.errors import UsageError

if TYPE_CHECKING:
    import optuna


class Range(FrozenModel):
    """The values of one setting that are tried; on a logarithmic scale where ``log``."""

    setting: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def suggest(self, trial: optuna.Trial) -> float | int:
        """The value of a trial."""
        if self.whole:
            return trial.suggest_int(self.setting, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.setting, self.low, self.high, log=self.log)

    def including(self, value: float) -> Range:
        """The range, widened to a recipe's own value."""
        return self.model_copy(update={"low": min(self.low, value), "high": max(self.high, value)})

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


RANGES = (
    Range(setting="distill.learning_rate", low=3e-4, high=1e-2, log=True),
    Range(setting="distill.dropout", low=0.05, high=0.6),
    Range(setting="distill.own_dropout", low=0.0, high=0.5),
    Range(setting="distill.soft_weight", low=0.0, high=1.0),
    Range(setting="distill.temperature", low=0.5, high=4.0, log=True),
    Range(setting="distill.layers", low=1, high=3, whole=True),
    Range(setting="finetune.learning_rate", low=3e-4, high=1e-2, log=True),
    Range(setting="finetune.dropout", low=0.05, high=0.6),
    Range(setting="finetune.own_dropout", low=0.0, high=0.5),
    Range(setting="finetune.layers", low=1, high=3, whole=True),
)


def value_of(recipe: Recipe, setting: str) -> Any:
    """A recipe's own value of a setting."""
    section, name = setting.split(".")
    return getattr(getattr(recipe, section), name)


def ranges_of(recipe: Recipe, only: Sequence[str] = ()) -> tuple[Range, ...]:
    """The ranges to try: all, or those that ``only`` names by setting or by section.

    Raises:
        UsageError: a name is of no range.
    """
    names = {each.setting for each in RANGES} | {each.setting.partition(".")[0] for each in RANGES}
    if unknown := [name for name in only if name not in names]:
        raise UsageError(
            f"no range is declared for {unknown[0]}",
            expected="a setting or a section: " + ", ".join(sorted(names)),
            found=unknown[0],
            hint="`rankline tune RECIPE --plan` lists the ranges",
        )
    chosen = [each for each in RANGES if not only or {each.setting, each.setting.partition(".")[0]} & {*only}]
    return tuple(each.including(value_of(recipe, each.setting)) for each in chosen)
